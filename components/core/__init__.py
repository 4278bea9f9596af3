"""Tools without a domain: Arrow columns, JSON documents, processes, memory, allowed folders, the codes of rejects.

Reads and leaves nothing. Imports `components.errors`, `components.version` and `schemas` only.
"""
