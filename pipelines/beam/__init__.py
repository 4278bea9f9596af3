"""The Beam parts of ingest and prediction: flags, numbered work, and the two DoFns.

Reads the numbers of shards or parts; leaves what the components write for each. Imports ingest, prediction and core.
Only these modules import Beam.
"""
