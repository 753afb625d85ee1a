"""Check that the initial weights of a study file exist and fit their networks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from models.catalog import registry
from study.config.compare import Compare, WeightsFile
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm
from study.planning.checks.file_checks import FileUse
from study.planning.checks.spec_checks import builds, is_known

if TYPE_CHECKING:
    from models.architectures.parts import Blueprint


def weights_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield published weights that do not exist."""
    for backbone, initial in sorted({(arm.chain[0].backbone, arm.initial_weights) for arm in arms}, key=str):
        if not isinstance(initial, WeightsFile) and is_known(backbone):
            problem = registry.weights_problem(backbone, initial)
            if problem:
                yield Problem(path=initial_path(spec.compare, initial), message=problem)


def initial_files(spec: StudySpec, arms: Sequence[Arm]) -> list[FileUse]:
    """Return the files from which the first stages of arms start."""
    files = dict.fromkeys(arm.initial_weights for arm in arms if isinstance(arm.initial_weights, WeightsFile))
    return [
        FileUse(
            path=initial_path(spec.compare, weights), weights=weights,
            networks=_networks(arms, weights),
            remedy=", or exclude the combination",
        )
        for weights in files
    ]  # fmt: skip


def _networks(arms: Sequence[Arm], weights: WeightsFile) -> tuple["Blueprint", ...]:
    """Return the networks of the first stages that start from a file, each once."""
    from study.planning.blueprint import stage_blueprint  # imports torch

    steps = {id(arm.chain[0]): arm.chain[0] for arm in arms if arm.initial_weights == weights}
    return tuple(dict.fromkeys(stage_blueprint(step) for step in steps.values() if builds(step)))


def initial_path(compare: Compare, initial: str | WeightsFile) -> str:
    """Return where the study file has initial weights: in the list, else in a rule of `include`."""
    if initial in compare.initial_weights:
        return f"compare.initial_weights[{compare.initial_weights.index(initial)}]"
    rules = (number for number, rule in enumerate(compare.include) if rule.get("initial_weights") == initial)
    return f"compare.include[{next(rules)}].initial_weights"
