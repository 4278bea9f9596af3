"""What a committed data set is: its files, manifest, records and sidecars, how they are proved, audited, removed.

Reads and, for retention, changes DATASET/TASK/PLAN_ID folders. Imports adapters and what lies below.
"""
