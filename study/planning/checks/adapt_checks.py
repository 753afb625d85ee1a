"""Check that the part of the encoder that a stage trains exists and has initial weights worth keeping."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from models.settings import LoraSettings
from study.errors import Problem
from study.planning.arms import Arm, StageConfig
from study.planning.checks.spec_checks import builds


def adapt_problems(arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield stages that restrict the training of a frozen encoder, and adapters without the package for them."""
    with_adapters = dict[str, None]()
    for pathway, position, step in _restricted(arms):
        if isinstance(step.settings.adapt, LoraSettings):
            with_adapters[step.stage] = None
        if "encoder" in step.link.freeze and step.link.unfreeze_after is None:
            message = (
                f"freezes the encoder, of which {step.stage} trains a part (adapt: {_name(step)}); allowed: one of the "
                "two; remove freeze, or set adapt: full"
            )
            yield Problem(path=f"pathways.{pathway}[{position}].freeze", message=message)
        elif builds(step) and (problem := _network_problem(step)):
            yield Problem(path=f"stages.{step.stage}", message=problem)
    if with_adapters and not find_spec("peft"):
        for name in sorted(with_adapters):
            message = "is lora; allowed: with the package peft; run `pip install peft`, or choose full, norm or bias"
            yield Problem(path=f"stages.{name}.adapt", message=message)


def _network_problem(step: StageConfig) -> str | None:
    from models.adaptation import adapt_problem  # imports torch, as does the next line
    from study.planning.blueprint import stage_blueprint

    problem = adapt_problem(stage_blueprint(step), step.settings.adapt)
    return problem and f"{problem} (encoder {step.backbone})"


def adapt_warnings(arms: Iterable[Arm]) -> Iterator[str]:
    """Yield stages that train a part of an encoder with random weights."""
    stages = {
        step.stage: _name(step)
        for arm in arms
        for _, position, step in _restricted([arm])
        if position == 0 and arm.initial_weights == "random"
    }
    for name, adapt in stages.items():
        yield (
            f"stages.{name}: adapt: {adapt} keeps most of an encoder with random weights; allowed: pretrained encoders "
            "as a rule; set initial_weights, put a stage before it, or use adapt: full"
        )


def _restricted(arms: Iterable[Arm]) -> Iterator[tuple[str, int, StageConfig]]:
    """Yield pathway, position and stage of those that train a part of their encoder, each once."""
    seen = set()
    for arm in arms:
        for position, step in enumerate(arm.chain):
            key = (arm.factors["pathway"], position, id(step))
            if step.settings.adapt != "full" and key not in seen:
                seen.add(key)
                yield arm.factors["pathway"], position, step


def _name(step: StageConfig) -> str:
    adapt = step.settings.adapt
    return adapt if isinstance(adapt, str) else adapt.name
