"""The raw layouts of the data sets, one module each, to a patch index.

Reads a download's folder or bucket (names, label tables, group tables, never pixels); leaves an Arrow table of patches
and one of rejects. `registry` knows every adapter by name. Imports images, storage and core.
"""
