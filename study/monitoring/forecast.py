"""Estimated time and disk space of the pending stages of a plan, from finished stages of the same kind."""

import os
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.protocol import StageResources
from datasets.cache.arrays import size_of
from datasets.loading.native import native_entries
from datasets.loading.prepare import prepared_entries
from datasets.loading.truth import truth_entry
from datasets.loading.weak_labels import pseudo_label_layout
from models.task_settings.pseudo_labels import pseudo_labels_of
from study.monitoring.gpu_memory import WHOLE_GPU, known_shares, shape_of
from study.monitoring.stage_records import Record, planned_kind_of, sample_records
from study.monitoring.units import duration
from study.planning.graph import Plan, PlannedStage
from study.store.paths import WEIGHTS
from study.store.store import Store

CHECKPOINT_COPIES = 8
"""Maximum size of a running stage's checkpoints in multiples of its weights: the last and the best weights and two
optimizer moments, doubled while one checkpoint replaces another."""
BYTES_PER_PARAMETER = 4
GPUS = Path("/proc/driver/nvidia/gpus")

Forecast = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingLoad:
    """A stage to train, `times` times if it stands for the candidates of a search.

    Weights of candidates are kept with `keep.weights: all` only.
    """

    node: PlannedStage
    image_epochs: int
    times: int = 1
    is_candidate: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Resources that stages are assumed to run on: this machine, with at least one GPU if finished stages used one."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Medians of one kind of stage: device seconds per image-epoch, and bytes on disk."""

    seconds: float
    weights: float
    other_files: float


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    load: TrainingLoad
    seconds: float
    """Of training the stage once."""
    gpus: float
    cost: _Cost


def kind_of(record: Record) -> Hashable:
    """Return the settings that determine the time of an image-epoch."""
    settings, image = record["settings"], record["image"]
    network = (record["architecture"], record["backbone"])
    has_weak_labels = settings.get("rest", "none") != "none"
    return settings["task"], has_weak_labels, settings["precision"], *network, str(image["size"]), image["channels"]


def forecast(
    plan: Plan, store: Store, cache: Path, loads: Iterable[TrainingLoad], reads: Iterable[PlannedStage]
) -> Forecast:
    """Estimate time and disk space. Early stopping and pruning are ignored.

    Args:
        plan: The plan of the study.
        store: The storage with finished stages.
        cache: Folder of prepared images.
        loads: Stages to train, parents first.
        reads: Stages that read prepared images.

    Returns:
        Estimates over the stages of a known kind, None if there are none; `unknown` counts the other stages.
    """
    loads, kind = list(loads), planned_kind_of(kind_of, plan)
    records = sample_records(plan, store, kind_of, {kind(load.node) for load in loads})
    used_gpu = any(_on_gpu(record) for group in records.values() for record in group.values())
    cuda = plan.spec.resources.gpus != 0 and used_gpu
    costs = {name: cost for name, group in records.items() if (cost := _cost(store, group, cuda=cuda)) is not None}
    known = [load for load in loads if kind(load.node) in costs]
    shares = _shares(plan, store, known) if cuda else [0.0] * len(known)
    estimates = [
        _estimate(plan, load, costs[kind(load.node)], share) for load, share in zip(known, shares, strict=True)
    ]
    stages = sum(load.times for load in loads)
    result: Forecast = {
        "stages": stages,
        "unknown": stages - sum(load.times for load in known),
        "cache": _cache(plan, cache, reads),
    }
    if loads and not known:
        return result | dict.fromkeys(("slots", "seconds", "cpu_hours", "gpu_hours", "storage"))
    slots = _slots(plan, estimates, _machine(cuda=cuda))
    return result | {
        "slots": slots,
        **_time(plan, estimates, slots, cuda=cuda),
        "storage": _storage(plan, estimates, slots),
    }


def _on_gpu(record: Record) -> bool:
    return str(record.get("device")).startswith("cuda")


def _cost(store: Store, records: Mapping[str, Record], *, cuda: bool) -> _Cost | None:
    """Return the median cost of stages of one kind, None if none ran on this type of device."""
    rows = []
    for digest, record in records.items():
        with suppress(LookupError):  # from an older version without these keys
            if _on_gpu(record) == cuda and (images := _image_epochs(record)):
                rows.append((_device_seconds(record) / images, *_bytes(store, digest, record)))
    if not rows:
        return None
    seconds, weights, other_files = (statistics.median(column) for column in zip(*rows, strict=True))
    return _Cost(seconds=seconds, weights=weights, other_files=other_files)


def _device_seconds(record: Record) -> float:
    """Return seconds times the number of CPU cores or GPUs of a stage."""
    return float(record["seconds"] * record["workers"] * (1 if _on_gpu(record) else record["cpus"]))


def _image_epochs(record: Record) -> float:
    """Return the number of images passed through the network, as `study.planning.graph.image_epochs` does."""
    settings, images = record["settings"], record["data"]["train"]
    batch = settings["batch_size"]
    if settings["epochs"] and not settings["balance"]:
        batch = images / -(-images // batch)
    return float(record["updates"] * batch)


def _bytes(store: Store, digest: str, record: Record) -> tuple[float, float]:
    """Return the bytes of the weights, even if they were deleted, and of all other files of a finished stage."""
    files = dict(store.manifest(digest)["files"])
    weights = files.pop(WEIGHTS, {}).get("bytes", BYTES_PER_PARAMETER * record["parameters"])
    return weights, sum(file["bytes"] for file in files.values())


def _shares(plan: Plan, store: Store, loads: Sequence[TrainingLoad]) -> list[float]:
    """Return the share of a GPU for each stage, or for each of its workers."""
    resources = plan.spec.resources
    if not resources.pack:
        return [WHOLE_GPU if resources.gpus == "auto" else float(resources.gpus)] * len(loads)
    shape = planned_kind_of(shape_of, plan)
    known = known_shares(plan, store, {shape(load.node) for load in loads})
    return [known.get(shape(load.node), WHOLE_GPU) for load in loads]


def _estimate(plan: Plan, load: TrainingLoad, cost: _Cost, gpus: float) -> _Estimate:
    resources = plan.spec.resources
    devices = resources.workers * (1 if gpus else resources.cpus)
    return _Estimate(load=load, seconds=cost.seconds * load.image_epochs / devices, gpus=gpus, cost=cost)


def _machine(*, cuda: bool) -> Machine:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(GPUS.glob("*"))) if visible is None else len([name for name in visible.split(",") if name])
    return Machine(cpus=os.cpu_count() or 1, gpus=max(gpus, 1) if cuda else 0)


def _slots(plan: Plan, estimates: Sequence[_Estimate], machine: Machine) -> int:
    """Return the number of stages that run at once, given the mean share of a GPU."""
    resources = plan.spec.resources
    gpus = statistics.fmean([estimate.gpus for estimate in estimates]) if estimates else 0.0
    return StageResources(cpus=resources.cpus, gpus=gpus, workers=resources.workers).slots(machine)


def _time(plan: Plan, estimates: Sequence[_Estimate], slots: int, *, cuda: bool) -> Forecast:
    """Return the wall time in seconds, at least that of the longest chain, and the hours of all devices."""
    resources, ends, total, hours = plan.spec.resources, dict[str, float](), 0.0, 0.0
    for estimate in estimates:
        load, seconds = estimate.load, estimate.seconds * estimate.load.times
        total += seconds
        hours += seconds * resources.workers * (estimate.gpus if cuda else resources.cpus) / 3600
        if not load.is_candidate:
            start = max((ends.get(need, 0.0) for need in load.node.needs), default=0.0)
            ends[load.node.digest] = start + estimate.seconds
    wall_time = max(total / slots, max(ends.values(), default=0.0))
    return {"seconds": wall_time, "cpu_hours": None if cuda else hours, "gpu_hours": hours if cuda else None}


def _storage(plan: Plan, estimates: Sequence[_Estimate], slots: int) -> Forecast:
    """Return the maximum bytes while the study runs, checkpoints included, and the bytes kept at its end."""
    keep = plan.spec.keep.weights
    compared = {item.load.node.digest: item.cost.weights for item in estimates if not item.load.is_candidate}
    parents = compared.keys() & {need for item in estimates for need in item.load.node.needs}
    weights = sum(item.cost.weights * item.load.times for item in estimates)
    other_files = sum(item.cost.other_files * item.load.times for item in estimates)
    checkpoints = slots * CHECKPOINT_COPIES * max((item.cost.weights for item in estimates), default=0.0)
    kept = 0.0 if keep == "none" else weights
    if keep == "parents+best":
        replicates = plan.spec.compare.folds * len(plan.spec.compare.seeds)
        kept = sum(compared[name] for name in parents)
        kept += sum(sorted(weights for name, weights in compared.items() if name not in parents)[-replicates:])
    return {"most": round(weights + other_files + checkpoints), "kept": round(kept + other_files)}


def _cache(plan: Plan, cache: Path, reads: Iterable[PlannedStage]) -> Forecast:
    """Return the bytes of prepared images, masks and pseudo-labels, and of those that this machine has already.

    Pseudo-labels depend on weights, so that it is not known which ones there are.
    """
    entries: dict[Path, int] = {}
    nodes = list(reads)
    for node in {id(node.identity): node for node in nodes}.values():
        index, step = plan.views[node.selection.data].index, node.step
        target, structure = step.settings.target, node.identity.structure
        if step.image.fit == "patch":
            entries |= native_entries(index, target, step.image, cache)
        else:
            entries |= prepared_entries(index, target, step.image, structure=structure, cache=cache)
    for size in {scoring.size for node in nodes for scoring in plan.scorings.get(node.digest, {}).values()}:
        view = plan.views[plan.target]
        for index in (view.index, *(annotator.index for annotator in view.annotators.values())):
            entries |= truth_entry(index, size, cache)
    present = sum(size for folder, size in entries.items() if folder.is_dir())
    labels = sum(_pseudo_label_bytes(plan, node) for node in {node.digest: node for node in nodes}.values())
    return {"bytes": sum(entries.values()) + labels, "there": present}


def _pseudo_label_bytes(plan: Plan, node: PlannedStage) -> int:
    """Return the bytes of the pseudo-labels of a stage."""
    block = pseudo_labels_of(node.step.settings)
    if block is None or not node.teachers:
        return 0
    view, shape = plan.views[node.selection.data], node.step.image.shape
    images = len(view.stage_rows(node.selection).unlabelled)
    return size_of(pseudo_label_layout(view.index, images, shape, probabilities=block.labels == "soft"))


def forecast_lines(forecast: Forecast) -> list[str]:
    """Return the forecast as lines of text."""
    cache, unknown = forecast["cache"], forecast["unknown"]
    if not (forecast["stages"] or cache["bytes"]):
        return []
    lines = [f"cache        {_size_text(cache['bytes'])} on each node, {_size_text(cache['there'])} of it there"]
    missing = "no finished stage of their kind is in the storage"
    if forecast["seconds"] is None:
        return [*lines, f"forecast     time and disk are unknown: {missing}"]
    kind = "CPU" if forecast["gpu_hours"] is None else "GPU"
    hours, storage = forecast["cpu_hours" if kind == "CPU" else "gpu_hours"], forecast["storage"]
    slots = forecast["slots"]
    lines += [
        f"time         about {duration(forecast['seconds'])} at {slots} stages at once; {hours:.2g} {kind} hours",
        f"disk         about {_size_text(storage['most'])} in the storage at most; {_size_text(storage['kept'])} stay",
    ]
    without = f"             without {unknown:,} of the {forecast['stages']:,} stages to train: {missing}"
    return [*lines, without] if unknown else lines


def _size_text(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
