"""Initial weights that a study file names, refused where they do not exist or do not fit."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from models.catalog import registry
from models.weights.file import non_finite, stored_tensors
from study.config.compare import WeightsFile
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, StageConfig
from study.planning.checks.spec_checks import builds, is_known


def weights_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield published weights that do not exist."""
    for path, backbone, initial in _initial_weights(spec, arms):
        if not isinstance(initial, WeightsFile) and is_known(backbone):
            problem = registry.weights_problem(backbone, initial)
            if problem:
                yield Problem(path=path, message=problem)


def file_problems(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield files of initial weights that cannot be read or do not fill the encoder of an arm that starts from them."""
    named = [(path, initial.file) for path, _, initial in _initial_weights(spec, arms) if not isinstance(initial, str)]
    for path, file in dict.fromkeys(named):
        steps = {id(arm.chain[0]): arm.chain[0] for arm in arms if arm.initial_weights == WeightsFile(file=file)}
        problem = _file_problem(file, [step for step in steps.values() if builds(step)])
        if problem:
            yield Problem(path=f"{path}.file", message=problem)


def _file_problem(file: Path, steps: Iterable[StageConfig]) -> str | None:
    try:
        stored = stored_tensors(file)
    except ValueError as error:
        return str(error)
    from models.weights.fit import fit_problem  # brings torch, as the next
    from study.planning.blueprint import blueprint

    for step in steps:
        problem = fit_problem(blueprint(step.settings, step.image, step.architecture, step.backbone, 1), stored)
        if problem:
            return (
                f"{file} {problem}; allowed: every tensor of this encoder, bare or as encoder.*; take the file of "
                "this backbone and image.channels, or exclude the combination"
            )
    spoiled = non_finite(file, stored)  # last: tensors that fit have the size of the encoder's
    if spoiled is not None:
        return f"{file} holds NaN or infinity in {spoiled}; allowed: finite numbers of float32; take another file"
    return None


def _initial_weights(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[tuple[str, str, str | WeightsFile]]:
    """Yield path in the study file, backbone and initial weights of what arms start from."""
    for backbone, initial in sorted({(arm.chain[0].backbone, arm.initial_weights) for arm in arms}, key=str):
        known = spec.compare.initial_weights
        path = f"compare.initial_weights[{known.index(initial)}]" if initial in known else "compare.include"
        yield path, backbone, initial
