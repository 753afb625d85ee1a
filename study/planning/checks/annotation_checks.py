"""Checks of the cost of annotation: every kind that a stage reads needs its minutes."""

from collections.abc import Iterable, Iterator

from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, annotation_read, text_of


def annotation_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield kinds of annotation without minutes, in data sets that have `annotation_minutes`, and useless budgets."""
    for data, stages in annotation_read(arms).items():
        minutes = spec.data[data].annotation_minutes if data in spec.data else None
        if minutes is None:
            continue
        stated = text_of(minutes.model_dump(by_alias=True, exclude_none=True))
        for name in (name for name in stages if minutes.of(name) is None):
            message = (
                f"is {stated}, but stage {stages[name]} reads {name} annotation of {data}; allowed: minutes of every "
                f"kind that is read; add {name}"
            )
            yield Problem(path=f"data.{data}.annotation_minutes", message=message)
    if spec.compare.hours and not spec.has_annotation_cost:
        message = (
            f"is {text_of(spec.compare.hours)}, but no data set has annotation_minutes; allowed: with the minutes of "
            "at least one data set; add them, or remove hours"
        )
        yield Problem(path="compare.hours", message=message)
