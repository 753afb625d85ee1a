"""Imports timm and segmentation_models_pytorch, which require torchvision; no other module imports them.

The compiled operators of torchvision do not load with a torch version that it was not built for, and its Python code
then fails on `torchvision::nms`. Declaring the schema of that operator is enough, as no network here calls it.
"""

import importlib.util
import warnings
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_schemas() -> torch.library.Library:
    """Declare operators that are missing in torchvision's compiled library; the result must be kept alive."""
    _load_compiled_operators()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _load_compiled_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("_C*")):
            try:
                torch.ops.load_library(path)  # type: ignore[no-untyped-call]
            except OSError:
                continue


_library = declare_missing_schemas()

with warnings.catch_warnings():
    # Image files are not read or written with torchvision here.
    warnings.filterwarnings("ignore", message="Failed to load image Python extension", category=UserWarning)
    import segmentation_models_pytorch as smp
    import timm

__all__ = ["smp", "timm"]
