"""Versions of everything in `datasets` that a digest depends on. A change of pixels raises the number."""

VERSIONS = {"preparation": 1, "augmentation": 1, "batches": 1}
