"""What of a workspace may go, and why the rest stays: runs, checkpoints, sweeps, data sets, caches.

`rules` says what is asked, `needs` who needs what, `judgement` what follows from both, `removal` does it. Imports
sweeps and what lies below. TFX's outputs are the business of `pipelines.tfx.artifacts`.
"""
