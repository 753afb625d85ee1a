"""Imports timm and segmentation_models_pytorch, which require torchvision; no other module imports them.

`models.standalone` explains why operators of torchvision are declared first.
"""

import warnings

from models.standalone import declare_missing_schemas

_library = declare_missing_schemas()

with warnings.catch_warnings():
    # Image files are not read or written with torchvision here.
    warnings.filterwarnings("ignore", message="Failed to load image Python extension", category=UserWarning)
    import segmentation_models_pytorch as smp
    import timm

__all__ = ["smp", "timm"]
