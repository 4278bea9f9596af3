"""Every commit and every lock, on a local disk or on Google Cloud Storage, behind one small interface.

Reads and writes what it is told to below one root. `base` says what a storage can do, `open` makes one. Imports core
and `components.errors`.
"""
