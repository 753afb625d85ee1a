"""Versions of everything in `datasets` that a digest depends on. A change of pixels raises the number."""

VERSIONS = {"preparation": 3, "augmentation": 3, "batches": 1}
