"""Run one job on a worker: train the stage unless it is published, evaluate it, publish it."""

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

from datasets.augment_settings import AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.balance import balanced, class_pixels
from datasets.loading.batches import Batches
from datasets.loading.examples import Examples, WholeImages
from datasets.loading.mixing import MixedExamples
from datasets.loading.native import NativeImages, native_images
from datasets.loading.patches import RandomPatches, Tiles
from datasets.loading.prepare import Prepared, prepared
from datasets.loading.strong_views import StrongViews
from datasets.loading.truth import truth
from datasets.loading.views import Views
from datasets.settings import VolumeSettings
from datasets.source import IGNORE
from datasets.targets import Target
from models.adaptation import adapt, merge_adapters
from models.build import build
from models.catalog.registry import published_weights
from models.losses.class_weights import balanced as balanced_weights
from models.network import Network
from models.settings import MaskSettings, TaskSettings, pool_of, unlabelled_start_of
from models.task_settings.views import GLOBAL_VIEWS, SelfDistillationSettings, views_of
from models.task_settings.weak_labels import weak_values_of
from models.tasks import make_task
from models.tasks.base import Outputs, Task
from models.tasks.feature_distillation import FeatureDistillation
from models.tasks.localisation import Localisation
from models.tasks.segmentation import Segmentation
from models.weights import initial
from study.config.compare import WeightsFile, source_of
from study.config.stages import ConsistencyStage, Stage
from study.planning.arms import StageConfig
from study.planning.blueprint import stage_blueprint
from study.planning.dataset_view import DatasetView, DatasetViewSpec, StageRows
from study.planning.graph import Scoring, pool_of_stage
from study.store.atomic import hash_of, write_json
from study.store.paths import STAGE_SCORES, WEIGHTS
from study.store.pretrained import stored_weights
from study.store.store import Store, write_scores
from study.training.allocator import keep_freed_memory
from study.training.checkpoint import Checkpoints, removed_on_error, save_tensors
from study.training.features import CachedFeatures
from study.training.job import PlannedWeights, RuntimeContext, StageJob
from study.training.loader import FeatureReader, StageData, WorkerContext
from study.training.pseudo_labels import image_fits, labelled_share, stage_pseudo_labels
from study.training.scoring.annotators import Annotations, scores_of_annotators
from study.training.scoring.batches import EvaluationSpec
from study.training.scoring.evaluate import score
from study.training.scoring.rescore import rescore
from study.training.scoring.stage_scores import stage_scores
from study.training.trainer import Trained, TrainingLoop
from study.training.weak_labels import StageWeakLabels, stage_weak_labels

LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "albumentations", "ray")


class DataChanged(RuntimeError):  # noqa: N818 - an expected state
    """The data or a file of weights, initial ones or those of a teacher, changed since planning."""

    @classmethod
    def of(cls, subject: str) -> "DataChanged":
        """Return the error for a subject with its verb, such as `the images of X are`."""
        return cls(
            f"{subject} not what was planned with; allowed: the same while a study runs; run the study again to plan "
            "with what is there now"
        )


@dataclass(kw_only=True)
class TrainingSetup:
    """A job with its opened data and its network."""

    job: StageJob
    view: DatasetView
    rows: StageRows
    arrays: Prepared | NativeImages
    task: Task
    network: Network
    features: FeatureReader | None = None
    """Reads the feature maps of images from the cache."""
    weak: StageWeakLabels | None = None
    """Weak labels or pseudo-labels of the images without masks."""


Member = Callable[[WorkerContext], None]
DistributeFunction = Callable[[Member], None]
"""Runs a function on each of several workers of a stage."""


def run_stage(
    job: StageJob, runtime: RuntimeContext, context: WorkerContext, spread: DistributeFunction | None = None
) -> None:
    """Train a stage, evaluate it if it is a target, and publish it.

    Args:
        job: the stage.
        runtime: paths and resources.
        context: rank, device and progress callback.
        spread: runs a function on several workers; None for a single one.

    Raises:
        LeaseHeld: another process works on the stage.
        DamagedStageError: the parent is damaged.
        study.training.trainer.Diverged: the loss is not finite.
        DataChanged: the data or a file of weights changed since planning.
    """
    torch.set_num_threads(runtime.cpus)
    store = runtime.store
    with store.lease(job.digest):
        missing = [scoring for scoring in job.scorings if not rescore(store, job.digest, scoring)]
        published = store.is_finished(job.digest)
        trained = published and (store.has_weights(job.digest) or not (missing or job.needs_weights))
        if trained and not missing:
            return
        member = (
            functools.partial(score_again, job, runtime, missing) if trained else functools.partial(train, job, runtime)
        )
        if spread is None:
            member(context)
        else:
            spread(member)


def open_setup(job: StageJob, runtime: RuntimeContext) -> TrainingSetup:
    """Open the data and build the network with random weights. Raises `DataChanged`."""
    node, step = job.node, job.node.step
    view = _open_view(job.view, runtime.cache)
    rows = view.stage_rows(node.selection)
    if rows.fingerprint != job.fingerprint:
        raise DataChanged.of(f"the images of {node.selection.data} are")
    identity = node.identity
    target = step.settings.target
    arrays = (
        native_images(view.source, view.index, target, step.image, cache=runtime.cache)
        if step.image.fit == "patch"
        else prepared(view.source, view.index, target, step.image, structure=identity.structure, cache=runtime.cache)
    )
    outputs = Outputs(names=identity.names, exclusive=identity.exclusive)
    task = make_task(_with_class_weights(step.settings, arrays, rows.train, outputs), outputs)
    torch.manual_seed(node.seed)
    network = build(stage_blueprint(step, task.head_channels()))
    return TrainingSetup(job=job, view=view, rows=rows, arrays=arrays, task=task, network=network)


def adapt_encoder(network: Network, step: StageConfig) -> None:
    """Restrict the training of the encoder to the part that `adapt` of the stage names."""
    shape = (1, network.mean.shape[1], *step.image.shape)
    adapt(network, step.settings.adapt, torch.zeros(shape))


def another_network(setup: TrainingSetup, store: Store) -> Network:
    """Return a network with the initial weights of the stage; all other weights are drawn anew."""
    step = setup.job.node.step
    network = build(stage_blueprint(step, setup.task.head_channels()))
    _load_initial_weights(network, setup.job, store)
    adapt_encoder(network, step)
    return network


def _with_class_weights(
    settings: Stage, arrays: Prepared | NativeImages, rows: Sequence[int], outputs: Outputs
) -> TaskSettings:
    """Return the settings with weights by class in place of `balanced`."""
    if not isinstance(settings, MaskSettings) or settings.class_weights != "balanced":
        return settings
    masks = arrays.targets if isinstance(arrays, Prepared) else arrays.masks
    assert masks is not None, "a stage with class weights has masks"
    pixels = class_pixels(masks.__getitem__, rows, outputs.names, exclusive=outputs.exclusive)
    resolved: TaskSettings = settings.model_copy(update={"class_weights": balanced_weights(pixels)})
    return resolved


_views: dict[str, DatasetView] = {}
"""Data sets opened by this process, which runs many stages on few data sets."""


def _open_view(spec: DatasetViewSpec, cache: Path) -> DatasetView:
    key = f"{cache} {spec.data.model_dump_json()} {spec.folds} {spec.min_cases} {spec.reserve} {sorted(spec.excluded)}"
    if key not in _views:
        _views[key] = DatasetView.open(spec, cache)
    return _views[key]


def score_again(job: StageJob, runtime: RuntimeContext, missing: Sequence[Scoring], context: WorkerContext) -> None:
    """Evaluate a trained stage again, on the worker of rank 0."""
    if context.rank:
        return
    torch.set_num_threads(runtime.cpus)
    setup, store = open_setup(job, runtime), runtime.store
    setup.network.load_state_dict(load_file(store.weights(job.digest)))
    setup.network.to(context.device)
    setup.features = _fixed_features(setup, runtime)
    for scoring in missing:
        store.add_scores(job.digest, scoring.key, *_score_tables(setup, scoring, runtime.cache))


def train(job: StageJob, runtime: RuntimeContext, context: WorkerContext) -> None:
    """Train on one worker; the worker of rank 0 evaluates and publishes the stage."""
    torch.set_num_threads(runtime.cpus)
    if context.device.type == "cpu":
        keep_freed_memory()
    if context.compiles:
        torch.compiler.reset()  # torch limits the number of compiled networks per process
    if context.device.type == "cuda":
        torch.cuda.empty_cache()  # exclude the memory of the previous stage from the peak
        torch.cuda.reset_peak_memory_stats(context.device)
    started = time.time()
    setup, store = open_setup(job, runtime), runtime.store
    transfer = _load_teacher(setup, store) | _load_initial_weights(setup.network, job, store)
    adapt_encoder(setup.network, job.node.step)
    setup.weak = _labels_without_masks(setup, store, runtime.cache, context.device)  # with networks on the device
    setup.network.to(context.device)
    setup.features = _fixed_features(setup, runtime)
    copies = store.checkpoint_copies(job.digest)
    checkpoints = Checkpoints(
        work=store.work(job.digest),
        copies=copies,
        every=runtime.checkpoint.epochs,
        pause=runtime.checkpoint.seconds,
        labels=None if setup.weak is None else setup.weak.key,
    )
    trained = _training_loop(setup, context, store).run(checkpoints)
    if context.rank:
        return
    draft = checkpoints.folder / "draft"
    setup.network.load_state_dict(trained.weights)
    merge_adapters(setup.network)
    publish = store.republish if store.is_finished(setup.job.digest) else store.publish
    with removed_on_error(draft):
        draft.mkdir(parents=True)
        weights = {name: tensor.cpu().contiguous() for name, tensor in setup.network.state_dict().items()}
        save_tensors(weights, draft / WEIGHTS)
        pq.write_table(_history_table(trained.history), draft / "history.parquet")
        write_json(draft / "transfer.json", transfer)
        if isinstance(setup.task, Localisation):
            assert isinstance(setup.arrays, Prepared), "planning refuses patches of this task"
            test = setup.view.held_out(job.node.selection)
            scores = stage_scores(setup.network, setup.task, setup.arrays, setup.rows.validation, test, setup.features)
            pq.write_table(scores, draft / STAGE_SCORES)
        for scoring in job.scorings:
            write_scores(draft, scoring.key, *_score_tables(setup, scoring, runtime.cache))
        copies.wait()
        seconds = trained.earlier_seconds + time.time() - started
        publish(setup.job.digest, draft, _record(setup, trained, runtime, seconds))
        if job.ends:
            store.discard_copy(job.digest, WEIGHTS)


def _history_table(history: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return a row for each epoch; epochs before a checkpoint of an earlier version may lack columns."""
    names = list(dict.fromkeys(name for row in history for name in row))
    return pa.table({name: [row.get(name) for row in history] for name in names})


def _training_loop(setup: TrainingSetup, context: WorkerContext, store: Store) -> TrainingLoop:
    node, settings, rows = setup.job.node, setup.job.node.step.settings, setup.rows

    def batches(indices: Sequence[int], *, labelled: bool = True, trains: bool = True) -> Batches | None:
        examples = stage_examples(setup, indices, labelled=labelled, trains=trains)
        if not len(examples):
            return None
        return Batches(
            examples, batch_size=settings.batch_size, seed=node.seed, parts=settings.accumulate if trains else 1,
        )  # fmt: skip

    train_rows = rows.train
    if settings.balance is not None:
        train_rows = balanced(train_rows, setup.view.index.categories, settings.balance.images)
    training = batches(train_rows)
    assert training is not None, "rows without training images raise DataError during planning"
    data = StageData(
        training=training,
        validation=batches(rows.validation, trains=False),
        unlabelled=batches(pool_of_stage(rows, node.step), labelled=False),
        weak=None if setup.weak is None else setup.weak.images,
        unlabelled_start=unlabelled_start_of(settings),
        features=setup.features,
    )
    return TrainingLoop(
        setup.network, setup.task, settings, node.step.link, data, seed=node.seed, context=context,
        another_network=functools.partial(another_network, setup, store),
    )  # fmt: skip


def _labels_without_masks(
    setup: TrainingSetup, store: Store, cache: Path, device: torch.device
) -> StageWeakLabels | None:
    """Return the weak labels or pseudo-labels of the images without masks, None for a stage without any."""
    node, rows, arrays = setup.job.node, setup.rows, setup.arrays
    if node.selection.weak is None and not node.teachers:
        return None
    assert isinstance(arrays, Prepared), "planning refuses patches of this task"
    pool = pool_of_stage(rows, node.step)
    if node.teachers:
        return stage_pseudo_labels(node, setup.view.index, arrays, pool, store=store, device=device, cache=cache)
    return stage_weak_labels(setup.view, node.selection, node.step, arrays, train=rows.train, rows=pool, cache=cache)


def _fixed_features(setup: TrainingSetup, runtime: RuntimeContext) -> FeatureReader | None:
    """Return a reader of the feature maps of images; None unless they are fixed and the cache saves time."""
    step, arrays = setup.job.node.step, setup.arrays
    link, settings = step.link, step.settings
    is_frozen = "encoder" in link.freeze and link.unfreeze_after is None and not link.keep_dropout
    is_fixed = is_frozen and settings.precision == "float32" and not settings.augment.changed
    if not (runtime.caches_features and is_fixed and setup.task.takes_features and isinstance(arrays, Prepared)):
        return None
    passes = settings.steps * settings.batch_size if settings.steps else (settings.epochs or 0) * len(setup.rows.train)
    target, cache = settings.target, runtime.cache
    return CachedFeatures(setup.network, arrays, setup.view.index, target, step.image, cache=cache).reader(
        passes=passes
    )


def stage_examples(
    setup: TrainingSetup, rows: Sequence[int], *, labelled: bool = True, trains: bool = True
) -> Examples:
    """Return the examples of some rows: whole images or patches, with or without their targets; or views of them.

    Args:
        setup: The stage.
        rows: Rows of the index.
        labelled: Whether targets are read.
        trains: Whether the examples are for training, which augments and mixes them and chooses patches randomly.
    """
    settings = setup.job.node.step.settings
    if views_of(settings):
        return _view_examples(setup, rows, trains=trains)
    augment = settings.augment
    examples = _single_examples(setup, rows, augment, labelled=labelled, trains=trains)
    if trains and not labelled and isinstance(settings, ConsistencyStage):
        block, shape = settings.consistency, setup.job.node.step.image.shape
        augmenter = Augmenter(block.strong_augment, "image", shape)
        return StrongViews(examples, augmenter, strong=block.strong_views, cutmix=block.cutmix)
    if not (trains and labelled and (augment.cutmix or augment.copy_paste)):
        return examples
    return MixedExamples(examples, cutmix=augment.cutmix, copy_paste=augment.copy_paste)


def _view_examples(setup: TrainingSetup, rows: Sequence[int], *, trains: bool) -> Examples:
    """Return examples with the views of a task; without local views for validation."""
    settings = setup.job.node.step.settings
    augments: list[AugmentSettings] = [settings.augment] * GLOBAL_VIEWS
    if trains and isinstance(settings, SelfDistillationSettings):
        augments += [settings.augment.model_copy(update={"crop": settings.local_crop})] * settings.local_views
    examples = [_single_examples(setup, rows, augment, labelled=False, trains=True) for augment in augments]
    return Views(examples, seed=setup.job.node.seed)


def _single_examples(
    setup: TrainingSetup, rows: Sequence[int], augment: AugmentSettings, *, labelled: bool, trains: bool
) -> Examples:
    step, arrays = setup.job.node.step, setup.arrays
    augmenter = Augmenter(augment, step.settings.target, step.image.shape) if trains else None
    if isinstance(arrays, Prepared):
        if not labelled and setup.weak is not None:
            labels = setup.weak.pixels
            moved: Target = "mask" if labels.boxes is None else "box"
            targets = labels.masks if labels.boxes is None else labels.boxes
            augmenter = Augmenter(augment, moved, step.image.shape, outside=IGNORE)
            target_rows = labels.mask_rows if labels.boxes is None else None
            return WholeImages(arrays.images, targets, rows, augmenter, target_rows=target_rows)
        return WholeImages(arrays.images, arrays.targets if labelled else None, rows, augmenter)
    masks, shape = arrays.masks if labelled else None, step.image.shape
    if not trains:
        return Tiles(arrays.images, masks, rows, shape=shape)
    return RandomPatches(
        arrays.images, masks, arrays.foreground if labelled else None, rows, shape=shape, settings=step.settings.patch,
        augmenter=augmenter,
    )  # fmt: skip


def _load_teacher(setup: TrainingSetup, store: Store) -> dict[str, Any]:
    """Load the weights of a teacher, if any; return its parameters as below. Raises `DataChanged`."""
    planned = setup.job.teacher
    if planned is None:
        return {}
    assert isinstance(setup.task, FeatureDistillation), "only this task has a teacher"
    return {"teacher": {"from": source_of(planned.weights)} | _load_encoder(setup.task.teacher, planned, store)}


def _load_initial_weights(network: Network, job: StageJob, store: Store) -> dict[str, Any]:
    """Load initial or carried weights into a network.

    Return which parameters were carried, new and left behind. Raises `DataChanged`.
    """
    node, link = job.node, job.node.step.link
    report: dict[str, Any] = {"from": node.start, "frozen": link.freeze}
    if node.carried_from is not None:
        transfer = initial.carry(load_file(store.weights(node.carried_from)), network, link.parts)
        return report | {"carried": transfer.carried, "new": transfer.new, "left_behind": transfer.left_behind}
    assert job.initial is not None, "only a stage that starts from another one has none"
    return report | _load_encoder(network, job.initial, store)


def _load_encoder(network: Network, planned: PlannedWeights, store: Store) -> dict[str, Any]:
    """Load weights with the planned content into an encoder; return the tensors of a file. Raises `DataChanged`."""
    weights = planned.weights
    if isinstance(weights, WeightsFile):
        if hash_of(weights.file) != planned.file_hash:
            raise DataChanged.of(f"the content of {weights.file} is")
        matched = initial.load_file(network, planned.backbone, weights.file, weights.allow)
        return {
            "rules": matched.rules,
            "carried": [f"encoder.{name}" for name in matched.tensors],
            "new": [f"encoder.{name}" for names in matched.kept.values() for name in names],
            "left_behind": [name for names in matched.left_out.values() for name in names],
        }
    if weights != "random":
        published = published_weights(planned.backbone, weights)
        file = stored_weights(store, published, planned.content) or initial.fetch_weights(published, planned.content)
        initial.load_pretrained(network, planned.backbone, weights, file=file)
    return {}


def _score_tables(setup: TrainingSetup, scoring: Scoring, cache: Path) -> tuple[pa.Table, pa.Table]:
    split = setup.view.split(fold=scoring.fold, seed=scoring.seed, labelled=scoring.labelled)
    rows = {"test": split.test, "validation": split.validation}
    spec = evaluation(setup, scoring, cache)
    tables = [score(setup.network, spec, rows)]
    if setup.view.annotators:
        annotations = _annotations(setup.view, spec, scoring, cache)
        tables += scores_of_annotators(setup.network, spec, annotations, split.test)
    scores, images = (pa.concat_tables(parts) for parts in zip(*tables, strict=True))
    return scores, images


def _annotations(view: DatasetView, spec: EvaluationSpec, scoring: Scoring, cache: Path) -> Annotations:
    """Return the masks of all annotators at the evaluated size."""
    others = {
        name: (truth(other.source, other.index, scoring.size, cache), frozenset(other.usable(range(len(other.index)))))
        for name, other in view.annotators.items()
    }
    masks = view.index.annotation_digests["masks"]
    trained = frozenset(row for row in range(len(view.index)) if masks[row] and not view.index.fault(row))
    return {view.trained_annotator: (spec.truth, trained), **others}


def evaluation(setup: TrainingSetup, scoring: Scoring, cache: Path) -> EvaluationSpec:
    """Return the evaluation inputs of one scoring of a target stage."""
    if not isinstance(setup.task, Segmentation):
        raise TypeError(f"a {setup.job.node.step.settings.task} stage has no masks to score")
    return EvaluationSpec(
        task=setup.task,
        index=setup.view.index,
        images=setup.arrays,
        features=setup.features,
        truth=truth(setup.view.source, setup.view.index, scoring.size, cache),
        image=setup.job.node.step.image,
        size=scoring.size,
        threshold=scoring.threshold,
        class_threshold=scoring.class_threshold,
        tta=scoring.tta,
        postprocess=dict(scoring.postprocess),
        shape=scoring.shape,
    )


def _unlabelled_images(setup: TrainingSetup) -> int | None:
    """Return the number of unlabelled images that the stage learned from, None for tasks that use none."""
    step = setup.job.node.step
    return None if pool_of(step.settings) is None else len(pool_of_stage(setup.rows, step))


def _pseudo_labels(setup: TrainingSetup) -> dict[str, Any]:
    """Return the stages that labelled images, and the share of pixels that have a label; nothing for other stages."""
    node = setup.job.node
    if not node.teachers or setup.weak is None or setup.weak.pixels.masks is None:
        return {}
    assert isinstance(setup.arrays, Prepared), "planning refuses patches of this task"
    fits = image_fits(setup.arrays, node.step, pool_of_stage(setup.rows, node.step))
    share = labelled_share(setup.weak.pixels.masks, fits)
    return {"pseudo_labels": {"teachers": list(node.teachers), "labelled_pixels": round(share, 6)}}


def _side(setup: TrainingSetup) -> int:
    """Return the median longer side of the training images in pixels, which sets the tile size of larger images."""
    return int(np.median([max(setup.view.index.shape(row)) for row in setup.rows.train]))


def _reading(setup: TrainingSetup) -> Mapping[str, Any]:
    """Return how volumes are sliced and which files are the channels of an image, as `study predict` needs it."""
    data, reading = setup.view.spec.data, dict[str, Any]()
    if isinstance(data, VolumeSettings) and setup.view.index.volumes:
        reading["volumes"] = data.model_dump(mode="json", include={"axis", "window"})
    channels = setup.view.source.channel_files
    reading |= {"channel_files": list(channels)} if channels else {}
    file_channels = setup.view.source.file_channels
    return reading | ({"file_channels": file_channels.model_dump(mode="json")} if file_channels is not None else {})


def _memory(device: torch.device) -> dict[str, int] | None:
    """Return peak and total memory of the GPU in bytes; None on a CPU."""
    if device.type != "cuda":
        return None
    return {"peak": torch.cuda.max_memory_reserved(device),
            "total": torch.cuda.get_device_properties(device).total_memory}  # fmt: skip


def _warnings(task: Task, trained: Trained) -> list[str]:
    """Return what the validation scores of the kept weights show to be wrong."""
    kept = trained.history[(trained.progress.best_epoch or trained.progress.epoch) - 1]
    scores = {name.removeprefix("val/"): value for name, value in kept.items() if name.startswith("val/")}
    message = task.warning(scores | {name: value for name, value in trained.averaged.items() if value is not None})
    return [message] if message is not None else []


def _record(setup: TrainingSetup, trained: Trained, runtime: RuntimeContext, seconds: float) -> Mapping[str, Any]:
    job, node, step = setup.job, setup.job.node, setup.job.node.step
    device = next(setup.network.parameters()).device
    return {
        "digest": job.digest,
        "stage": step.stage,
        "parent": node.parent,
        "architecture": step.architecture,
        "backbone": step.backbone,
        "initial_weights": node.start if node.carried_from is None else None,
        "initial_content": _sha256(job.initial),
        "teacher_content": _sha256(job.teacher),
        "seed": node.seed,
        "settings": step.settings.model_dump(mode="json", by_alias=True),
        "weak_labels": weak_values_of(step.settings),
        "image": step.image.model_dump(mode="json"),
        "outputs": asdict(setup.task.outputs),
        "structure": node.identity.structure,
        "link": step.link.model_dump(mode="json"),
        "data": {"fingerprint": job.fingerprint, "train": len(setup.rows.train),
                 "validation": len(setup.rows.validation), "unlabelled": _unlabelled_images(setup),
                 "side": _side(setup), **_reading(setup)},
        **_pseudo_labels(setup),
        "updates": trained.progress.updates,
        "best_epoch": trained.progress.best_epoch or trained.progress.epoch,
        "best_score": trained.progress.best_score,
        "warnings": _warnings(setup.task, trained),
        "averaged_scores": trained.averaged,
        "parameters": sum(parameter.numel() for parameter in setup.network.parameters()),
        "seconds": round(seconds, 3),
        "cpus": runtime.cpus,
        "workers": runtime.workers,
        "device": str(device),
        "gpu_memory": _memory(device),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }  # fmt: skip


def _sha256(planned: PlannedWeights | None) -> str | None:
    """Return the hash of published weights, None for others."""
    return planned.content.sha256 if planned is not None and planned.content is not None else None
