"""A recipe and a committed data set become a SavedModel.

Reads recipes, shards and the run's record; leaves checkpoints, history and an exported model in the run's folder.
Imports datasets and what lies below, never ingest.
"""
