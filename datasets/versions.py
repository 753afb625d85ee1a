"""Versions of the parts of `datasets` that are included in digests. A change of pixels increases them."""

VERSIONS = {"preparation": 3, "augmentation": 3, "batches": 1}
ELASTIC = 2
"""Version of elastic deformation, which is included where a stage uses it."""
WEAK = 1
"""Version of weak labels as they are derived and read for training, which is included where a stage uses them."""
