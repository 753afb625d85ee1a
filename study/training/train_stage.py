"""What a worker does with one job: train it unless it is published, score it, publish it."""

import functools
import importlib.metadata
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from datasets.loading.augment import Augmenter
from datasets.loading.balance import balanced
from datasets.loading.batches import Batches
from datasets.loading.prepare import Prepared, prepared, truth
from models.build import build
from models.network import Network
from models.tasks import make_task
from models.tasks.base import Outputs, Task
from models.tasks.segmentation import Segmentation
from models.weights import initial
from study.config.compare import WeightsFile
from study.planning.blueprint import blueprint
from study.planning.dataset_view import Cohort, CohortSpec, Reading
from study.planning.graph import Scoring
from study.store.atomic import hash_of, write_json
from study.store.lease import claim
from study.store.paths import WEIGHTS
from study.store.pretrained import kept
from study.store.store import Store, write_scores
from study.training.allocator import keep_freed
from study.training.checkpoint import Checkpoints, Copies, removed_if_refused, save_tensors
from study.training.evaluate import Examination, score
from study.training.job import Job, Surroundings
from study.training.loader import Context, Material
from study.training.rescore import rescore
from study.training.trainer import Loop, Trained

LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "albumentations", "ray")


class DataChanged(RuntimeError):  # noqa: N818 - an expected state
    """The data, or the file that training starts from, is not what was planned with."""

    @classmethod
    def of(cls, what: str) -> "DataChanged":
        """Say what it is that is another."""
        return cls(
            f"{what} not what was planned with; allowed: the same while a study runs; run the study again to plan with "
            "what is there now"
        )


@dataclass(kw_only=True)
class Bench:
    """A job with all it takes opened."""

    job: Job
    cohort: Cohort
    reading: Reading
    arrays: Prepared
    task: Task
    network: Network


Member = Callable[[Context], None]
Spread = Callable[[Member], None]
"""Runs a member in each of several workers of a stage."""


def perform(job: Job, surroundings: Surroundings, context: Context, spread: Spread | None = None) -> None:
    """Bring one stage to its end: published, and scored where it is a target. `spread`: it has several workers.

    Raises `study.store.lease.Claimed` where another process works on it, `study.store.store.Damaged` where the parent
    is unusable, `study.training.trainer.Diverged` and `DataChanged`.
    """
    torch.set_num_threads(surroundings.cpus)
    store = surroundings.store
    with claim(store.work(job.digest), store.mirror):
        missing = [scoring for scoring in job.scorings if not rescore(store, job.digest, scoring)]
        published = store.is_finished(job.digest)
        trained = published and (store.has_weights(job.digest) or not (missing or job.needs_weights))
        if trained and not missing:
            return
        member = (
            functools.partial(score_again, job, surroundings, missing)
            if trained
            else functools.partial(train, job, surroundings)
        )
        if spread is None:
            member(context)
        else:
            spread(member)


def open_bench(job: Job, surroundings: Surroundings) -> Bench:
    """Open data and build the network with its random weights. Raises `DataChanged`."""
    node, step = job.node, job.node.step
    cohort = _cohort(job.cohort, surroundings.cache)
    reading = cohort.reading(node.draw)
    if reading.fingerprint != job.fingerprint:
        raise DataChanged.of(f"the images of {node.draw.data} are")
    recipe = node.recipe
    arrays = prepared(
        cohort.source, cohort.index, step.settings.target, step.image, structure=recipe.structure,
        cache=surroundings.cache,
    )  # fmt: skip
    task = make_task(step.settings, Outputs(names=recipe.names, exclusive=recipe.exclusive))
    torch.manual_seed(node.seed)
    plan = blueprint(step.settings, step.image, step.architecture, step.backbone, task.head_channels())
    return Bench(job=job, cohort=cohort, reading=reading, arrays=arrays, task=task, network=build(plan))


_cohorts: dict[str, Cohort] = {}
"""Opened data sets of this process; a warm worker runs many stages on few data sets."""


def _cohort(spec: CohortSpec, cache: Path) -> Cohort:
    key = f"{cache} {spec.data.model_dump_json()} {spec.folds} {spec.min_cases} {spec.reserve} {sorted(spec.excluded)}"
    if key not in _cohorts:
        _cohorts[key] = Cohort.open(spec, cache)
    return _cohorts[key]


def score_again(job: Job, surroundings: Surroundings, missing: Sequence[Scoring], context: Context) -> None:
    """Score a trained stage once more, in the first of its workers."""
    if context.rank:
        return
    torch.set_num_threads(surroundings.cpus)
    bench, store = open_bench(job, surroundings), surroundings.store
    bench.network.load_state_dict(load_file(store.weights(job.digest)))
    bench.network.to(context.device)
    for scoring in missing:
        store.add_scores(job.digest, scoring.key, *_scored(bench, scoring, surroundings.cache))


def train(job: Job, surroundings: Surroundings, context: Context) -> None:
    """Do one worker's part of the training; the first one publishes what came out."""
    torch.set_num_threads(surroundings.cpus)
    if context.device.type == "cpu":
        keep_freed()
    if context.compiles:
        torch.compiler.reset()  # torch compiles so many networks a process and runs further ones as they are
    if context.device.type == "cuda":
        torch.cuda.empty_cache()  # what the stage before it took is not this one's peak
        torch.cuda.reset_peak_memory_stats(context.device)
    started = time.time()
    bench, store = open_bench(job, surroundings), surroundings.store
    transfer = _start(bench, store)
    copies = Copies(store.mirror.remote, job.digest) if store.mirror is not None else None
    checkpoints = Checkpoints(
        work=store.work(job.digest),
        copies=copies,
        every=surroundings.checkpoint.epochs,
        pause=surroundings.checkpoint.seconds,
    )
    trained = _loop(bench, context).run(checkpoints)
    if context.rank:
        return
    draft = checkpoints.folder / "draft"
    bench.network.load_state_dict(trained.weights)
    publish = store.republish if store.is_finished(bench.job.digest) else store.publish
    with removed_if_refused(draft):
        draft.mkdir(parents=True)
        save_tensors({name: tensor.cpu().contiguous() for name, tensor in trained.weights.items()}, draft / WEIGHTS)
        pq.write_table(pa.Table.from_pylist(trained.history), draft / "history.parquet")
        write_json(draft / "transfer.json", transfer)
        for scoring in job.scorings:
            write_scores(draft, scoring.key, *_scored(bench, scoring, surroundings.cache))
        if copies is not None:
            copies.settle()
        seconds = trained.earlier_seconds + time.time() - started
        publish(bench.job.digest, draft, _record(bench, trained, surroundings, seconds))
        if job.ends and store.mirror is not None:
            store.mirror.forget(job.digest, WEIGHTS)


def _loop(bench: Bench, context: Context) -> Loop:
    node, settings = bench.job.node, bench.job.node.step.settings
    arrays = bench.arrays
    augmenter = Augmenter(settings.augment, settings.target, node.step.image.size)
    reading = bench.reading

    def batches(rows: Sequence[int], *, labelled: bool = True, trains: bool = True) -> Batches | None:
        if not rows:
            return None
        return Batches(
            arrays.images, arrays.targets if labelled else None, rows,
            batch_size=settings.batch_size, seed=node.seed, augmenter=augmenter if trains else None,
            parts=settings.accumulate if trains else 1,
        )  # fmt: skip

    train = reading.train
    if settings.balance is not None:
        train = balanced(train, bench.cohort.index.categories, settings.balance.images)
    training = batches(train)
    assert training is not None, "a reading without training images is refused when it is drawn"
    material = Material(
        training=training,
        validation=batches(reading.validation, trains=False),
        # A batch of one image is more than some networks can normalise over.
        unlabelled=batches(reading.unlabelled, labelled=False) if len(reading.unlabelled) > 1 else None,
    )
    return Loop(bench.network, bench.task, settings, node.step.link, material, seed=node.seed, context=context)


def _start(bench: Bench, store: Store) -> dict[str, Any]:
    """Put initial or carried weights into the network; return what was carried, new and left behind.

    Raises `DataChanged`.
    """
    node, network, link = bench.job.node, bench.network, bench.job.node.step.link
    told = {"from": node.start, "frozen": link.freeze}
    if node.parent is not None:
        transfer = initial.carry(load_file(store.weights(node.parent)), network, link.parts)
        return told | {"carried": transfer.carried, "new": transfer.new, "left_behind": transfer.left_behind}
    if isinstance(node.initial_weights, WeightsFile):
        file = node.initial_weights.file
        if hash_of(file) != bench.job.start_content:
            raise DataChanged.of(f"the content of {file} is")
        initial.load_file(network, file)
    elif node.initial_weights != "random":
        name = node.initial_weights
        initial.load_pretrained(network, node.step.backbone, name, file=kept(store, node.step.backbone, name))
    return told


def _scored(bench: Bench, scoring: Scoring, cache: Path) -> tuple[pa.Table, pa.Table]:
    split = bench.cohort.split(fold=scoring.fold, seed=scoring.seed, labelled=scoring.labelled)
    rows = {"test": split.test, "validation": split.validation}
    return score(bench.network, examination(bench, scoring, cache), rows)


def examination(bench: Bench, scoring: Scoring, cache: Path) -> Examination:
    """Return what one scoring shows to the network of a target stage."""
    if not isinstance(bench.task, Segmentation):
        raise TypeError(f"a {bench.job.node.step.settings.task} stage has no masks to score")
    return Examination(
        task=bench.task,
        index=bench.cohort.index,
        prepared=bench.arrays,
        truth=truth(bench.cohort.source, bench.cohort.index, scoring.size, cache),
        image=bench.job.node.step.image,
        size=scoring.size,
        threshold=scoring.threshold,
        class_threshold=scoring.class_threshold,
    )


def _side(bench: Bench) -> int:
    """Return the median longer side of the training images in pixels, by which a tile of a larger image is cut."""
    return int(np.median(bench.arrays.shapes[list(bench.reading.train)].max(axis=1)))


def _memory(device: torch.device) -> dict[str, int] | None:
    """Return the bytes of a GPU that were taken at most, and how many it has."""
    if device.type != "cuda":
        return None
    return {"peak": torch.cuda.max_memory_reserved(device),
            "total": torch.cuda.get_device_properties(device).total_memory}  # fmt: skip


def _record(bench: Bench, trained: Trained, surroundings: Surroundings, seconds: float) -> Mapping[str, Any]:
    job, node, step = bench.job, bench.job.node, bench.job.node.step
    device = next(bench.network.parameters()).device
    return {
        "digest": job.digest,
        "stage": step.stage,
        "parent": node.parent,
        "architecture": step.architecture,
        "backbone": step.backbone,
        "initial_weights": node.start if node.parent is None else None,
        "seed": node.seed,
        "settings": step.settings.model_dump(mode="json", by_alias=True),
        "image": step.image.model_dump(mode="json"),
        "outputs": asdict(bench.task.outputs),
        "structure": node.recipe.structure,
        "link": step.link.model_dump(mode="json"),
        "data": {"fingerprint": job.fingerprint, "train": len(bench.reading.train),
                 "validation": len(bench.reading.validation), "side": _side(bench)},
        "updates": trained.progress.updates,
        "best_epoch": trained.progress.best_epoch or trained.progress.epoch,
        "best_score": trained.progress.best_score,
        "averaged_scores": trained.averaged,
        "parameters": sum(parameter.numel() for parameter in bench.network.parameters()),
        "seconds": round(seconds, 3),
        "cpus": surroundings.cpus,
        "workers": surroundings.workers,
        "device": str(device),
        "gpu_memory": _memory(device),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }  # fmt: skip
