"""Validity of intervals, p-values and summaries: simulated studies of the designs that the product supports.

See `tests.simulation`. A figure is a share of studies; its goal allows two standard errors. The goals of coverage and
power allow none. Lines "before" are earlier rules of the product, on the same studies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from results.statistics.power import detectable_over_replicates
from tests.bench.figure import Figure
from tests.simulation import catalog, earlier_rules, measures
from tests.simulation.designs import document, fixed_split
from tests.simulation.effects import advantages, true_difference, with_advantage, with_pretraining
from tests.simulation.measures import Share
from tests.simulation.studies import HEADLINE, METRICS, Simulated, SimulationResult, simulate
from tests.simulation.worlds import BALANCED, FLAT, INFLUENTIAL, STEADY, STEEP, TRAINING, Learner

STUDIES, QUICK, CATALOG_STUDIES = 1000, 20, 200
FEW_AND_ALL = (0.1, 1.0)


def coverage(*, quick: bool) -> Iterator[Figure]:
    """Measure all designs, 1,000 studies each (the catalog's 200), in about half an hour on one core."""
    studies = QUICK if quick else STUDIES
    for section in (
        folds_and_seeds, fixed_splits, shared_pretraining, other_pretraining, fixed_test, failed_replicates, daggers,
        labels_saved, hours_saved, budgets, equivalence, power,
    ):  # fmt: skip
        yield from section(studies)
    yield from catalog_studies(QUICK // 4 if quick else CATALOG_STUDIES)


def folds_and_seeds(studies: int) -> Iterator[Figure]:
    """Measure cross-validation with redrawn folds, for learners that depend more and more on the training patients."""
    usual = ((5, 1), (5, 3), (5, 10), (9, 1), (9, 10))
    for learner, words, designs in (
        (BALANCED, "", usual), (TRAINING, ", training sets matter", usual),
        (INFLUENTIAL, ", training sets matter much", ((5, 1), (5, 3), (5, 10))),
    ):  # fmt: skip
        for folds, seeds in designs:
            name = f"{folds} folds x {seeds} seeds{words}"
            outcome = simulate(_study(name, folds, seeds, labelled=FEW_AND_ALL, learner=learner), studies)
            yield from _figures(name, [*measures.errors(outcome), *measures.coverage(outcome)])
            if not words:
                for level, labelled in enumerate(FEW_AND_ALL):
                    missed = earlier_rules.fold_interval_misses(outcome.values, level)
                    yield _before(name, f"interval covers at {labelled:g}, t over fold means", 1 - missed)


def fixed_splits(studies: int) -> Iterator[Figure]:
    """Measure a split with its own seed: all seeds share folds and labelled patients."""
    for folds, seeds in ((5, 3), (9, 10)):
        name = f"{folds} folds x {seeds} seeds, one split for all seeds"
        outcome = simulate(_study(name, folds, seeds, labelled=FEW_AND_ALL, split={"seed": 0}), studies)
        yield from _figures(name, [*measures.errors(outcome), *measures.coverage(outcome)])


def shared_pretraining(studies: int) -> Iterator[Figure]:
    """Measure one pretraining run per seed that all folds share."""
    for folds in (3, 5, 9):
        for seeds in (2, 3, 5, 10):
            for multiple in (0, 1, 2, 7):
                name = f"{folds} folds x {seeds} seeds, shared runs of {multiple} SDs"
                plain = _study(name, folds, seeds, pretraining="shared", images=72, learner=STEADY)
                outcome = simulate(with_pretraining(plain, multiple), studies)
                yield from _figures(name, [*measures.by_level(outcome), *measures.coverage(outcome)])


def other_pretraining(studies: int) -> Iterator[Figure]:
    """Measure one run for all seeds, one run with one seed, and a run for each fold and seed."""
    for folds, multiple in ((5, 1), (5, 2), (3, 7)):
        name = f"{folds} folds x 1 seed, one shared run of {multiple} SDs"
        plain = _study(name, folds, 1, pretraining="shared", images=72, learner=STEADY)
        outcome = simulate(with_pretraining(plain, multiple), studies)
        yield from _figures(name, [measures.claims_from_one_run(outcome)])
        yield _before(name, "p below 0.05, Nadeau-Bengio over folds", _called(outcome, 1 / (folds - 1)))
    name = "5 folds x 3 seeds, pretraining with its own seed"
    plain = _study(name, 5, 3, pretraining="own seed", images=72, learner=STEADY)
    yield from _figures(name, [measures.claims_from_one_run(simulate(with_pretraining(plain, 2), studies))])
    for multiple in (1, 2):
        name = f"5 folds x 3 seeds, runs of {multiple} SDs on each fold's own images"
        plain = _study(name, 5, 3, pretraining="per fold", images=72, learner=STEADY)
        outcome = simulate(with_pretraining(plain, multiple), studies)
        yield from _figures(name, [*measures.errors(outcome), *measures.coverage(outcome)])


def fixed_test(studies: int) -> Iterator[Figure]:
    """Measure fixed test sets, one image per patient: fixed networks, and equal procedures."""
    for folds, seeds, images, test in ((9, 1, 100, 10), (5, 1, 115, 23), (1, 3, 60, 12), (5, 3, 60, 10)):
        name = f"{test} test patients, {folds} folds x {seeds} seeds"
        split = fixed_split(test, by_folds=folds > 1)
        plain = _study(name, folds, seeds, images=images, images_per_patient=1, split=split)
        outcome = simulate(replace(plain, swapped=True), studies)
        yield from _figures(name, [share for metric in METRICS for share in measures.errors(outcome, metric)])
        yield _before(name, "p below 0.05, paired t over replicates", _called(outcome, 0.0))
        outcome = simulate(plain, studies, truth=True, seed=1)
        yield from _figures(name, [share for metric in METRICS for share in measures.coverage(outcome, metric)])
        yield from _figures(name, [measures.stronger_claims(outcome, metric) for metric in METRICS])
        alike = [replace(share, goal=None) for metric in METRICS for share in measures.by_level(outcome, metric)]
        yield from _figures(f"{name}, equal procedures", alike)
        yield _before(f"{name}, equal procedures", "p below 0.05, paired t over replicates", _called(outcome, 0.0))
    for (folds, seeds), share in product(((1, 3), (1, 10), (5, 3)), (0.1, 0.3, 0.6)):
        name = f"100 test patients, {folds} folds x {seeds} seeds, fraction {share:g}, training sets matter much"
        plain = _study(
            name, folds, seeds, images=230, images_per_patient=1, split=fixed_split(100, by_folds=folds > 1),
            learner=INFLUENTIAL, labelled=(share,),
        )  # fmt: skip
        outcome = simulate(plain, studies // 2)
        yield from _figures(name, [measures.stronger_claims(outcome, metric) for metric in METRICS])


def failed_replicates(studies: int) -> Iterator[Figure]:
    """Measure studies with a permanently failed replicate, and incomplete studies."""
    name = "5 folds x 3 seeds, a replicate failed"
    outcome = simulate(replace(_study(name, 5, 3, arms=4), failing=1), studies)
    yield from _figures(
        name, [measures.failed_arm_is_used(outcome), *measures.errors(outcome), measures.daggers(outcome)]
    )
    yield _before(
        name, "best mean is that of the arm that lacks one", earlier_rules.best_arm_lacks_replicates(outcome.values)
    )
    name = "5 folds x 3 seeds, cut half-way"
    outcome = simulate(replace(_study(name, 5, 3, arms=4), missing=0.5), studies)
    yield from _figures(name, [measures.claims_of_partial_study(outcome)])


def daggers(studies: int) -> Iterator[Figure]:
    """Measure how often an equal arm is called worse than the best."""
    for arms in (5, 10, 20):
        name = f"{arms} equal arms, 5 folds x 3 seeds"
        outcome = simulate(replace(_study(name, 5, 3, arms=arms), studies_per_plan=25), studies)
        yield from _figures(name, [measures.daggers(outcome), measures.errors(outcome)[-1]])
        share = earlier_rules.called_worse_than_selected_best(outcome.values, 1 / 4)
        yield _before(name, "an arm called worse than the selected best, Holm over the others", share)
    name = "5 equal arms, 10 test patients, 9 folds"
    outcome = simulate(
        replace(_study(name, 9, 1, arms=5, images=100, images_per_patient=1, split=fixed_split(10)), swapped=True),
        studies // 4,
    )
    yield from _figures(name, [measures.daggers(outcome, metric) for metric in METRICS])


def labels_saved(studies: int) -> Iterator[Figure]:
    """Measure claims on labels for equal arms, and the interval for an arm that is worth twice its labels."""
    levels = (0.125, 0.25, 0.5, 1.0)
    for learner, words in ((FLAT, "flat"), (BALANCED, "rising"), (TRAINING, "steep")):
        for seeds in (1, 3):
            name = f"equal arms on a {words} curve, 5 folds x {seeds} seeds"
            outcome = simulate(_study(name, 5, seeds, labelled=levels, learner=learner), studies)
            yield from _figures(name, [measures.label_claims(outcome)])
            images = measures.labelled_images(outcome)
            reached, more = earlier_rules.labels_needed(outcome.values, images)
            yield _before(name, "'not reached', whatever p", reached)
            yield _before(name, "at least 1.25 times the labels, whatever p", more)
    for seeds, learner, words in ((1, TRAINING, "steep"), (3, TRAINING, "steep"), (3, BALANCED, "rising")):
        name = f"an arm worth twice its labels on a {words} curve, 5 folds x {seeds} seeds"
        plain = _study(name, 5, seeds, labelled=levels, learner=learner)
        twice = dict(zip(levels, (*levels[1:], 1.0), strict=True))
        outcome = simulate(replace(plain, effects=replace(plain.effects, labels={"a1": twice})), studies)
        yield from _figures(name, [measures.labels_covered(outcome, 1, {0: 1, 1: 2, 2: 3})])


def hours_saved(studies: int) -> Iterator[Figure]:
    """Measure claims on hours of annotation: of equal arms, and of one whose labels cost the hours saved in masks."""
    for learner, words in ((FLAT, "flat"), (BALANCED, "rising"), (STEEP, "steep")):
        name = f"equal arms on a {words} curve, 5 folds x 3 seeds"
        plain = _study(name, 5, 3, labelled=(0.25, 0.5, 1.0), learner=learner, minutes={"mask": 8})
        yield from _figures(name, [measures.hours_claims(simulate(plain, studies))])
    levels = (0.1, 0.4, 0.7, 1.0)
    worth = {"a1": dict(zip(levels, (*levels[1:], 1.0), strict=True))}
    for minutes, words in ((2.4, "cost what they save"), (0.1, "cost little")):
        name = f"an arm worth 30 % more masks, whose labels {words}, 5 folds x 3 seeds"
        plain = _study(
            name, 5, 3, images=120, labelled=levels, learner=STEEP, pretraining="own labels", pretrained=[1],
            minutes={"mask": 8, "class": minutes},
        )  # fmt: skip
        outcome = simulate(replace(plain, effects=replace(plain.effects, labels=worth)), studies)
        claims = measures.hours_claims(outcome)
        yield from _figures(name, [claims if minutes > 1 else replace(claims, goal=None)])


def budgets(studies: int) -> Iterator[Figure]:
    """Measure how often an equal arm is called worse than the best with equal hours of annotation."""
    labels: dict[str, Any] = {"pretraining": "own labels", "pretrained": [1], "minutes": {"mask": 8, "class": 2.4}}
    for arms, learner, settings, words in (
        (2, BALANCED, {"minutes": {"mask": 8}}, ""), (5, BALANCED, {"minutes": {"mask": 8}}, ""),
        (10, BALANCED, {"minutes": {"mask": 8}}, ""), (2, FLAT, labels, " of unequal costs on a flat curve"),
    ):  # fmt: skip
        name = f"{arms} equal arms{words} at two budgets, 5 folds x 3 seeds"
        plain = _study(name, 5, 3, arms=arms, labelled=(0.25, 0.5, 1.0), learner=learner, hours=(3.5, 5.0), **settings)
        yield from _figures(name, [measures.budget_daggers(simulate(plain, studies))])
    name = "5 equal arms at a budget, 10 test patients, 9 folds"
    plain = _study(
        name, 9, 1, arms=5, images=100, images_per_patient=1, split=fixed_split(10), labelled=(0.5, 1.0),
        minutes={"mask": 8}, hours=(6.3,),
    )  # fmt: skip
    outcome = simulate(replace(plain, swapped=True), studies // 4)
    yield from _figures(name, [measures.budget_daggers(outcome, metric) for metric in METRICS])


def equivalence(studies: int) -> Iterator[Figure]:
    """Measure how often arms that differ by exactly the region of equivalence are called equivalent."""
    for seeds, pretraining, multiple in ((3, "none", 0), (5, "shared", 1)):
        name = f"arms that differ by the rope, 5 folds x {seeds} seeds" + (", shared runs" if multiple else "")
        make = partial(_study, name, 5, seeds, pretraining=pretraining, images=120, learner=STEADY)
        plain = with_pretraining(make(), multiple)
        different = with_advantage(plain, "a1", 0.3)
        rope = true_difference(different, max(studies, 200))
        outcome = simulate(replace(different, document=make(rope=rope).document), studies)
        yield from _figures(f"{name}, rope {rope:.3f}", [measures.called_equivalent(outcome, 1)])
        outcome = simulate(replace(plain, document=make(rope=rope).document), studies)
        share = replace(measures.called_equivalent(outcome, 1), goal=None)
        yield from _figures(f"equal arms, rope {rope:.3f}, 5 folds x {seeds} seeds", [share])
    name = "models that differ by the rope, 10 test patients, 9 folds"
    plain = _study(name, 9, 1, images=100, images_per_patient=1, split=fixed_split(10), learner=STEADY)
    different = replace(with_advantage(plain, "a1", 0.3), at_rope=True)
    outcome = simulate(different, studies // 2, truth=True)
    yield from _figures(name, [measures.called_equivalent(outcome, 1, metric) for metric in METRICS])


def power(studies: int) -> Iterator[Figure]:
    """Measure how often the stated detectable difference, and smaller or larger ones, are significant."""
    for folds, seeds, arms in ((5, 1, 2), (5, 3, 2), (10, 3, 2), (5, 3, 7)):
        words = f"{folds} folds x {seeds} seeds, {arms - 1} comparisons"
        plain = _study(words, folds, seeds, arms=arms, images=80, learner=STEADY)
        last = f"a{arms - 1}"
        stated = detectable_over_replicates(folds, seeds, arms - 1)
        times = (0.4, 0.55, 0.7, 0.85, 1.0, 1.5)
        needed = advantages(plain, last, [stated * multiple for multiple in times], max(studies // 5, 20))
        shares = []
        for multiple, advantage in zip(times, needed.tolist(), strict=True):
            outcome = simulate(with_advantage(plain, last, advantage), studies if multiple >= 1 else studies // 4)
            shares.append(measures.detection_rate(outcome, arms - 1))
        margin = measures.two_standard_errors(measures.POWER, studies)
        for place, goal in ((-2, measures.POWER - margin), (-1, measures.POWER)):
            name = f"star at {times[place]:g} x the stated {stated:.2f} SDs, {words} ({studies} studies)"
            yield Figure(name=name, unit="share", values=[shares[place]], goal=round(goal, 3), better="higher")
        reached = float(np.interp(0.8, np.maximum.accumulate(shares), times)) * stated
        yield Figure(name=f"a star in 80 % of studies, {words}; stated {stated:.2f}", unit="SDs", values=[reached])


def catalog_studies(studies: int) -> Iterator[Figure]:
    """Measure the designs of the catalog's studies, with all arms equal."""
    for name in catalog.names():
        simulated = catalog.simulated(name)
        outcome = simulate(simulated, studies)
        metrics = METRICS if outcome.design.fixed_test else (HEADLINE,)
        for metric in metrics:
            adjusted = measures.errors(outcome, metric)[-1]
            yield from _figures(f"catalog: {name}", [adjusted, measures.daggers(outcome, metric)])
        yield from _figures(f"catalog: {name}", [measures.label_claims(outcome)])


def _study(name: str, folds: int, seeds: int, *, learner: Learner = BALANCED, **settings: Any) -> Simulated:  # noqa: ANN401
    """Return a study of equal arms; `settings` are those of `document`."""
    return Simulated(name=name, document=document(folds=folds, seeds=seeds, **settings), learner=learner)


def _called(outcome: SimulationResult, ratio: float) -> float:
    return float((earlier_rules.paired_t_p(earlier_rules.differences(outcome.values), ratio) < 0.05).mean())


def _figures(name: str, shares: Iterable[Share]) -> Iterator[Figure]:
    for share in shares:
        goal = share.goal
        if goal is not None and share.better == "lower" and goal > 0:
            goal += measures.two_standard_errors(goal, share.studies)
        yield Figure(
            name=f"{name}: {share.description} ({share.studies} studies)", unit="share", values=[share.share],
            goal=goal if goal is None else round(goal, 4), better=share.better,
        )  # fmt: skip


def _before(name: str, what: str, share: float) -> Figure:
    return Figure(name=f"{name}: before: {what}", unit="share", values=[share])
