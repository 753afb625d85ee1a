"""Checks of the `search` section before anything runs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets.errors import DataError
from models.settings import pool_of
from models.task_settings.weak_labels import WeakLabelSettings, weak_kind_of
from study.config.compare import STAGE_FACTORS
from study.config.schema import StudySpec
from study.config.search import Parameter, Search
from study.errors import Problem, unknown
from study.planning.arms import FIXED_FACTORS, Arm, Resolver, StageConfig, text_of
from study.planning.checks import data_checks, spec_checks
from study.planning.checks.teacher_checks import teacher_problems
from study.planning.checks.weak_label_checks import unused_weak_message
from study.planning.dataset_view import DatasetView, RowSelection
from study.planning.graph import pool_of_stage

NOT_SEARCHED = ("data", "task", "target", "rest", "ensemble")
TEACHER = "teacher"
"""Its weights have to be available before a run."""
POOL_KEYS = (
    "unlabelled", "lambda2", "lambda_semi", "t_semi", "semi_start", "unlabelled_start", "freeze_discriminator",
    "unlabelled_only",
)  # fmt: skip
"""Settings of `adversarial` without an effect where there are no unlabelled images."""
EVALUATION_KEYS = ("threshold", "class_threshold", "tta", "postprocess")
"""Settings that change neither training nor the validation score of trials."""


def parameters_of(spec: StudySpec, arm: Arm) -> dict[str, Parameter]:
    """Return the parameters of the search space that apply to the chain of an arm."""
    space = spec.search.space if spec.search is not None else {}
    return {path: parameter for path, parameter in space.items() if _positions(path, arm)}


def first_changed(arm: Arm, paths: Iterable[str]) -> int:
    """Return the first chain position that the settings change; the chain length if they change none."""
    return min((min(_positions(path, arm), default=len(arm.chain)) for path in paths), default=len(arm.chain))


def _positions(path: str, arm: Arm) -> list[int]:
    head = path.partition(".")[0]
    last = len(arm.chain) - 1
    return [
        position
        for position, step in enumerate(arm.chain)
        if head in (step.stage, "image") or (head == "target" and position == last)
    ]


def search_problems(
    spec: StudySpec, arms: Sequence[Arm], views: Mapping[str, DatasetView], target: str
) -> list[Problem]:
    """Return all problems of the `search` section of an otherwise valid study."""
    search = spec.search
    if search is None:
        return []
    problems = [*_path_problems(spec, search), *_point_problems(spec, search)]
    if problems:
        return problems
    problems += [*_value_problems(spec, search, arms, views), *_unused_weak_problems(search, arms)]
    if target in views:
        problems += _image_problems(spec, search, arms, views[target])
        if not problems:
            problems += _pool_problems(spec, search, arms, views[target], target)
            problems += _unneeded_stage_problems(spec, search, arms, views[target], target)
    if search.scope == "arm" and not any(parameters_of(spec, arm) for arm in arms):
        message = "changes no stage of any arm; allowed: stages that pathways have; name one of these"
        problems.append(Problem(path="search.space", message=message))
    return problems


def _path_problems(spec: StudySpec, search: Search) -> Iterator[Problem]:
    heads = [*spec.stages, "target", "image"]
    for path in search.space:
        head, _, key = path.partition(".")
        where = f"search.space.{path}"
        if head not in heads:
            yield Problem(path=where, message=unknown("stage", head, heads))
        elif not key:
            yield Problem(path=where, message="is a stage; allowed: a path into it, such as target.optimizer.lr")
        elif path.rpartition(".")[2] in NOT_SEARCHED or key.partition(".")[0] == TEACHER:
            message = "decides what is compared; allowed: settings of a stage; make it a factor of `compare`"
            yield Problem(path=where, message=message)
        elif path.rpartition(".")[2] in EVALUATION_KEYS:
            message = "changes neither training nor its validation; allowed: settings of training; make it a factor"
            yield Problem(path=where, message=f"{message} of `compare`")
        elif path in spec.compare.factors or key in STAGE_FACTORS.intersection(spec.compare.factors):
            message = "is varied by `compare` too; allowed: in one of them; remove one"
            yield Problem(path=where, message=message)


def _point_problems(spec: StudySpec, search: Search) -> Iterator[Problem]:
    allowed = [*search.space]
    if search.scope == "study":
        allowed += [*FIXED_FACTORS, *spec.compare.factors]
    rows = [(f"search.points[{number}]", point) for number, point in enumerate(search.points)]
    for where, values in [*rows, ("search.defaults", search.defaults)]:
        for path, value in values.items():
            if path not in allowed:
                yield Problem(path=f"{where}.{path}", message=unknown("setting", path, allowed))
            elif path in search.space and not search.space[path].holds(value):
                message = f"is {text_of(value)}, outside of search.space.{path}; allowed: a value of it; change one"
                yield Problem(path=f"{where}.{path}", message=message)


def _value_problems(
    spec: StudySpec, search: Search, arms: Sequence[Arm], views: Mapping[str, DatasetView]
) -> Iterator[Problem]:
    """Yield values that a stage, a network or its data do not allow: the bounds of each range, and each choice."""
    for path, parameter in search.space.items():
        for value in parameter.ends:
            resolver = Resolver(spec)
            candidates = [
                candidate
                for arm in arms
                if path in parameters_of(spec, arm) and (candidate := resolver.arm(arm.row, {path: value})) is not None
            ]
            messages = [problem.message for problem in resolver.problems if problem.path == f"compare.{path}"]
            if not messages:
                problems = [
                    *spec_checks.arm_problems(candidates), *data_checks.data_problems(candidates, views),
                    *teacher_problems(candidates),
                ]  # fmt: skip
                messages = [
                    f"value {text_of(value)} does not fit: {problem.path} {problem.message}" for problem in problems
                ]
            if messages:  # one value is enough: the next would often be refused for the same reason
                yield Problem(path=f"search.space.{path}", message=_without_exclude(messages[0]))
                break


def _image_problems(spec: StudySpec, search: Search, arms: Sequence[Arm], view: DatasetView) -> Iterator[Problem]:
    """Yield images that cannot be split into those for training and those for evaluating candidates."""
    if search.nested:
        seeds = {view.split_seed(seed) for seed in spec.compare.seeds}
        if len(seeds) > 1:
            message = (
                "with several seeds, each of which deals other folds, would choose by images that another seed tests; "
                "allowed: one seed, or folds held by split.seed; set either"
            )
            yield Problem(path="search.nested", message=message)
        return
    data = arms[0].chain[-1].settings.data if arms else ""
    try:
        rows = view.stage_rows(RowSelection(data=data, annotation_kind="masks", seed=0, reserve=True))
    except DataError as error:
        yield Problem(path="search.reserve", message=str(error))
        return
    if not rows.validation:
        message = (
            f"is {search.reserve}: of its {len(rows.train)} images with masks too few validate, every fifth "
            f"patient's; allowed: a share in which {spec.validation.min_cases} (validation.min_cases) do; raise it"
        )
        yield Problem(path="search.reserve", message=message)
        return
    if any(view.index.shown) and not any(view.index.shows(row) for row in rows.validation):
        message = (
            f"is {search.reserve}: none of the {len(rows.validation)} images that judge candidates shows a class, "
            "so no candidate has a score; allowed: a reserve that shows classes; raise it, or add masks that show them"
        )
        yield Problem(path="search.reserve", message=message)


def search_warnings(spec: StudySpec, arms: Sequence[Arm], view: DatasetView, target: str) -> list[str]:
    """Return a warning of searched stages for unlabelled images whose trials have none."""
    search = spec.search
    if search is None:
        return []
    steps = [step for arm in arms if search.scope == "study" or parameters_of(spec, arm) for step in arm.chain]
    without = [
        step
        for step in steps
        if pool_of(step.settings) is not None and not _trials_have_pool(spec, search, step, view, target)
    ]
    if not without:
        return []
    reason, remedy = _without_pool(search, _images_of_pool(without))
    stages = dict.fromkeys(step.stage for step in without)
    found = f"the settings of {', '.join(stages)} are those for labelled images alone"
    return [f"search: {reason}, so {found}; to change this, {remedy}"]


def _pool_problems(
    spec: StudySpec, search: Search, arms: Sequence[Arm], view: DatasetView, target: str
) -> Iterator[Problem]:
    """Yield settings of unlabelled images if no trial that they apply to has such images."""
    for path in filter(_is_about_pool, search.space):
        steps = [arm.chain[position] for arm in arms for position in _positions(path, arm)]
        users = [step for step in steps if pool_of(step.settings) is not None]
        if users and not any(_trials_have_pool(spec, search, step, view, target) for step in users):
            images = _images_of_pool(users)
            reason, remedy = _without_pool(search, images)
            message = f"decides how {images} are used, but {reason}; allowed: settings of labelled images; {remedy}"
            yield Problem(path=f"search.space.{path}", message=message)


def _unneeded_stage_problems(
    spec: StudySpec, search: Search, arms: Sequence[Arm], view: DatasetView, target: str
) -> Iterator[Problem]:
    """Yield settings of stages that no trial of an arm needs: their student starts anew, and has no images to label.

    Also if other arms need them: these would be compared at their best values, and the arm at any value.
    """
    starts = [
        max((position for position, step in enumerate(arm.chain) if position and not step.link.parts
             and not _trials_have_pool(spec, search, step, view, target)), default=0)
        for arm in arms
    ]  # fmt: skip
    for path in search.space:
        last = {number: max(found) for number, arm in enumerate(arms) if (found := _positions(path, arm))}
        unneeded = [number for number, position in last.items() if position < starts[number]]
        if not unneeded:
            continue
        students = {arms[number].chain[starts[number]].stage: None for number in unneeded}
        reason, remedy = _without_pool(search, "unlabelled images")
        message = (
            f"has no effect on trials: nothing is carried to {', '.join(students)}, and {reason} to label; allowed: "
            f"settings of {', '.join(students)}; {remedy}"
        )
        yield Problem(path=f"search.space.{path}", message=message)


def _unused_weak_problems(search: Search, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield settings of weak labels that no stage uses which they apply to."""
    for path, parameter in search.space.items():
        _, block, key = (*path.split(".", maxsplit=2), "")[:3]
        steps = [arm.chain[position] for arm in arms for position in _positions(path, arm)]
        steps = [step for step in steps if isinstance(step.settings, WeakLabelSettings)]  # others have no such setting
        if block != "weak" or not steps:
            continue
        blocks = [value for value in parameter.ends if isinstance(value, Mapping)]
        keys = [key] if key else dict.fromkeys(name for values in blocks for name in values)
        messages = [(name, message) for name in keys if (message := unused_weak_message(name, steps)) is not None]
        if messages:
            name, message = messages[0]
            yield Problem(path=f"search.space.{path}", message=message if key else f"{name} {message}")


def _is_about_pool(path: str) -> bool:
    _, block, key = (*path.split(".", maxsplit=2), "")[:3]
    return block in ("consistency", "pseudo_labels", "weak") or (block == "adversarial" and key in POOL_KEYS)


def _trials_have_pool(spec: StudySpec, search: Search, step: StageConfig, view: DatasetView, target: str) -> bool:
    """Return whether trials of a stage have unlabelled images; those of other data are the same as without a search."""
    if step.settings.data != target:
        return True
    compare = spec.compare
    common = RowSelection(
        data=target,
        annotation_kind="masks",
        seed=0,
        unlabelled=pool_of(step.settings),
        weak=weak_kind_of(step.settings),
    )
    selections = [replace(common, reserve=True)]
    if search.nested:
        seed, labelled = compare.seeds[0], max(compare.labelled)
        selections = [replace(common, fold=fold, seed=seed, labelled=labelled) for fold in range(compare.folds)]
    return any(pool_of_stage(view.stage_rows(selection), step) for selection in selections)


def _images_of_pool(steps: Iterable[StageConfig]) -> str:
    """Return what the images beside those with masks are called."""
    is_weak = any(weak_kind_of(step.settings) is not None for step in steps)
    return "images with weak labels" if is_weak else "unlabelled images"


def _without_pool(search: Search, images: str) -> tuple[str, str]:
    """Return why trials have no images beside those with masks, and the remedy."""
    if search.nested:
        return f"trials, at the largest amount of labels, have no {images}", "lower compare.labelled_fraction"
    scope = "scope: arm and " if search.scope == "study" else ""
    return f"trials on the reserve have no {images}", f"set {scope}nested: true in place of reserve"


def _without_exclude(message: str) -> str:
    """Return a message without the remedy `exclude`, whose rules hold for factors alone."""
    exclude = r", or exclude the combination(?: with compare\.exclude)?"
    return re.sub(exclude, "", re.sub(rf", ([^,;]+){exclude}", r", or \1", message))


def settings_text(values: Mapping[str, Any]) -> str:
    """Return settings as readable text."""
    shown = {path: f"{value:.4g}" if isinstance(value, float) else text_of(value) for path, value in values.items()}
    return ", ".join(f"{path} {value}" for path, value in shown.items())
