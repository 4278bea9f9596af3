"""What runs: one module per command; `histoline` exposes them, and each runs as `python -m pipelines.NAME`.

Reads the command line, recipes and a workspace; leaves what the components behind a command leave there, a result on
stdout and an exit code. Imports components and schemas, and Beam or TFX in `beam/` and `tfx/` alone.
"""
