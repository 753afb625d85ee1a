"""Best, median and worst test images of the best cell, predicted once more from its stored weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results.figures import Case
from study.planning.graph import Plan
from study.report.facts import Chain, Facts
from study.report.pixel_figures import scores_file


@dataclass(frozen=True, kw_only=True)
class Found:
    """A test image and how well a replicate segments it; `dice` is the mean over the classes it shows."""

    chain: Chain
    image: str
    dice: float


def extremes(facts: Facts, chains: Sequence[Chain]) -> list[tuple[str, Found]]:
    """Return the worst, the median and the best test image, over one seed's folds; fewer where there are fewer."""
    found = sorted(
        (one for chain in chains if chain.seed == chains[0].seed for one in _found(facts, chain)),
        key=lambda one: (one.dice, one.image),
    )
    places = {"worst": 0, "median": (len(found) - 1) // 2, "best": len(found) - 1}
    shown: dict[int, str] = {}
    for name, place in places.items():
        if found:
            shown.setdefault(place, name)
    return [(name, found[place]) for place, name in shown.items()]


def _found(facts: Facts, chain: Chain) -> Sequence[Found]:
    import pyarrow.parquet as pq

    key = scores_file(facts, chain)
    if key is None:
        return []
    values: dict[str, list[float]] = {}
    for row in pq.read_table(facts.store.scores(chain.stages[-1], key)).to_pylist():
        if row["split"] == "test" and row["tp"] + row["fn"]:
            values.setdefault(row["image"], []).append(2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]))
    return [Found(chain=chain, image=image, dice=float(np.mean(dice))) for image, dice in values.items()]


def cases(facts: Facts, found: Sequence[tuple[str, Found]], cache: Path) -> tuple[list[Case], tuple[str, ...]]:
    """Predict these images; return them with the names of the classes.

    Raises ValueError, in words for the report, where weights or data are not there any more.
    """
    if facts.plan is None:
        raise ValueError(f"the data cannot be read: {facts.why}")
    lacking = {one.chain.stages[-1] for _, one in found if not facts.store.has_weights(one.chain.stages[-1])}
    if lacking:
        raise ValueError("the weights of the best cell were not kept (keep.weights)")
    names = facts.plan.views[facts.plan.target].index.classes
    return [_case(facts.plan, facts, name, one, cache) for name, one in found], names


def _case(plan: Plan, facts: Facts, name: str, found: Found, cache: Path) -> Case:
    from safetensors.torch import load_file

    from datasets.settings import ImageSettings
    from datasets.targets import fit_image
    from study.training.evaluate import answer
    from study.training.job import RuntimeContext, stage_job
    from study.training.train_stage import evaluation, open_setup

    digest = found.chain.stages[-1]
    job = stage_job(plan, plan.nodes[digest])
    scoring = next(one for one in job.scorings if one.key == found.chain.scoring)
    place = RuntimeContext(storage=facts.store.root, cache=cache, cpus=1, checkpoint=plan.spec.checkpoint)
    setup = open_setup(job, place)
    setup.network.load_state_dict(load_file(facts.store.weights(digest)))
    setup.network.eval()
    row = list(setup.view.index.ids).index(found.image)
    answered = answer(setup.network, evaluation(setup, scoring, cache), [row], "test")
    predicted, known = answered.predicted(), answered.known()
    if known is not None:
        predicted = predicted & known  # nobody says what is right at pixels without a label, and no score counts them
    pixels = fit_image(
        setup.view.source.image(row), ImageSettings(size=scoring.size, channels=job.node.step.image.channels)
    )
    return Case(
        title=f"{name}: {found.image}\nDice {found.dice:.3f}, fold {found.chain.fold}",
        pixels=pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
        truth=answered.masks()[0].numpy(),
        predicted=predicted[0].numpy(),
    )
