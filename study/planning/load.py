"""Load a study file and return its plan, or raise all its problems."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from datasets.checks.annotators import annotator_findings
from datasets.checks.findings import DataFinding, check
from datasets.checks.volumes import spacing_warning
from datasets.errors import DataError
from datasets.settings import ImageSettings
from datasets.source import AnnotationKind
from study.config.document import Document
from study.config.schema import StudySpec
from study.config.validation import parse
from study.errors import ConfigError, Problem
from study.planning.arms import Arm, Resolver, annotation_kinds_of, assignments
from study.planning.baselines import family_problems
from study.planning.builder import Planner
from study.planning.checks import data_checks, mask_checks, spec_checks
from study.planning.checks.adapt_checks import adapt_problems, adapt_warnings
from study.planning.checks.annotation_checks import annotation_problems
from study.planning.checks.evaluation_checks import evaluation_problems, mirror_warnings
from study.planning.checks.file_checks import file_problems, file_rules
from study.planning.checks.leak_checks import find_leaks, leak_message, leak_problems
from study.planning.checks.published_checks import published_problems, published_warnings
from study.planning.checks.search_checks import search_problems, search_warnings
from study.planning.checks.teacher_checks import teacher_files, teacher_problems
from study.planning.checks.weak_label_checks import confidence_warnings, rest_problems, unused_weak_problems
from study.planning.checks.weights_checks import initial_files, weights_problems
from study.planning.dataset_view import DatasetView, DatasetViewSpec
from study.planning.graph import Plan, StageGraph
from study.planning.pretrained import contents_of
from study.planning.read_progress import progress_line
from study.planning.teachers import weights_files
from study.store.atomic import hash_of
from study.store.store import Store

_NO_FACTORS = frozenset({"labelled_fraction", "labelled_images", "folds", "seeds", "baseline", "hours"})


def load_spec(document: Document, *, file: str) -> StudySpec:
    """Check a study file without accessing data, weights and optional packages. Raises `ConfigError`."""
    spec, arms, problems = _parse(document, file)
    problems += [] if problems else family_problems(spec, arms)
    if problems:
        raise ConfigError(problems, file)
    return spec


def load_planner(
    document: Document, *, file: str, cache: Path, storage: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Planner:  # fmt: skip
    """Check a study file completely and return its planner. Raises `ConfigError` with all problems.

    Args:
        document: the study file.
        file: its path, for messages.
        cache: folder of the data caches.
        storage: where the contents of published weights are recorded.
        meanwhile: called (possibly often) if reading data takes long and there are no problems so far.
    """
    spec, arms, problems = _parse(document, file)
    file_uses = [*initial_files(spec, arms), *teacher_files(arms)]
    problems += [*spec_checks.tracking_problems(spec), *file_problems(file_uses)]
    problems += adapt_problems(arms)
    views, warnings = _open_views(spec, arms, cache, problems, meanwhile)
    targets = spec_checks.target_names(spec)
    target = next(iter(targets), "") if len(targets) == 1 else ""
    leaks = find_leaks(spec, views, target) if target in views else []
    problems += [*leak_problems(spec, leaks), *data_checks.data_problems(arms, views)]
    if target in views:
        problems += [
            *data_checks.class_problems(spec, views[target]),
            *evaluation_problems(spec, arms, views[target].index),
            *data_checks.split_problems(spec, views[target], target),
        ]
        repeated = list(mask_checks.repeat_messages(views[target], target))
        if spec.leaks == "report":
            warnings += [f"data.{target}: {message}" for message in repeated]
        else:
            problems += [Problem(path=f"data.{target}", message=message) for message in repeated]
    for name, finding in _size_findings(arms, views, cache, problems):
        if finding.severity == "error":
            problems.append(Problem(path=f"data.{name}", message=finding.message))
        else:
            warnings.append(f"data.{name}: {finding.message}")
    problems += [] if problems else family_problems(spec, arms)
    problems += [] if problems else search_problems(spec, arms, views, target)
    if problems:
        raise ConfigError(problems, file)
    if target in views:
        warnings += [f"data.{target}: {warning}" for warning in mask_checks.presence_warnings(spec, views[target])]
        mixed = spacing_warning(views[target].index) if spec.metrics.shape is not None else ""
        warnings += [f"data.{target}: {mixed}"] if mixed else []
    warnings += [f"data.{leak.data}: {leak_message(leak)}" for leak in leaks if spec.leaks == "report"]
    warnings += [*published_warnings(spec, arms), *adapt_warnings(arms), *confidence_warnings(arms, views)]
    warnings += search_warnings(spec, arms, views[target], target) if target in views else []
    warnings += mirror_warnings(spec, arms, views[target].index, target) if target in views else []
    files = {file: hash_of(file) for file in weights_files(arms)}
    plan = Plan(
        file=file, spec=spec, target=target, views=views, files=files,
        file_rules=file_rules(file_uses),
        contents=contents_of(arms, Store(storage) if storage is not None else None), leaks=tuple(leaks),
        warnings=tuple(warnings), graph=StageGraph(arms),
    )  # fmt: skip
    return Planner(plan)


def _parse(document: Document, file: str) -> tuple[StudySpec, list[Arm], list[Problem]]:
    """Return the spec, its arms, and the problems of the file itself."""
    spec, problems = parse(document)
    if spec is None:
        raise ConfigError(problems, file)
    names_by_section = {key: _names(document.get(key)) for key in ("data", "stages", "pathways", "compare")}
    invalid = _invalid_keys(problems)
    problems += spec_checks.reference_problems(spec, names_by_section)
    problems += [*spec_checks.name_problems(spec), *spec_checks.pathway_problems(spec), *published_problems(spec)]
    problems += spec_checks.worker_problems(spec)
    arms = _resolve_arms(spec, invalid, problems)
    if not any(section == "data" for section, _ in invalid):  # a data set with problems may have lost its minutes
        problems += annotation_problems(spec, arms)
    return spec, arms, problems


def _names(section: object) -> Collection[str]:
    return [str(name) for name in section] if isinstance(section, Mapping) else []


def _invalid_keys(problems: list[Problem]) -> set[tuple[str, str]]:
    """Return the first two keys of the path of each problem, such as (stages, segment)."""
    paths = [re.split(r"[.\[]", f"{problem.path}..") for problem in problems]
    return {(path[0], path[1]) for path in paths}


def _resolve_arms(spec: StudySpec, invalid: set[tuple[str, str]], problems: list[Problem]) -> list[Arm]:
    """Resolve all arms that consist of valid parts of the file; add their problems to `problems`."""
    if any(head == "image" or (head == "compare" and key not in _NO_FACTORS) for head, key in invalid):
        return []
    valid_stages = {name for name in spec.stages if ("stages", name) not in invalid}
    valid_pathways = {name for name in spec.pathways if valid_stages.issuperset(_stages_of(spec, name))}
    rows = assignments(spec)
    resolver = Resolver(spec)
    arms = [arm for row in rows if row["pathway"] in valid_pathways and (arm := resolver.arm(row)) is not None]
    problems += resolver.problems
    problems += spec_checks.rule_problems(spec)
    problems += spec_checks.factor_problems(spec, arms)
    problems += spec_checks.arm_problems(arms)
    problems += spec_checks.unused_patch_problems(spec, arms)
    incomplete = resolver.refused.union(*(_stages_of(spec, name) for name in spec.pathways.keys() - valid_pathways))
    problems += [*rest_problems(spec), *unused_weak_problems(spec, arms, incomplete)]
    problems += [*weights_problems(spec, arms), *teacher_problems(arms)]
    if not rows:
        message = "every combination is excluded; allowed: at least one arm; remove a rule of exclude"
        problems.append(Problem(path="compare.exclude", message=message))
    return arms


def _stages_of(spec: StudySpec, pathway: str) -> list[str]:
    return [link.stage for link in spec.pathways[pathway]]


def _open_views(
    spec: StudySpec, arms: list[Arm], cache: Path, problems: list[Problem], meanwhile: Callable[[], None] | None
) -> tuple[dict[str, DatasetView], list[str]]:
    """Read the index of every data set that a pathway uses; return the views without errors and all warnings."""
    links = {link.stage for links in spec.pathways.values() for link in links}
    used = {spec.stages[name].data for name in links if name in spec.stages}
    used |= {step.settings.data for arm in arms for step in arm.chain}
    if not links <= spec.stages.keys():
        used |= spec.data.keys()  # an invalid stage may use any data set
    views: dict[str, DatasetView] = {}
    warnings: list[str] = []
    invalid = {key for section, key in _invalid_keys(problems) if section == "data"}  # other settings, other content
    for name in (name for name in spec.data if name in used - invalid):
        settings = DatasetViewSpec(
            data=spec.data[name], folds=spec.compare.folds, min_cases=spec.validation.min_cases,
            reserve=_reserve(spec, name), fits=_fits(name, arms),
        )  # fmt: skip
        try:
            view = DatasetView.open(settings, cache, progress_line(name, None if problems else meanwhile))
        except DataError as error:
            problems.append(Problem(path=f"data.{name}", message=str(error)))
            continue
        except OSError as error:
            problems.append(Problem(path=f"data.{name}", message=_access_message(error)))
            continue
        steps = (step for arm in arms for step in arm.chain if step.settings.data == name)
        kinds = frozenset[AnnotationKind]().union(*map(annotation_kinds_of, steps))
        findings = check(view.index, kinds if arms else None)
        others = {other: annotator.index for other, annotator in view.annotators.items()}
        findings += annotator_findings(view.index, view.trained_annotator, others)
        errors = [finding.message for finding in findings if finding.severity == "error"]
        problems += [Problem(path=f"data.{name}", message=message) for message in errors]
        warnings += [f"data.{name}: {finding.message}" for finding in findings if finding.severity == "warning"]
        if not errors:
            views[name] = view
    return views, warnings


def _size_findings(
    arms: list[Arm], views: Mapping[str, DatasetView], cache: Path, problems: list[Problem]
) -> Iterator[tuple[str, DataFinding]]:
    """Yield findings of classes lost by resizing masks; add files changed since indexing to `problems`."""
    for name, view in views.items():
        try:
            yield from ((name, finding) for finding in mask_checks.size_findings(arms, name, view, cache))
        except DataError as error:
            problems.append(Problem(path=f"data.{name}", message=str(error)))
        except OSError as error:
            problems.append(Problem(path=f"data.{name}", message=_access_message(error)))


def _access_message(error: OSError) -> str:
    problem = f"{error.filename} cannot be used ({error.strerror})" if error.filename else f"cannot be used ({error})"
    return f"{problem}; allowed: files and folders you may read, and a cache you may write; set root or --cache"


def _fits(name: str, arms: Iterable[Arm]) -> frozenset[ImageSettings]:
    """Return how the whole images of a data set are resized."""
    images = (step.image for arm in arms for step in arm.chain if step.settings.data == name)
    return frozenset(image for image in images if image.fit != "patch")


def _reserve(spec: StudySpec, name: str) -> float | None:
    """Return the fraction of a data set that is reserved for a search; None except for the target."""
    search = spec.search
    return (
        search.reserve if search is not None and not search.nested and name in spec_checks.target_names(spec) else None
    )
