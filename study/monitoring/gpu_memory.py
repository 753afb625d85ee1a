"""The share of a GPU that a stage takes, estimated from records of stages of its shape (`resources: {pack: true}`)."""

import math
from collections.abc import Hashable, Mapping

from study.monitoring.stage_records import Record, sampled
from study.planning.graph import Plan
from study.store.store import Store

MARGIN = 1.1
"""Over the peak: the allocator's gaps differ from run to run."""
CONTEXT_BYTES = 2**30
"""What CUDA and its libraries take for each process, which torch does not count."""
STEP = 0.05
WHOLE = 1.0


def share_of(memory: Mapping[str, int]) -> float:
    """Return the share of a GPU, in steps of 0.05, that holds a stage with this `gpu_memory` in its record."""
    wanted = (MARGIN * memory["peak"] + CONTEXT_BYTES) / memory["total"]
    return min(WHOLE, round(math.ceil(wanted / STEP) * STEP, 2))


def shape_of(record: Record) -> Hashable:
    """Return all that moves the memory of a stage's training by much."""
    settings, image, link = record["settings"], record["image"], record["link"]
    return (
        *(settings[name] for name in ("task", "batch_size", "accumulate", "precision")),
        *(record[name] for name in ("architecture", "backbone")),
        *(image[name] for name in ("size", "channels")),
        settings["optimizer"]["name"],
        settings["optimizer"]["momentum"] > 0,
        str(settings.get("adversarial", {}).get("discriminator")),
        tuple(link["freeze"]),
        link["unfreeze_after"],
    )


def known_shares(plan: Plan, store: Store, shapes: set[Hashable]) -> dict[Hashable, float]:
    """Return the shares of shapes that finished stages of the storage had, the largest of each."""
    found = sampled(plan, store, shape_of, shapes)
    shares = {
        shape: [share_of(record["gpu_memory"]) for record in records.values() if record.get("gpu_memory")]
        for shape, records in found.items()
    }
    return {shape: max(values) for shape, values in shares.items() if values}
