"""Versions of the parts of `models` that are included in digests. A change of numerics increases them."""

VERSIONS = {"network": 5, "losses": 1, "optimize": 2, "tasks": 2, "counts": 1}
PSEUDO_LABELS = 1
"""Version of pseudo-labels as they are predicted, and of their losses, which is included where a stage uses them."""
WEAK_LABELS = 1
"""Version of the losses of weak labels, which is included where a stage uses them."""
