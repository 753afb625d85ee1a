"""One stage as a worker gets it: everything it needs, and nothing of the rest of the study."""

from dataclasses import dataclass
from pathlib import Path

from datasets.settings import ImageSettings
from study.cohort import CohortSpec, Draw
from study.plan import Node, Plan, Scoring
from study.spec import Checkpoint, Link, Stage, WeightsFile


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage to train and, for target stages, to score.

    `fingerprint` says what the plan read; a worker that finds other data refuses to train on it.
    """

    digest: str
    stage: str
    settings: Stage
    image: ImageSettings
    architecture: str | None
    backbone: str
    names: tuple[str, ...]
    exclusive: bool
    structure: str | None
    link: Link
    parent: str | None
    initial_weights: str | WeightsFile
    seed: int
    cohort: CohortSpec
    draw: Draw
    fingerprint: str
    scorings: tuple[Scoring, ...]
    needs_weights: bool
    """A published stage whose weights were not kept is trained again."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where and with what a worker runs; never part of a digest."""

    storage: Path
    cache: Path
    cpus: int
    checkpoint: Checkpoint


def make_job(plan: Plan, node: Node, *, needs_weights: bool = False) -> Job:
    """Return the job of one node."""
    recipe, cohort = node.recipe, plan.cohorts[node.draw.data]
    step = recipe.step
    return Job(
        digest=node.digest,
        stage=step.stage,
        settings=step.settings,
        image=step.image,
        architecture=step.architecture,
        backbone=step.backbone,
        names=recipe.names,
        exclusive=recipe.exclusive,
        structure=recipe.structure,
        link=step.link,
        parent=node.parent,
        initial_weights=_absolute(node.initial_weights),
        seed=node.seed,
        cohort=cohort.spec,
        draw=node.draw,
        fingerprint=cohort.reading(node.draw).fingerprint,
        scorings=tuple(plan.scorings.get(node.digest, {}).values()),
        needs_weights=needs_weights,
    )


def _absolute(weights: str | WeightsFile) -> str | WeightsFile:
    """A worker runs in a folder of its own; in tables the path stays as it was written."""
    return WeightsFile(file=str(Path(weights.file).absolute())) if isinstance(weights, WeightsFile) else weights
