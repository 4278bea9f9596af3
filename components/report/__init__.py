"""Report pages: one self-contained HTML file per run, and an index over all runs.

`page.write` makes a run's page, `index.write` the index. Neither loads TensorFlow or TFX.
"""
