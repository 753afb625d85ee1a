"""What simulated studies say, as shares: of false answers, of intervals that cover, of effects that are found."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from results.schema import SIGNIFICANT
from results.statistics.design import ONE_RUN, TRAINING
from results.statistics.notes import ITSELF
from results.tables.sentences import label_equivalence_sentences
from tests.simulation.studies import HEADLINE, StageOutcome
from tests.simulation.worlds import Array

if TYPE_CHECKING:
    import pandas as pd

COVERED, POWER = 0.93, 0.8
EQUIVALENT = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of studies and what it may be at most, or at least where `better` is higher; None: only reported."""

    what: str
    share: float
    studies: int
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def held(self) -> bool:
        """Return whether the share is within its goal and two standard errors."""
        if self.goal is None:
            return True
        margin = two_errors(self.goal, self.studies)
        return self.share >= self.goal - margin if self.better == "higher" else self.share <= self.goal + margin


def two_errors(share: float, studies: int) -> float:
    """Return two standard errors of a share of studies."""
    return float(2 * np.sqrt(share * (1 - share) / studies))


def series(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> "pd.DataFrame":
    """Return the lines of one metric."""
    lines = outcome.lines
    return lines[(lines["aggregation"] == metric[0]) & (lines["metric"] == metric[1])]


def false_answers(outcome: StageOutcome, what: str, lines: "pd.DataFrame", column: str = "p") -> Share:
    """Return in how many studies any p of some lines is below 0.05, where all arms are equal."""
    return at_most(outcome, f"{column} of {what} below 0.05", lines, lines[column] < SIGNIFICANT)


def at_most(outcome: StageOutcome, what: str, lines: "pd.DataFrame", happened: "pd.Series[bool]") -> Share:
    """Return in how many studies something happened in any of its lines, which may be in 5 %."""
    worlds = lines["world"][happened].nunique()
    return Share(what=what, share=worlds / outcome.studies, studies=outcome.studies, goal=SIGNIFICANT)


def by_level(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return how many comparisons have p below 0.05 at each amount of labels."""
    lines = series(outcome, metric)
    lines = lines[lines["p"].notna()]
    return [
        Share(what=f"p of {' '.join(metric)} at {level:g} below 0.05", share=float((part["p"] < SIGNIFICANT).mean()),
              studies=outcome.studies, goal=SIGNIFICANT)
        for level, part in lines.groupby(outcome.design.level)
    ]  # fmt: skip


def errors(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return the error of p at each amount of labels, and that any adjusted p of a study is below 0.05."""
    return [*by_level(outcome, metric), false_answers(outcome, " ".join(metric), series(outcome, metric), "p_adjusted")]


def daggers(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return in how many studies any equal arm is called worse than the best."""
    return false_answers(outcome, " ".join(metric), series(outcome, metric), "p_to_best")


def coverage(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> list[Share]:
    """Return how many 95 % intervals of arm means cover the truth, at each amount of labels.

    The truth is what the networks score on new patients where that is known, else the expected score of the procedure:
    the mean over all studies and arms, which are equal.
    """
    lines = series(outcome, metric)
    lines = lines[~lines["provisional"]].drop_duplicates(["world", "arm_number", "level_number"])
    if outcome.truth:
        place = tuple(lines[name].to_numpy() for name in ("world", "arm_number", "level_number"))
        true = outcome.truth[metric][place]
    else:
        true = lines.groupby(["arm_number", "level_number"])["mean"].transform("mean").to_numpy()
        true = lines.assign(true=true).groupby("level_number")["true"].transform("mean").to_numpy()
    known = lines["ci_low"].notna()
    lines = lines.assign(covered=(lines["ci_low"] <= true) & (true <= lines["ci_high"]))[known]
    what = "interval of " + " ".join(metric) + " covers at {}"
    return [
        Share(what=what.format(f"{level:g}"), share=float(part["covered"].mean()), studies=outcome.studies,
              goal=COVERED, better="higher")
        for level, part in lines.groupby(outcome.design.level)
    ]  # fmt: skip


def stronger_claims(outcome: StageOutcome, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return in how many studies newly trained models are said to differ, where procedures are equal."""
    lines = series(outcome, metric)
    said = lines["generalises_to"].str.startswith(TRAINING) & (lines["p_adjusted"] < SIGNIFICANT)
    return at_most(outcome, f"newly trained models said to differ, {' '.join(metric)}", lines, said)


def stars_on_one_run(outcome: StageOutcome) -> Share:
    """Return in how many studies anything is tested, or claimed of more than the one pretraining run there is."""
    lines = series(outcome)
    lines = lines[lines["note"].str.split("; ").map(lambda notes: ITSELF not in notes)]
    wrong = lines["p"].notna() | lines["p_to_best"].notna() | ~lines["generalises_to"].str.startswith(ONE_RUN)
    return replace(at_most(outcome, "one pretraining run: a test or a wider claim", lines, wrong), goal=0.0)


def failed_arm_answers(outcome: StageOutcome) -> Share:
    """Return in how many studies the last arm, of which a replicate failed, is compared or is the best."""
    lines = series(outcome)
    own = lines["arm_number"] == lines["arm_number"].max()
    compared = own & lines[["difference", "p", "p_to_best", "difference_to_best", "p_equivalent"]].notna().any(axis=1)
    # The best arm is the one without a difference to it: exactly one of the others.
    best = lines[~own].groupby("world")["difference_to_best"].transform(lambda values: values.isna().sum())
    wrong = compared | (best.reindex(lines.index) != 1) & ~own
    return replace(at_most(outcome, "the failed arm is compared or best", lines, wrong), goal=0.0)


def answers_of_partial_study(outcome: StageOutcome) -> Share:
    """Return in how many studies that lack replicates anything is tested, or not marked as provisional."""
    lines = series(outcome)
    lines = lines[lines["n"] < outcome.design.replicates]
    answers = ["p", "p_to_best", "p_equivalent", "labels_saved", "difference_to_best"]
    wrong = lines[answers].notna().any(axis=1) | ~lines["provisional"]
    return replace(at_most(outcome, "an answer, or not provisional", lines, wrong), goal=0.0)


def labelled_images(outcome: StageOutcome) -> Array:
    """Return the labelled images of the baseline at each level."""
    lines = series(outcome)
    return lines[lines["arm_number"] == 0].groupby("level_number")["labelled_images"].mean().to_numpy(np.float64)


def labels_said(outcome: StageOutcome) -> Share:
    """Return in how many studies a sentence or a number of saved labels stands, where arms are equal."""
    lines = series(outcome)
    said = {world for world, part in lines.groupby("world") if _is_said(part)}
    return at_most(outcome, "labels saved or a sentence", lines, lines["world"].isin(said))


def _is_said(lines: "pd.DataFrame") -> bool:
    if lines["labels_saved"].notna().any():
        return True
    records: list[dict[str, Any]] = lines.astype(object).to_dict("records")  # type: ignore[assignment]
    return any(label_equivalence_sentences(records))


def labels_covered(outcome: StageOutcome, arm: int, twice: dict[int, int]) -> Share:
    """Return how many intervals of an arm's equivalent labels cover the truth.

    `twice` maps numbers of levels to those at which the baseline trains on as many labels as the arm really has there.
    """
    lines = series(outcome)
    images = lines[lines["arm_number"] == 0].groupby("level_number")["labelled_images"].mean()
    lines = lines[
        (lines["arm_number"] == arm) & lines["level_number"].isin(twice) & lines["labels_equivalent_low"].notna()
    ]
    true = lines["level_number"].map({level: images[other] for level, other in twice.items()})
    covered = (lines["labels_equivalent_low"] <= true) & (true <= lines["labels_equivalent_high"])
    return Share(what="interval of equivalent labels covers", share=float(covered.mean()), studies=outcome.studies,
                 goal=COVERED, better="higher")  # fmt: skip


def called_equivalent(outcome: StageOutcome, arm: int, metric: tuple[str, str] = HEADLINE) -> Share:
    """Return in how many studies the probability that an arm is equivalent to the baseline is above 0.95."""
    lines = series(outcome, metric)
    lines = lines[lines["arm_number"] == arm]
    return at_most(outcome, "called equivalent", lines, lines["p_equivalent"] > EQUIVALENT)


def found(outcome: StageOutcome, arm: int) -> float:
    """Return in how many studies an arm has an adjusted p below 0.05 and is better than its baseline."""
    lines = series(outcome)
    lines = lines[(lines["arm_number"] == arm) & (lines["p_adjusted"] < SIGNIFICANT) & (lines["difference"] > 0)]
    return float(lines["world"].nunique() / outcome.studies)
