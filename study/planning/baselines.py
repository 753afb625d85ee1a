"""Baselines: which arm each arm is tested against."""

from collections.abc import Iterator, Mapping, Sequence

from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, text_of


def family_name(rule: Mapping[str, object]) -> str:
    """Return how a family of comparisons is named in tables."""
    return ", ".join(f"{name}={text_of(value)}" for name, value in rule.items())


def baseline_of(arm: Arm, rule: Mapping[str, object]) -> tuple[str, ...]:
    """Return the key of an arm's baseline: factors that the rule names are set, the others stay."""
    return tuple(text_of(rule[name]) if name in rule else value for name, value in arm.factors.items())


def family_problems(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield arms whose baseline is not among the arms, a line a rule."""
    keys = {arm.key for arm in arms}
    for position, rule in enumerate(spec.compare.baseline):
        lost = sorted({" / ".join(arm.key) for arm in arms if baseline_of(arm, rule) not in keys})
        if lost:
            shown = "; ".join(lost[:3]) + ("; ..." if len(lost) > 3 else "")
            message = (
                f"{len(lost)} arms have no baseline {family_name(rule)} ({shown}); "
                "allowed: values that `compare` has for each arm; add the baseline's arm or exclude these"
            )
            yield Problem(path=f"compare.baseline[{position}]", message=message)
