"""What statistics have to know of a study: its folds and seeds, and which arm is compared with which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from results.schema import Level

if TYPE_CHECKING:
    import pandas as pd

CORRECTED = "Nadeau-Bengio corrected resampled t-test, effect size d_z"
ORDINARY = "paired t-test, effect size d_z"
ArmKey = tuple[str, ...]
"""An arm's factor values in column order."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Comparisons adjusted together: each arm and its baseline. An arm may be its own."""

    name: str
    pairs: Mapping[ArmKey, ArmKey]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the plan knows: how many folds and seeds a cell has, and who is whose baseline.

    `level` is the column that is equal in all replicates of a cell; `notes` by digest go into its note.
    """

    folds: int
    seeds: int
    families: Sequence[Family] = ()
    fixed_test: bool = False
    level: Level = "labelled_fraction"
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def replicates(self) -> int:
        """Return how many replicates a complete cell has."""
        return self.folds * self.seeds

    @property
    def test(self) -> str:
        """Name the test: test sets that are the same in every fold need no fold correction."""
        return ORDINARY if self.fixed_test else CORRECTED

    @property
    def test_to_training(self) -> float:
        """Return test over training cases of a fold; it stands for how far replicates are correlated."""
        if self.fixed_test:
            return 0.0
        return 1 / (self.folds - 1) if self.folds > 1 else float("nan")


def arm_pairs(frame: "pd.DataFrame", factors: Sequence[str], families: Sequence[Family]) -> "pd.DataFrame":
    """Return arm, baseline (family) and baseline_arm (-1 where it has no results) by arm number."""
    import pandas as pd

    arms = frame.drop_duplicates("arm")
    numbers = dict(zip(arms[[*factors]].itertuples(index=False, name=None), arms["arm"], strict=True))
    known = [
        (numbers[arm], family.name, numbers.get(baseline, -1))
        for family in families
        for arm, baseline in family.pairs.items()
        if arm in numbers
    ]
    sizes = {len(key) for family in families for pair in family.pairs.items() for key in pair}
    for size in sizes - {len(factors)}:
        raise ValueError(f"families name arms by {size} factors; allowed: {', '.join(factors)}; name each once")
    columns = ["arm", "baseline", "baseline_arm"]
    return pd.DataFrame(known, columns=columns).astype({"arm": np.int64, "baseline_arm": np.int64})
