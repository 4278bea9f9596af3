"""Versions of histoline and of what its ingest writes."""

__version__ = "0.1.0"

INGEST_VERSION = 1
"""Raised when equal input would give other bytes; part of PLAN_ID."""
