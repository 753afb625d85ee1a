"""Scores of a trained localisation stage on the test and validation images of its data."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from datasets.loading.prepare import Prepared
from models.distributed import without_other_workers
from models.tasks.base import Batch, Task
from results import schema
from study.planning.dataset_view import HeldOutRows
from study.training.loader import FeatureReader, on_device, to_images

BATCH = 8


def stage_scores(
    network: nn.Module,
    task: Task,
    arrays: Prepared,
    validation: Sequence[int],
    test: HeldOutRows,
    features: FeatureReader | None = None,
) -> pa.Table:
    """Return one row per split and metric of `task.scores`, with the columns of `schema.stored_stage_scores`.

    A split without images has no rows. `images` counts the images; those without annotation do not contribute.
    """
    network.eval()
    lines = []
    for split, chosen in (("validation", validation), ("test", test.rows)):
        if chosen:
            with without_other_workers():  # they have ended
                scores = task.scores(_statistics(network, task, arrays, chosen, features))
            for metric, value in scores.items():
                fingerprint = test.fingerprint if split == "test" else ""
                lines.append({
                    "split": split, "metric": metric, "value": None if math.isnan(value) else value,
                    "images": len(chosen), "fingerprint": fingerprint,
                })  # fmt: skip
    return pa.Table.from_pylist(lines, schema=schema.stored_stage_scores())


@torch.no_grad()
def _statistics(
    network: nn.Module, task: Task, arrays: Prepared, rows: Sequence[int], features: FeatureReader | None
) -> Tensor:
    """Return the sum of the statistics of all images, on the CPU."""
    device = next(network.parameters()).device
    assert arrays.targets is not None
    total: Tensor | None = None
    for start in range(0, len(rows), BATCH):
        chosen = list(rows[start : start + BATCH])
        batch = Batch(
            images=to_images(torch.from_numpy(arrays.images[chosen]), device),
            target=on_device(torch.from_numpy(arrays.targets[chosen]), device),
            encoded=None if features is None else features(np.asarray(chosen)),
        )
        statistics = task.statistics(network, batch).cpu()
        total = statistics if total is None else total + statistics
    assert total is not None
    return total
