"""What is left of a plan will take, by what finished stages of the same kind in the storage took."""

import os
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.protocol import Share
from datasets.loading.prepare import prepared_entries, truth_entry
from study.monitoring.gpu_memory import WHOLE, known_shares, shape_of
from study.monitoring.stage_records import Record, kinds_by, sampled
from study.monitoring.units import duration
from study.planning.graph import Plan, PlannedStage
from study.store.paths import WEIGHTS
from study.store.store import Store

CHECKPOINT = 8
"""Times its weights that a running stage has on disk at most: the last ones, the best and two moments of an optimizer,
and as much again while one checkpoint takes the place of another."""
BYTES = 4
"""Of a parameter."""
GPUS = Path("/proc/driver/nvidia/gpus")

Told = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Load:
    """A stage that is to be trained, `times` by a search; candidates' weights stay with `keep.weights: all` only."""

    node: PlannedStage
    image_epochs: int
    times: int = 1
    tried: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What stages are taken to run on: this machine, with one GPU at least where finished stages had one."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Medians of one kind: seconds of a device for an image-epoch, and bytes of a stage."""

    seconds: float
    weights: float
    others: float


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    load: Load
    seconds: float
    """Of one stage."""
    gpus: float
    cost: _Cost


def kind_of(record: Record) -> Hashable:
    """Return what moves the time of an image-epoch by much."""
    settings, image = record["settings"], record["image"]
    network = (record["architecture"], record["backbone"])
    return settings["task"], settings["precision"], *network, image["size"], image["channels"]


def forecast(plan: Plan, store: Store, cache: Path, loads: Iterable[Load], reads: Iterable[PlannedStage]) -> Told:
    """Tell time and disk of stages to train, parents first, and of the prepared images of stages that read them.

    Figures are those of stages whose kind is known, None where there are none; `unknown` counts the others. Early
    stopping and pruning make it less.
    """
    loads, kind = list(loads), kinds_by(kind_of)
    found = sampled(plan, store, kind_of, {kind(load.node) for load in loads})
    cuda = plan.spec.resources.gpus != 0 and any(_on_gpu(one) for group in found.values() for one in group.values())
    costs = {name: cost for name, group in found.items() if (cost := _cost(store, group, cuda=cuda)) is not None}
    known = [load for load in loads if kind(load.node) in costs]
    shares = _shares(plan, store, known) if cuda else [0.0] * len(known)
    estimates = [
        _estimate(plan, load, costs[kind(load.node)], share) for load, share in zip(known, shares, strict=True)
    ]
    stages = sum(load.times for load in loads)
    told: Told = {
        "stages": stages,
        "unknown": stages - sum(load.times for load in known),
        "cache": _cache(plan, cache, reads),
    }
    if loads and not known:
        return told | dict.fromkeys(("slots", "seconds", "cpu_hours", "gpu_hours", "storage"))
    slots = _slots(plan, estimates, _machine(cuda=cuda))
    return told | {
        "slots": slots,
        **_time(plan, estimates, slots, cuda=cuda),
        "storage": _storage(plan, estimates, slots),
    }


def _on_gpu(record: Record) -> bool:
    return str(record.get("device")).startswith("cuda")


def _cost(store: Store, records: Mapping[str, Record], *, cuda: bool) -> _Cost | None:
    """Return what stages of one kind took, None where none ran on such a device."""
    rows = []
    for digest, record in records.items():
        with suppress(LookupError):  # of an older version, which does not tell all of it
            if _on_gpu(record) == cuda and (images := _image_epochs(record)):
                rows.append((_device_seconds(record) / images, *_bytes(store, digest, record)))
    if not rows:
        return None
    seconds, weights, others = (statistics.median(column) for column in zip(*rows, strict=True))
    return _Cost(seconds=seconds, weights=weights, others=others)


def _device_seconds(record: Record) -> float:
    """Return seconds times the processors, or GPUs, that a stage had."""
    return float(record["seconds"] * record["workers"] * (1 if _on_gpu(record) else record["cpus"]))


def _image_epochs(record: Record) -> float:
    """Return how many images passed through the network, as `study.planning.graph.image_epochs` counts them."""
    settings, images = record["settings"], record["data"]["train"]
    batch = settings["batch_size"]
    if settings["epochs"] and not settings["balance"]:
        batch = images / -(-images // batch)
    return float(record["updates"] * batch)


def _bytes(store: Store, digest: str, record: Record) -> tuple[float, float]:
    """Return the bytes of weights, kept or not, and of all other files of a finished stage."""
    files = dict(store.seal(digest)["files"])
    weights = files.pop(WEIGHTS, {}).get("bytes", BYTES * record["parameters"])
    return weights, sum(file["bytes"] for file in files.values())


def _shares(plan: Plan, store: Store, loads: Sequence[Load]) -> list[float]:
    """Return the share of a GPU that each stage, or each of its workers, will take."""
    resources = plan.spec.resources
    if not resources.pack:
        return [WHOLE if resources.gpus == "auto" else float(resources.gpus)] * len(loads)
    shape = kinds_by(shape_of)
    known = known_shares(plan, store, {shape(load.node) for load in loads})
    return [known.get(shape(load.node), WHOLE) for load in loads]


def _estimate(plan: Plan, load: Load, cost: _Cost, gpus: float) -> _Estimate:
    resources = plan.spec.resources
    devices = resources.workers * (1 if gpus else resources.cpus)
    return _Estimate(load=load, seconds=cost.seconds * load.image_epochs / devices, gpus=gpus, cost=cost)


def _machine(*, cuda: bool) -> Machine:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(GPUS.glob("*"))) if visible is None else len([name for name in visible.split(",") if name])
    return Machine(cpus=os.cpu_count() or 1, gpus=max(gpus, 1) if cuda else 0)


def _slots(plan: Plan, estimates: Sequence[_Estimate], machine: Machine) -> int:
    """Return how many stages run at once, of the mean share of a GPU."""
    resources = plan.spec.resources
    gpus = statistics.fmean([one.gpus for one in estimates]) if estimates else 0.0
    return Share(cpus=resources.cpus, gpus=gpus, workers=resources.workers).slots(machine)


def _time(plan: Plan, estimates: Sequence[_Estimate], slots: int, *, cuda: bool) -> Told:
    """Return seconds on the slots, at least those of the longest chain, and hours of all devices."""
    resources, ends, total, hours = plan.spec.resources, dict[str | None, float](), 0.0, 0.0
    for one in estimates:
        total += one.seconds * one.load.times
        hours += one.seconds * one.load.times * resources.workers * (one.gpus if cuda else resources.cpus) / 3600
        if not one.load.tried:
            ends[one.load.node.digest] = ends.get(one.load.node.parent, 0.0) + one.seconds
    seconds = max(total / slots, max(ends.values(), default=0.0))
    return {"seconds": seconds, "cpu_hours": None if cuda else hours, "gpu_hours": hours if cuda else None}


def _storage(plan: Plan, estimates: Sequence[_Estimate], slots: int) -> Told:
    """Return bytes at most while it runs, with the checkpoints of running stages, and those that stay."""
    keep = plan.spec.keep.weights
    compared = {one.load.node.digest: one.cost.weights for one in estimates if not one.load.tried}
    parents = compared.keys() & {one.load.node.parent for one in estimates}
    weights = sum(one.cost.weights * one.load.times for one in estimates)
    others = sum(one.cost.others * one.load.times for one in estimates)
    under_way = slots * CHECKPOINT * max((one.cost.weights for one in estimates), default=0.0)
    kept = 0.0 if keep == "none" else weights
    if keep == "parents+best":
        cell = plan.spec.compare.folds * len(plan.spec.compare.seeds)
        kept = sum(compared[name] for name in parents)
        kept += sum(sorted(weights for name, weights in compared.items() if name not in parents)[-cell:])
    return {"most": round(weights + others + under_way), "kept": round(kept + others)}


def _cache(plan: Plan, cache: Path, reads: Iterable[PlannedStage]) -> Told:
    """Return the bytes of prepared images and masks, and how many of them this machine has."""
    entries: dict[Path, int] = {}
    nodes = list(reads)
    for node in {id(node.recipe): node for node in nodes}.values():
        index, step = plan.views[node.draw.data].index, node.step
        target, structure = step.settings.target, node.recipe.structure
        entries |= prepared_entries(index, target, step.image, structure=structure, cache=cache)
    for size in {scoring.size for node in nodes for scoring in plan.scorings.get(node.digest, {}).values()}:
        entries |= truth_entry(plan.views[plan.target].index, size, cache)
    there = sum(size for folder, size in entries.items() if folder.is_dir())
    return {"bytes": sum(entries.values()), "there": there}


def forecast_lines(told: Told) -> list[str]:
    """Return the forecast as a person reads it."""
    cache, unknown = told["cache"], told["unknown"]
    if not (told["stages"] or cache["bytes"]):
        return []
    lines = [f"cache        {_size(cache['bytes'])} on each node, {_size(cache['there'])} of it there"]
    missing = "no finished stage of their kind is in the storage"
    if told["seconds"] is None:
        return [*lines, f"forecast     time and disk are unknown: {missing}"]
    kind = "CPU" if told["gpu_hours"] is None else "GPU"
    hours, storage = told["cpu_hours" if kind == "CPU" else "gpu_hours"], told["storage"]
    lines += [
        f"time         about {duration(told['seconds'])} at {told['slots']} stages at once; {hours:.2g} {kind} hours",
        f"disk         about {_size(storage['most'])} in the storage at most; {_size(storage['kept'])} stay",
    ]
    without = f"             without {unknown:,} of the {told['stages']:,} stages to train: {missing}"
    return [*lines, without] if unknown else lines


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
