"""Stain vectors, for unmixing colours at ingest, for stain augmentation and for synthetic tissue alike.

Unit optical densities (R, G, B) of pure dyes: A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical
staining by color deconvolution", Anal Quant Cytol Histol 23:291-299 (2001), PMID 11531144.
"""

from __future__ import annotations

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)

STAIN_MATRIX = (HAEMATOXYLIN, EOSIN, DAB)
"""[3, 3]: amounts of haematoxylin, eosin and DAB @ this = optical densities (R, G, B)."""
