"""Check that the initial weights of a study file exist and fit their networks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from models.catalog import registry
from study.config.compare import WeightsFile
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, StageConfig
from study.planning.checks.spec_checks import builds, is_known

if TYPE_CHECKING:
    from models.weights.fit import FileFit


def weights_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield published weights that do not exist."""
    for path, backbone, initial in _initial_weights(spec, arms):
        if not isinstance(initial, WeightsFile) and is_known(backbone):
            problem = registry.weights_problem(backbone, initial)
            if problem:
                yield Problem(path=path, message=problem)


def file_problems(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield files of initial weights that are unreadable or do not match the encoder of an arm that uses them."""
    for path, weights in _files(spec, arms).items():
        problem = _file_problem(weights, _first_steps(arms, weights))
        if problem:
            yield Problem(path=f"{path}.file", message=problem)


def file_rules(spec: StudySpec, arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Return by which rules files of initial weights fill the encoders of the arms, by the name of the file."""
    return {
        weights.file.name: list(dict.fromkeys(_fit(weights, step).text for step in _first_steps(arms, weights)))
        for weights in _files(spec, arms).values()
    }


def _files(spec: StudySpec, arms: Sequence[Arm]) -> dict[str, WeightsFile]:
    """Return the files of initial weights by their path in the study file."""
    return {path: initial for path, _, initial in _initial_weights(spec, arms) if not isinstance(initial, str)}


def _first_steps(arms: Sequence[Arm], weights: WeightsFile) -> list[StageConfig]:
    steps = {id(arm.chain[0]): arm.chain[0] for arm in arms if arm.initial_weights == weights}
    return [step for step in steps.values() if builds(step)]


def _fit(weights: WeightsFile, step: StageConfig) -> "FileFit":
    from models.weights.fit import file_fit  # imports torch, as does the next line
    from study.planning.blueprint import blueprint

    network = blueprint(step.settings, step.image, step.architecture, step.backbone, 1)
    return file_fit(weights.file, network, weights.allow)


def _file_problem(weights: WeightsFile, steps: Iterable[StageConfig]) -> str | None:
    from models.weights.checkpoint.read import read_checkpoint  # imports torch, as does the next line
    from models.weights.initial import FILE_REMEDY

    file = weights.file
    try:
        read_checkpoint(file)
        fits = [(step, _fit(weights, step)) for step in steps]
    except ValueError as error:
        return str(error)
    for step, fit in fits:
        if fit.problem:
            options = f"--backbone {step.backbone} --channels {step.image.channels}"
            return (
                f"{file} {fit.problem}; {FILE_REMEDY}, or exclude the combination; `study weights FILE {options}` "
                "lists all tensors"
            )
    tensor_name = next((fit.non_finite for _, fit in fits if fit.non_finite is not None), None)
    if tensor_name is not None:
        return f"{file} holds NaN or infinity in {tensor_name}; allowed: finite numbers of float32; take another file"
    return None


def _initial_weights(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[tuple[str, str, str | WeightsFile]]:
    """Yield path in the study file, backbone and initial weights of the arms."""
    for backbone, initial in sorted({(arm.chain[0].backbone, arm.initial_weights) for arm in arms}, key=str):
        listed = spec.compare.initial_weights
        path = f"compare.initial_weights[{listed.index(initial)}]" if initial in listed else "compare.include"
        yield path, backbone, initial
