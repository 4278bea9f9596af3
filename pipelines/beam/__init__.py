"""The Beam parts of ingest and prediction: flags, numbered work, and the two DoFns.

Only these modules import Beam.
"""
