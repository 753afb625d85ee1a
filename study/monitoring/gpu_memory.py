"""Share of a GPU that a stage needs, estimated from records of similar stages (`resources: {pack: true}`)."""

import math
from collections.abc import Hashable, Mapping

from study.monitoring.stage_records import Record, sample_records
from study.planning.graph import Plan
from study.store.store import Store

MARGIN = 1.1
"""Factor on the peak memory, because fragmentation differs from run to run."""
CONTEXT_BYTES = 2**30
"""Memory of the CUDA context of a process, which torch does not count."""
SHARE_STEP = 0.05
WHOLE_GPU = 1.0


def gpu_share(memory: Mapping[str, int]) -> float:
    """Return the share of a GPU, in steps of 0.05, for a stage with this `gpu_memory` in its record."""
    required = (MARGIN * memory["peak"] + CONTEXT_BYTES) / memory["total"]
    return min(WHOLE_GPU, round(math.ceil(required / SHARE_STEP) * SHARE_STEP, 2))


def shape_of(record: Record) -> Hashable:
    """Return the settings that determine the GPU memory of a stage."""
    settings, image, link = record["settings"], record["image"], record["link"]
    return (
        *(settings[name] for name in ("task", "batch_size", "accumulate", "precision")),
        *(record[name] for name in ("architecture", "backbone")),
        str(image["size"]),
        image["channels"],
        str(sorted(settings["loss"])),
        settings.get("deep_supervision", False),
        (settings.get("average") or {}).get("name"),
        settings["optimizer"]["name"],
        settings["optimizer"]["momentum"] > 0,
        str(settings.get("adversarial", {}).get("discriminator")),
        settings.get("consistency", {}).get("method"),
        settings.get("consistency", {}).get("cutmix", 0) > 0,
        _has_pool(record),
        tuple(link["freeze"]),
        link["unfreeze_after"],
    )


def _has_pool(record: Record) -> bool | None:
    """Return whether unlabelled images are used; None for tasks without them and for records without their number."""
    unlabelled = record.get("data", {}).get("unlabelled")
    return None if unlabelled is None else unlabelled > 0


def known_shares(plan: Plan, store: Store, shapes: set[Hashable]) -> dict[Hashable, float]:
    """Return by shape the largest GPU share among the finished stages of the storage; unknown shapes are missing."""
    records_by_shape = sample_records(plan, store, shape_of, shapes)
    shares = {
        shape: [gpu_share(record["gpu_memory"]) for record in records.values() if record.get("gpu_memory")]
        for shape, records in records_by_shape.items()
    }
    return {shape: max(values) for shape, values in shares.items() if values}
