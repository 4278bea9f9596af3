"""What runs: one module per command; `histoline` exposes them, and each runs as `python -m pipelines.NAME`."""
