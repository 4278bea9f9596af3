"""Draws synthetic samples in the layouts of the data sets: stain, tissue, textures, and the files around them."""
