"""New images get probabilities from an exported model.

Reads image folders or data sets and one SavedModel; leaves a table of probabilities, one of rejects, and maps. Imports
promotion and what lies below, never ingest.
"""
