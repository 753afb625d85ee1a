"""A first comparison for a data set: few training runs that already answer a question."""

from study.config.document import Document

MAX_FOLDS = 5
PATIENTS_PER_FOLD = 4
"""Minimum number of test patients of a fold, where there are enough for two folds."""
FEW_PATIENTS = 8
"""Number of patients below which a quarter of the masks is hardly an image."""
IMAGE_SIZE, STEPS, EPOCHS, BATCH_SIZE = 256, 300, 10, 8


def first_comparison(name: str, *, patients: int, channels: int, fixed_test: bool) -> Document:
    """Return the sections of a study file beside `data`: does an autoencoder of all images save masks?

    Args:
        name: Name of the data set under `data`.
        patients: Number of patients with masks.
        channels: Channels of the input.
        fixed_test: Whether the test set is fixed, so that seeds in place of folds repeat the comparison.
    """
    folds = 1 if fixed_test else max(2, min(MAX_FOLDS, patients // PATIENTS_PER_FOLD))
    segment = {
        "task": "segmentation", "data": name, "steps": STEPS, "batch_size": BATCH_SIZE, "augment": {"preset": "light"},
        "schedule": {"name": "cosine"},
    }  # fmt: skip
    return {
        "image": {"size": IMAGE_SIZE, "channels": channels},
        "stages": {
            "encode": {"task": "reconstruction", "data": name, "epochs": EPOCHS, "batch_size": BATCH_SIZE},
            "segment": segment,
        },
        "pathways": {"none": ["segment"], "autoencoder": ["encode", "segment"]},
        "compare": {
            "architecture": ["unet"],
            "backbone": ["resnet18"],
            "labelled_fraction": [0.5, 0.75, 1.0] if patients < FEW_PATIENTS else [0.25, 0.5, 1.0],
            "folds": folds,
            "seeds": [0, 1, 2] if fixed_test else [0],
            "baseline": {"pathway": "none"},
        },
    }
