"""Versions of everything in `datasets` that a digest depends on. A change of pixels raises the number."""

VERSIONS = {"preparation": 2, "augmentation": 1, "batches": 1}
