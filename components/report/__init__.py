"""Report pages: one self-contained HTML file per run, and an index over all runs.

`page.write` makes a run's page, `index.write` the index, from what a run left. Neither loads TensorFlow or TFX. Imports
everything below, and is imported by pipelines alone.
"""
