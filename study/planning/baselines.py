"""Baselines: which arm each arm is tested against."""

from collections.abc import Iterator, Mapping, Sequence

from results.statistics.design import ArmKey, baseline_key
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, text_of


def family_name(rule: Mapping[str, object]) -> str:
    """Return the name of a family of comparisons in tables."""
    return ", ".join(f"{name}={text_of(value)}" for name, value in rule.items())


def baseline_of(arm: Arm, rule: Mapping[str, object]) -> ArmKey:
    """Return the key of the baseline of an arm: its own factors, overridden by those of the rule."""
    return baseline_key(arm.factors, {name: text_of(value) for name, value in rule.items()})


def family_problems(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield one problem for each rule by which some arms have no baseline among the arms."""
    keys = {arm.key for arm in arms}
    for position, rule in enumerate(spec.compare.baseline):
        without_baseline = sorted({" / ".join(arm.key) for arm in arms if baseline_of(arm, rule) not in keys})
        if without_baseline:
            shown = "; ".join(without_baseline[:3]) + ("; ..." if len(without_baseline) > 3 else "")
            message = (
                f"{len(without_baseline)} arms have no baseline {family_name(rule)} ({shown}); "
                "allowed: values that `compare` has for each arm; add the baseline's arm or exclude these"
            )
            yield Problem(path=f"compare.baseline[{position}]", message=message)
