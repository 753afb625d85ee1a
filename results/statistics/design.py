"""The design of a study: folds, seeds, planned cells, baselines, and which stages replicates share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from results.schema import DEFAULT_ROPE, DISTANCES, METRICS, UNIT_INTERVAL, Level, direction
from results.statistics.estimates import Labels

CORRECTED = "Nadeau-Bengio corrected resampled t-test, effect size d_z"
SHARED = "larger p of the Nadeau-Bengio test and a paired t-test over pretraining runs, effect size d_z"
SIGN_FLIP = "sign-flip permutation test over patients"
SWAP = "permutation test, counts of a patient swapped between arms"
STRONGER = "larger p of the permutation test over patients and a t-test over seeds corrected for shared training images"

TRAINING = "new training sets"
PATIENTS = "these models, new patients"
ONE_RUN = "this one pretraining run"
AT_SETTINGS = ", at the settings found"

ArmKey = tuple[str, ...]
"""An arm's factor values in column order."""


def baseline_key(arm: Mapping[str, str], rule: Mapping[str, str]) -> ArmKey:
    """Return the key of the baseline of an arm: its own factors, overridden by those of the rule."""
    return tuple({**arm, **rule}.values())


@dataclass(frozen=True, kw_only=True)
class Family:
    """Comparisons adjusted together: each arm and its baseline. An arm may be its own baseline."""

    name: str
    pairs: Mapping[ArmKey, ArmKey]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """An arm at one level of labelled data.

    `failed` counts its replicates that failed permanently; `annotation_hours` is None if the cost is not stated.
    """

    arm: ArmKey
    level: float
    labelled_fraction: float
    labelled_images: int
    failed: int = 0
    annotation_hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class EquivalenceMargins:
    """Half width of the region of practical equivalence, by metric; `default` for other metrics within 0..1."""

    default: float = DEFAULT_ROPE
    by_metric: Mapping[str, float] = field(default_factory=dict)

    def half_width(self, metric: str) -> float:
        """Return the half width for a metric; NaN for an unbounded metric without an entry."""
        return self.by_metric.get(metric, self.default if metric in UNIT_INTERVAL else float("nan"))


@dataclass(frozen=True, kw_only=True)
class Design:
    """The design of a study, as far as its results do not contain it.

    Args:
        folds, seeds: Their numbers in a complete cell.
        families: Which arm is compared with which baseline.
        fixed_test: Whether all replicates share their test images.
        fixed_split: Whether the split has a fixed seed, so that all seeds share folds and labelled patients.
        level: The column that is equal in all replicates of a cell.
        cells: All planned cells; empty means that the results are complete.
        ancestors: By digest of a target stage, the digests of the stages its weights come from, first stage first.
        tuned: Arms whose settings a search selected on reserved patients: one draw of settings.
        notes: By digest of a target stage, text for the `note` of its cell.
        rope: Region of practical equivalence.
        hours: Budgets of annotation at which arms are compared.
        distance_unit: Unit of `results.schema.DISTANCES`, "" if it is unknown.
        lower_is_better: Metrics outside of `schema` that improve downwards; other unknown metrics improve upwards.
    """

    folds: int
    seeds: int
    families: Sequence[Family] = ()
    fixed_test: bool = False
    fixed_split: bool = False
    level: Level = "labelled_fraction"
    cells: Sequence[PlannedCell] = ()
    ancestors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tuned: Sequence[ArmKey] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    rope: EquivalenceMargins = field(default_factory=EquivalenceMargins)
    hours: Sequence[float] = ()
    distance_unit: str = ""
    lower_is_better: frozenset[str] | None = None

    def direction(self, metric: str) -> int:
        """Return 1 if higher is better, -1 if lower is, 0 if neither is."""
        known = direction(metric)
        if known or self.lower_is_better is None or metric in METRICS:
            return known
        return -1 if metric in self.lower_is_better else 1

    def metric_unit(self, metric: str) -> str:
        """Return the unit of a metric, "" if it has none."""
        return self.distance_unit if metric in DISTANCES else ""

    @property
    def replicates(self) -> int:
        """Return how many replicates a complete cell has."""
        return self.folds * self.seeds

    @property
    def test_to_training(self) -> float:
        """Return the ratio of test to training cases of a fold, 1 / (folds - 1); NaN for one fold.

        It approximates the correlation of replicates (Nadeau and Bengio 2003).
        """
        return 1 / (self.folds - 1) if self.folds > 1 else float("nan")

    @property
    def independent_splits(self) -> int:
        """Return the number of replicates with different splits: folds times seeds, or folds if the split is fixed."""
        return self.folds if self.fixed_split else self.replicates


def shared_runs(chains: Sequence[Sequence[str]], folds: Sequence[int], *, fixed_test: bool) -> frozenset[Labels]:
    """Return how the replicates of a cell share pretraining runs: one grouping of replicates for each shared stage.

    Args:
        chains: By replicate, the digests of the stages that its weights come from.
        folds: By replicate, its fold.
        fixed_test: With a fixed test set every pretraining stage counts, else those that several folds share.
    """
    groupings = set()
    for stages in zip(*chains, strict=False):
        numbers: dict[str, int] = {}
        labels = tuple(numbers.setdefault(digest, len(numbers)) for digest in stages)
        places = set(zip(labels, folds, strict=True))
        if fixed_test or len(places) > len(numbers):
            groupings.add(labels)
    return frozenset(groupings)
