"""Raw images are planned, written and committed.

Reads a patch index, the ledger before it and raw images; leaves a data set whose manifest.json comes last. Imports
datasets and what lies below, no Beam.
"""
