"""Properties of simulated studies as shares: false positives, coverage of intervals, and power."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from results.schema import SIGNIFICANT
from results.statistics.design import ONE_RUN, TRAINING
from results.statistics.notes import ITSELF
from results.tables.hours import hours_sentences
from results.tables.sentences import label_equivalence_sentences
from tests.simulation.studies import HEADLINE, SimulationResult
from tests.simulation.worlds import Array

if TYPE_CHECKING:
    import pandas as pd

COVERED, POWER = 0.93, 0.8
EQUIVALENT = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of studies and its goal: an upper bound, a lower bound if `better` is "higher", or None."""

    description: str
    share: float
    studies: int
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def within_goal(self) -> bool:
        """Return whether the share reaches its goal within two standard errors."""
        if self.goal is None:
            return True
        margin = two_standard_errors(self.goal, self.studies)
        return self.share >= self.goal - margin if self.better == "higher" else self.share <= self.goal + margin


def two_standard_errors(share: float, studies: int) -> float:
    """Return two standard errors of a share of studies."""
    return float(2 * np.sqrt(share * (1 - share) / studies))


def series(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> "pd.DataFrame":
    """Return the comparisons of one metric."""
    lines = outcome.lines
    return lines[(lines["aggregation"] == metric[0]) & (lines["metric"] == metric[1])]


def false_positives(outcome: SimulationResult, description: str, lines: "pd.DataFrame", column: str = "p") -> Share:
    """Return the share of studies of equal arms in which any p of the given comparisons is below 0.05."""
    return at_most(outcome, f"{column} of {description} below 0.05", lines, lines[column] < SIGNIFICANT)


def at_most(outcome: SimulationResult, description: str, lines: "pd.DataFrame", event: "pd.Series[bool]") -> Share:
    """Return the share of studies in which an event occurred in any comparison; its goal is 5 %."""
    worlds = lines["world"][event].nunique()
    return Share(description=description, share=worlds / outcome.studies, studies=outcome.studies, goal=SIGNIFICANT)


def by_level(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return the share of comparisons with p below 0.05 at each amount of labels."""
    lines = series(outcome, metric)
    lines = lines[lines["p"].notna()]
    return [
        Share(
            description=f"p of {' '.join(metric)} at {level:g} below 0.05",
            share=float((part["p"] < SIGNIFICANT).mean()), studies=outcome.studies, goal=SIGNIFICANT,
        )
        for level, part in lines.groupby(outcome.design.level)
    ]  # fmt: skip


def errors(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return the type I error at each amount of labels, and the family-wise error of the adjusted p of a study."""
    return [
        *by_level(outcome, metric),
        false_positives(outcome, " ".join(metric), series(outcome, metric), "p_adjusted"),
    ]


def daggers(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return the share of studies in which any equal arm is called worse than the best."""
    return false_positives(outcome, " ".join(metric), series(outcome, metric), "p_to_best")


def coverage(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return the coverage of 95 % intervals of arm means at each amount of labels.

    The true value is the score of the networks on new patients if it is known, else the expected score of the
    procedure: the mean over all studies and arms, which are equal.
    """
    lines = series(outcome, metric)
    lines = lines[~lines["provisional"]].drop_duplicates(["world", "arm_number", "level_number"])
    if outcome.truth:
        index = tuple(lines[name].to_numpy() for name in ("world", "arm_number", "level_number"))
        true = outcome.truth[metric][index]
    else:
        true = lines.groupby(["arm_number", "level_number"])["mean"].transform("mean").to_numpy()
        true = lines.assign(true=true).groupby("level_number")["true"].transform("mean").to_numpy()
    known = lines["ci_low"].notna()
    lines = lines.assign(covered=(lines["ci_low"] <= true) & (true <= lines["ci_high"]))[known]
    description = "interval of " + " ".join(metric) + " covers at {}"
    return [
        Share(
            description=description.format(f"{level:g}"), share=float(part["covered"].mean()),
            studies=outcome.studies, goal=COVERED, better="higher",
        )
        for level, part in lines.groupby(outcome.design.level)
    ]  # fmt: skip


def stronger_claims(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return the share of studies of equal procedures in which newly trained models are claimed to differ."""
    lines = series(outcome, metric)
    claimed = lines["generalises_to"].str.startswith(TRAINING) & (lines["p_adjusted"] < SIGNIFICANT)
    return at_most(outcome, f"newly trained models claimed to differ, {' '.join(metric)}", lines, claimed)


def claims_from_one_run(outcome: SimulationResult) -> Share:
    """Return the share of studies with one pretraining run that report a test, or a claim beyond that run."""
    lines = series(outcome)
    lines = lines[lines["note"].str.split("; ").map(lambda notes: ITSELF not in notes)]
    violations = lines["p"].notna() | lines["p_to_best"].notna() | ~lines["generalises_to"].str.startswith(ONE_RUN)
    return replace(at_most(outcome, "one pretraining run: a test or a wider claim", lines, violations), goal=0.0)


def failed_arm_is_used(outcome: SimulationResult) -> Share:
    """Return the share of studies in which the last arm, of which a replicate failed, is compared or is the best."""
    lines = series(outcome)
    is_failed_arm = lines["arm_number"] == lines["arm_number"].max()
    compared = is_failed_arm & lines[
        ["difference", "p", "p_to_best", "difference_to_best", "p_equivalent"]
    ].notna().any(axis=1)
    # The best arm has no difference to the best: exactly one of the complete arms.
    best = lines[~is_failed_arm].groupby("world")["difference_to_best"].transform(lambda values: values.isna().sum())
    violations = compared | (best.reindex(lines.index) != 1) & ~is_failed_arm
    return replace(at_most(outcome, "the failed arm is compared or best", lines, violations), goal=0.0)


def claims_of_partial_study(outcome: SimulationResult) -> Share:
    """Return the share of studies that lack replicates in which anything is tested or not marked as provisional."""
    lines = series(outcome)
    lines = lines[lines["n"] < outcome.design.replicates]
    columns = ["p", "p_to_best", "p_equivalent", "labels_saved", "difference_to_best"]
    violations = lines[columns].notna().any(axis=1) | ~lines["provisional"]
    return replace(at_most(outcome, "a test or a difference, or not provisional", lines, violations), goal=0.0)


def labelled_images(outcome: SimulationResult) -> Array:
    """Return the labelled images of the baseline at each level."""
    lines = series(outcome)
    return lines[lines["arm_number"] == 0].groupby("level_number")["labelled_images"].mean().to_numpy(np.float64)


def label_claims(outcome: SimulationResult) -> Share:
    """Return the share of studies of equal arms that report a sentence on labels or a number of saved labels."""
    lines = series(outcome)
    claiming = {world for world, part in lines.groupby("world") if _claims_saved_labels(part)}
    return at_most(outcome, "labels saved or a sentence", lines, lines["world"].isin(claiming))


def _claims_saved_labels(lines: "pd.DataFrame") -> bool:
    if lines["labels_saved"].notna().any():
        return True
    records: list[dict[str, Any]] = lines.astype(object).to_dict("records")  # type: ignore[assignment]
    return any(label_equivalence_sentences(records))


def labels_covered(outcome: SimulationResult, arm: int, equal_levels: dict[int, int]) -> Share:
    """Return the coverage of the intervals of an arm's equivalent labels.

    `equal_levels` maps levels of the arm to levels at which the baseline trains on the same number of labels.
    """
    lines = series(outcome)
    images = lines[lines["arm_number"] == 0].groupby("level_number")["labelled_images"].mean()
    lines = lines[
        (lines["arm_number"] == arm) & lines["level_number"].isin(equal_levels) & lines["labels_equivalent_low"].notna()
    ]
    true = lines["level_number"].map({level: images[baseline_level] for level, baseline_level in equal_levels.items()})
    covered = (lines["labels_equivalent_low"] <= true) & (true <= lines["labels_equivalent_high"])
    return Share(
        description="interval of equivalent labels covers", share=float(covered.mean()), studies=outcome.studies,
        goal=COVERED, better="higher",
    )  # fmt: skip


def hours_claims(outcome: SimulationResult) -> Share:
    """Return the share of studies that report a sentence on hours of annotation or a number of saved hours."""
    lines = series(outcome)
    claiming = {world for world, part in lines.groupby("world") if _claims_saved_hours(part)}
    return at_most(outcome, "hours saved or a sentence", lines, lines["world"].isin(claiming))


def _claims_saved_hours(lines: "pd.DataFrame") -> bool:
    if lines["hours_saved"].notna().any():
        return True
    records: list[dict[str, Any]] = lines.astype(object).to_dict("records")  # type: ignore[assignment]
    return any(hours_sentences(records))


def budget_daggers(outcome: SimulationResult, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return the share of studies in which any equal arm is called worse than the best at equal hours of annotation."""
    lines = outcome.budgets
    lines = lines[(lines["aggregation"] == metric[0]) & (lines["metric"] == metric[1])]
    assert lines["p_to_best"].notna().any()
    return false_positives(outcome, f"{' '.join(metric)} at equal hours", lines, "p_to_best")


def called_equivalent(outcome: SimulationResult, arm: int, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return the share of studies in which an arm is equivalent to the baseline with a probability above 0.95."""
    lines = series(outcome, metric)
    lines = lines[lines["arm_number"] == arm]
    return at_most(outcome, "called equivalent", lines, lines["p_equivalent"] > EQUIVALENT)


def detection_rate(outcome: SimulationResult, arm: int) -> float:
    """Return the share of studies in which an arm is better than its baseline with an adjusted p below 0.05."""
    lines = series(outcome)
    lines = lines[(lines["arm_number"] == arm) & (lines["p_adjusted"] < SIGNIFICANT) & (lines["difference"] > 0)]
    return float(lines["world"].nunique() / outcome.studies)
