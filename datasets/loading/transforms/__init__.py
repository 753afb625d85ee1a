"""Random transforms of training images. Only this package imports albumentations."""

import os

# Keeps the import of albumentations from checking for a newer version online.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
