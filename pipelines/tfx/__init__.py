"""The TFX part of a run: pipeline, components, Evaluator settings, TFDV schemas, nodes run in one process."""
