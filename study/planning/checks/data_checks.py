"""Checks of the data that a study requires: annotations, classes, structures, number of images."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from datasets.checks.findings import listed
from datasets.errors import DataError
from datasets.settings import SCALE_RANGE
from datasets.source import Index
from datasets.targets import annotation_kind_of, is_convertible
from datasets.targets import names as output_names
from models.settings import LossSettings, class_weights_problem, loss_problem, structure_of
from study.config.schema import StudySpec
from study.config.stages import MaskStage
from study.errors import Problem, unknown
from study.planning.arms import Arm, StageConfig
from study.planning.dataset_view import DatasetView


def data_problems(arms: Iterable[Arm], views: Mapping[str, DatasetView]) -> Iterator[Problem]:
    """Yield stages whose data lacks the required annotation, and losses, classes and structures that do not fit it."""
    for step in {id(step): step for arm in arms for step in arm.chain}.values():
        if step.settings.data in views:
            yield from _step_problems(step, views[step.settings.data].index)


def _step_problems(step: StageConfig, index: Index) -> Iterator[Problem]:
    settings, path = step.settings, f"stages.{step.stage}"
    yield from _channel_problems(step, index)
    if step.image.spacing is not None:
        yield from _spacing_problems(step, index)
    kind = annotation_kind_of(settings.target)
    offered = sorted(kind for kind, hashes in index.annotation_digests.items() if any(hashes))
    if kind is not None and kind not in offered:
        has = ", ".join(offered) or "images only"
        message = f"{settings.task} needs {kind}, which {settings.data} has not; allowed: data with {kind} ({has} here)"
        yield Problem(path=f"{path}.data", message=message)
        return
    exclusive = settings.target == "mask" and not index.overlapping
    if isinstance(settings, LossSettings):
        loss = loss_problem(settings.loss, settings.target, exclusive=exclusive)
        if loss:
            yield Problem(path=f"{path}.loss", message=loss)
    if isinstance(settings, MaskStage) and isinstance(settings.class_weights, Mapping) and settings.class_weights:
        classes = output_names(index, settings.target)
        weights = class_weights_problem(settings.class_weights, classes, exclusive=exclusive)
        if weights:
            yield Problem(path=f"{path}.class_weights", message=weights)
    class_threshold = settings.class_threshold if isinstance(settings, MaskStage) else None
    if class_threshold is not None and class_threshold.class_ not in output_names(index, settings.target):
        known_classes = output_names(index, settings.target)
        yield Problem(
            path=f"{path}.class_threshold.class", message=unknown("class", class_threshold.class_, known_classes)
        )
    if settings.balance is not None and not any(index.categories):
        message = f"{settings.data} has no categories; allowed: data with a category for each image; remove balance"
        yield Problem(path=f"{path}.balance", message=message)
    if settings.target in ("centre", "box"):
        structure = structure_of(settings)
        if structure is not None and structure not in index.structures:
            yield Problem(path=f"{path}.structure", message=unknown("structure", structure, index.structures))
        if structure is None and len(index.structures) != 1:
            message = f"is missing; allowed: {', '.join(index.structures)}; say which one"
            yield Problem(path=f"{path}.structure", message=message)


def _image_path(step: StageConfig, key: str) -> str:
    """Return where an image setting of a stage is in the study file."""
    return f"image.{key}" if getattr(step.settings.image, key) is None else f"stages.{step.stage}.image.{key}"


def _channel_problems(step: StageConfig, index: Index) -> Iterator[Problem]:
    """Yield images whose number of channels does not fit the input of a stage."""
    channels, ids_by_number = step.image.channels, defaultdict[int, list[str]](list)
    for image_id, number in zip(index.ids, index.channels, strict=False):
        if number:  # 0: the image cannot be read, which is reported separately
            ids_by_number[number].append(image_id)
    path = _image_path(step, "channels")
    for number, ids in ids_by_number.items():
        if number != channels and not (index.has_colours and is_convertible(number, channels)):
            other = [n for n in ids_by_number if n != number]
            remedy = "give all images the same channels" if other else f"set image.channels to {number}"
            yield Problem(
                path=path,
                message=f"is {channels}, but {len(ids)} images of {step.settings.data} have {number} ({listed(ids)}); "
                f"allowed: {number}; {remedy}",
            )


def _spacing_problems(step: StageConfig, index: Index) -> Iterator[Problem]:
    """Yield images without a spacing, or with one that is far from that of the stage."""
    wanted, name = step.image.spacing or 0.0, step.settings.data
    path, rows = _image_path(step, "spacing"), [row for row, fault in enumerate(index.faults) if not fault]
    unknown = [index.ids[row] for row in rows if not index.spacing(row)]
    if unknown:
        message = (
            f"is {wanted:g}, but {len(unknown)} of {len(rows)} images of {name} state no size of their pixels "
            f"({unknown[0]}); allowed: NIfTI files, DICOM files with PixelSpacing, TIFF files of nnU-Net with a JSON "
            "file; use image.scale"
        )
        yield Problem(path=path, message=message)
        return
    sides = [side for row in rows for side in index.spacing(row)[-2:]]
    low, high = min(sides, default=wanted), max(sides, default=wanted)
    if low / wanted < SCALE_RANGE[0] or high / wanted > SCALE_RANGE[1]:
        message = (
            f"is {wanted:g} mm, and pixels of {name} have {low:g} to {high:g} mm; allowed: factors of "
            f"{SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g} between them; change it"
        )
        yield Problem(path=path, message=message)


def class_problems(spec: StudySpec, view: DatasetView) -> Iterator[Problem]:
    """Yield unknown classes of metrics, and a `min_images` that no class can reach."""
    classes = view.index.classes
    for position, name in enumerate(spec.metrics.classes or ()):
        if name not in classes:
            yield Problem(path=f"metrics.classes[{position}]", message=unknown("class", name, classes))
    rows = (*classes, "macro", "weighted", *(["background"] if spec.metrics.background else []))
    for section, published in enumerate(spec.published):
        if published.class_ not in rows:
            yield Problem(path=f"published[{section}].class", message=unknown("class", published.class_, rows))
    index = view.index
    annotated = len({index.case(row) for row, mask in enumerate(index.annotation_digests["masks"]) if mask})
    if spec.metrics.min_images > annotated:
        message = f"is {spec.metrics.min_images}; allowed: 1 to {annotated}, the images of the target with masks"
        yield Problem(path="metrics.min_images", message=f"{message}; lower it")


def split_problems(spec: StudySpec, view: DatasetView, name: str) -> Iterator[Problem]:
    """Yield folds that cannot be split, and amounts of labels that leave no training images."""
    compare = spec.compare
    for seed in sorted({view.split_seed(seed) for seed in compare.seeds}):
        for fold in range(compare.folds):
            full_problem = _split_problem(view, fold, seed, 1.0)
            if full_problem:
                yield Problem(path=f"data.{name}.split", message=full_problem)
                return
            for position, labelled in enumerate(compare.labelled):
                problem = _split_problem(view, fold, seed, labelled)
                if problem:
                    yield Problem(path=f"compare.{compare.level}[{position}]", message=problem)


def _split_problem(view: DatasetView, fold: int, seed: int, labelled: float | int) -> str | None:
    try:
        view.split(fold=fold, seed=seed, labelled=labelled)
    except DataError as error:
        return str(error)
    return None
