"""Is the data fit to train on, and is the model fit to serve?

Reads a run's data set, its model and the champion; leaves predictions, the gate's decision, and, where it was earned, a
version and champion.json. Imports training and what lies below, never ingest.
"""
