"""Check that the initial weights of a study file exist and fit their networks."""

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
    """Yield files of initial weights that are unreadable or do not match the encoder of an arm that uses them."""
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
    from models.weights.fit import fit_problem  # imports torch, as does the next line
    from study.planning.blueprint import blueprint

    for step in steps:
        problem = fit_problem(blueprint(step.settings, step.image, step.architecture, step.backbone, 1), stored)
        if problem:
            return (
                f"{file} {problem}; allowed: every tensor of this encoder, bare or as encoder.*; take the file of "
                "this backbone and image.channels, or exclude the combination"
            )
    tensor_name = non_finite(file, stored)  # last, because only now are the tensors known to be of moderate size
    if tensor_name is not None:
        return f"{file} holds NaN or infinity in {tensor_name}; allowed: finite numbers of float32; take another file"
    return None


def _initial_weights(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[tuple[str, str, str | WeightsFile]]:
    """Yield path in the study file, backbone and initial weights of the arms."""
    for backbone, initial in sorted({(arm.chain[0].backbone, arm.initial_weights) for arm in arms}, key=str):
        listed = spec.compare.initial_weights
        path = f"compare.initial_weights[{listed.index(initial)}]" if initial in listed else "compare.include"
        yield path, backbone, initial
