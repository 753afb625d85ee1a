"""Data sources, splits, prepared images and augmentation. Knows nothing of networks."""
