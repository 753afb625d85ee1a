"""From a study file to its plan, or to everything that is wrong with it."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from datasets.checks.findings import Finding, check
from datasets.errors import DataError
from datasets.targets import offer_of
from study.config.compare import WeightsFile
from study.config.document import Document
from study.config.schema import StudySpec
from study.config.validation import parse
from study.errors import ConfigError, Problem
from study.planning.arms import Arm, Resolver, assignments
from study.planning.baselines import family_problems
from study.planning.builder import Planner
from study.planning.checks import data_checks, mask_checks, spec_checks
from study.planning.checks.leak_checks import find_leaks, leak_message, leak_problems
from study.planning.checks.published_checks import published_problems, published_warnings
from study.planning.checks.search_checks import search_problems
from study.planning.checks.weights_checks import file_problems, weights_problems
from study.planning.dataset_view import DatasetView, DatasetViewSpec
from study.planning.graph import Plan
from study.planning.read_progress import telling
from study.store.atomic import hash_of

_NO_FACTORS = frozenset({"labelled_fraction", "labelled_images", "folds", "seeds", "baseline"})


def load_spec(document: Document, *, file: str) -> StudySpec:
    """Check a study file without what it needs where it runs: data, weights, packages. Raises `ConfigError`."""
    spec, arms, problems = _read(document, file)
    problems += [] if problems else family_problems(spec, arms)
    if problems:
        raise ConfigError(problems, file)
    return spec


def load_planner(document: Document, *, file: str, cache: Path, meanwhile: Callable[[], None] | None = None) -> Planner:
    """Check a study file completely and return its planner. Raises `ConfigError` with every problem found.

    `meanwhile` is called where reading data takes a while and nothing is refused so far, maybe often.
    """
    spec, arms, problems = _read(document, file)
    problems += [*spec_checks.tracking_problems(spec), *file_problems(spec, arms)]
    views, warnings = _open(spec, arms, cache, problems, meanwhile)
    targets = spec_checks.target_names(spec)
    target = next(iter(targets), "") if len(targets) == 1 else ""
    leaks = find_leaks(spec, views, target) if target in views else []
    problems += [*leak_problems(spec, leaks), *data_checks.data_problems(arms, views)]
    if target in views:
        problems += [
            *data_checks.class_problems(spec, views[target]),
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
    warnings += [f"data.{leak.data}: {leak_message(leak)}" for leak in leaks if spec.leaks == "report"]
    warnings += published_warnings(spec, arms)
    weights = {arm.initial_weights.file for arm in arms if isinstance(arm.initial_weights, WeightsFile)}
    files = {file: hash_of(file) for file in weights}
    plan = Plan(file=file, spec=spec, target=target, views=views, arms=arms, files=files, leaks=leaks,
                warnings=warnings)  # fmt: skip
    return Planner(plan)


def _read(document: Document, file: str) -> tuple[StudySpec, list[Arm], list[Problem]]:
    """Return the spec, its arms, and what is wrong with what the file itself says."""
    spec, problems = parse(document)
    if spec is None:
        raise ConfigError(problems, file)
    named = {key: _names(document.get(key)) for key in ("data", "stages", "pathways", "compare")}
    broken = _broken(problems)
    problems += spec_checks.reference_problems(spec, named)
    problems += [*spec_checks.name_problems(spec), *spec_checks.pathway_problems(spec), *published_problems(spec)]
    problems += spec_checks.worker_problems(spec)
    return spec, _arms(spec, broken, problems), problems


def _names(section: object) -> Collection[str]:
    return [str(name) for name in section] if isinstance(section, Mapping) else []


def _broken(problems: list[Problem]) -> set[tuple[str, str]]:
    """Return the heads of paths that are not as the file says, such as (stages, segment)."""
    paths = [re.split(r"[.\[]", f"{problem.path}..") for problem in problems]
    return {(path[0], path[1]) for path in paths}


def _arms(spec: StudySpec, broken: set[tuple[str, str]], problems: list[Problem]) -> list[Arm]:
    """Resolve every arm that is as the file says; what is wrong with them is added to `problems`."""
    if any(head == "image" or (head == "compare" and key not in _NO_FACTORS) for head, key in broken):
        return []
    sound = {name for name in spec.stages if ("stages", name) not in broken}
    whole = {name for name, links in spec.pathways.items() if sound.issuperset(link.stage for link in links)}
    rows = assignments(spec)
    resolver = Resolver(spec)
    arms = [arm for row in rows if row["pathway"] in whole and (arm := resolver.arm(row)) is not None]
    problems += resolver.problems
    problems += spec_checks.rule_problems(spec)
    problems += spec_checks.factor_problems(spec, arms)
    problems += spec_checks.arm_problems(arms)
    problems += weights_problems(spec, arms)
    if not rows:
        message = "every combination is excluded; allowed: at least one arm; remove a rule of exclude"
        problems.append(Problem(path="compare.exclude", message=message))
    return arms


def _open(
    spec: StudySpec, arms: list[Arm], cache: Path, problems: list[Problem], meanwhile: Callable[[], None] | None
) -> tuple[dict[str, DatasetView], list[str]]:
    """Read the index of every data set that a pathway uses; return the sound ones and warnings."""
    links = {link.stage for links in spec.pathways.values() for link in links}
    used = {spec.stages[name].data for name in links if name in spec.stages}
    used |= {step.settings.data for arm in arms for step in arm.chain}
    if not links <= spec.stages.keys():
        used |= spec.data.keys()  # a stage that could not be read may use any
    views: dict[str, DatasetView] = {}
    warnings: list[str] = []
    for name in (name for name in spec.data if name in used):
        settings = DatasetViewSpec(
            data=spec.data[name], folds=spec.compare.folds, min_cases=spec.validation.min_cases,
            reserve=_reserve(spec, name),
            fits=frozenset(step.image for arm in arms for step in arm.chain if step.settings.data == name),
        )  # fmt: skip
        try:
            view = DatasetView.open(settings, cache, telling(name, None if problems else meanwhile))
        except DataError as error:
            problems.append(Problem(path=f"data.{name}", message=str(error)))
            continue
        except OSError as error:
            problems.append(Problem(path=f"data.{name}", message=_unusable(error)))
            continue
        read = {offer_of(step.settings.target) for arm in arms for step in arm.chain if step.settings.data == name}
        found = check(view.index, [offer for offer in read if offer is not None] if arms else None)
        errors = [finding.message for finding in found if finding.severity == "error"]
        problems += [Problem(path=f"data.{name}", message=message) for message in errors]
        warnings += [f"data.{name}: {finding.message}" for finding in found if finding.severity == "warning"]
        if not errors:
            views[name] = view
    return views, warnings


def _size_findings(
    arms: list[Arm], views: Mapping[str, DatasetView], cache: Path, problems: list[Problem]
) -> Iterator[tuple[str, Finding]]:
    """Yield what fitted masks no longer show; files that changed since they were indexed are added to `problems`."""
    for name, view in views.items():
        try:
            yield from ((name, finding) for finding in mask_checks.size_findings(arms, name, view, cache))
        except DataError as error:
            problems.append(Problem(path=f"data.{name}", message=str(error)))
        except OSError as error:
            problems.append(Problem(path=f"data.{name}", message=_unusable(error)))


def _unusable(error: OSError) -> str:
    what = f"{error.filename} cannot be used ({error.strerror})" if error.filename else f"cannot be used ({error})"
    return f"{what}; allowed: files and folders you may read, and a cache you may write; set root or --cache"


def _reserve(spec: StudySpec, name: str) -> float | None:
    """Return the share of a data set that a search uses; only the target has one."""
    search = spec.search
    return (
        search.reserve if search is not None and not search.nested and name in spec_checks.target_names(spec) else None
    )
