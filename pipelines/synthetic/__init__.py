"""Draws synthetic samples in the layouts of the data sets: stain, tissue, textures, and the files around them.

Reads nothing but options; leaves a raw folder as it would be downloaded. Imports images, for the stain vectors.
"""
