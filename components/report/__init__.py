"""Report pages: one self-contained HTML file per run, and an index over all runs.

Reads what runs left (run.json, predictions, comparison, data set); leaves report/index.html of a run (`page.write`) and
runs/index.html (`index.write`), and never loads TensorFlow or TFX. Imports everything below but ingest; pipelines alone
import it.
"""
