"""The TFX part of a run: pipeline, components, Evaluator settings, TFDV schemas, nodes run in one process.

Reads a run's frozen configuration and its data set; leaves artifacts and ML Metadata beside what training and promotion
leave. Imports promotion and what lies below. Only these modules import TFX and TFMA.
"""
