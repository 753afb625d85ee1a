"""The table of all paired tests of cells with their baselines, each with its claim."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells
from results.statistics.design import CORRECTED, ONE_RUN, PATIENTS, TRAINING
from results.statistics.estimates import corrected, group_means, hedges_g, holm
from results.statistics.inference import Comparison
from results.statistics.notes import SEVERAL_IMAGES, SHARED_TRAINING, incomplete, joined, where_tested
from results.statistics.paired.one_sample import Columns, over_patients, t_test, wilcoxon_test
from results.statistics.patient_level.image_differences import ImageDifferences, ScoredImages
from results.statistics.patient_level.sums import ScoredReplicate

if TYPE_CHECKING:
    import pandas as pd

FAMILY = ("baseline", "series", "kind")
OF_DESIGN = "design"
PRETRAINING_RUN = "pretraining run"


class BaselinePair(NamedTuple):
    """A cell, the cell of its baseline (-1 if it is not planned), and the name of the baseline."""

    cell: int
    baseline_cell: int
    baseline: str


def paired_tests(
    cells: Cells, comparisons: Mapping[BaselinePair, tuple[Comparison, FloatArray]], scored: Iterable[ScoredReplicate]
) -> "pd.DataFrame":
    """Return the tests of all pairs of complete cells.

    First the comparison of the design. With cross-validation also tests over folds with seeds averaged first, over
    pretraining runs that folds share, and over patients (for the trained models). Per-case metrics also over test
    images with replicates averaged first. `p_adjusted` of the design is that of the comparisons, of other tests Holm's
    over one baseline, series, test and unit.
    """
    import pandas as pd

    images = ScoredImages(cells, scored)
    parts: list[pd.DataFrame] = []
    for pair, (comparison, p_adjusted) in comparisons.items():
        parts.append(_of_design(cells, pair, comparison).assign(p_adjusted=p_adjusted, kind=OF_DESIGN))
        if not cells.design.fixed_test:
            parts += _over_replicates(cells, pair)
        for differences in images.differences(pair.cell, pair.baseline_cell):
            parts += _over_images(cells, pair, differences)
    columns = ["row", "baseline", "series", "test", "unit", "p", "generalises_to", "pairs", "difference", "note"]
    columns += ["sd_difference", "statistic", "degrees_of_freedom", "effect_size", "hedges_g", "rank_biserial"]
    tests = (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=[*columns, "ci_low", "ci_high", "p_adjusted", "kind"])
    )
    groups = tests.groupby([*FAMILY])["p"]
    holm_adjusted = groups.transform(lambda p: holm(p.to_numpy(np.float64)))
    of_design = tests["kind"] == OF_DESIGN
    tests = tests.assign(
        p_adjusted=tests["p_adjusted"].where(of_design, holm_adjusted), tests=groups.transform("count")
    )
    return tests.astype({"row": np.int64})


def _of_design(cells: Cells, pair: BaselinePair, comparison: Comparison) -> "pd.DataFrame":
    import pandas as pd

    series, rows = cells.paired_rows([pair.cell, pair.baseline_cell])
    effect = comparison.difference / np.where(np.isnan(comparison.p), np.nan, comparison.sd)
    return pd.DataFrame({
        "row": rows[0], "baseline": pair.baseline, "series": series, "test": comparison.test, "unit": comparison.unit,
        "generalises_to": comparison.generalises_to, "pairs": comparison.pairs.astype(np.int64),
        "difference": comparison.difference, "sd_difference": comparison.sd, "statistic": comparison.statistic,
        "degrees_of_freedom": comparison.freedom, "p": comparison.p, "effect_size": effect,
        "hedges_g": hedges_g(effect, comparison.pairs - 1), "rank_biserial": np.nan, "ci_low": comparison.low,
        "ci_high": comparison.high, "note": comparison.note,
    })  # fmt: skip


def _over_replicates(cells: Cells, pair: BaselinePair) -> "Iterator[pd.DataFrame]":
    """Test over folds, and over the pretraining runs that folds share."""
    series, rows = cells.paired_rows([pair.cell, pair.baseline_cell])
    differences = cells.values[rows[0]] - cells.values[rows[1]]
    keys = {"row": rows[0], "baseline": pair.baseline, "series": series}
    folds = t_test(group_means(differences, tuple(cells.fold.tolist())).T)
    folds["note"] = np.array(joined(folds["note"], where_tested(folds["p"], SHARED_TRAINING)), dtype=object)
    groupings = sorted(cells.groupings[pair.cell] | cells.groupings[pair.baseline_cell])
    one_run = any(not max(labels) for labels in groupings)
    if one_run or not groupings:  # with several shared runs, folds by themselves support no claim
        yield _frame(keys, folds, unit="fold", generalises_to=ONE_RUN if one_run else TRAINING)
    for labels in groupings:
        if max(labels):
            runs = t_test(group_means(differences, labels).T)
            yield _frame(keys, runs, unit=PRETRAINING_RUN, generalises_to=TRAINING)
    if one_run:
        estimates = corrected(differences, cells.design.test_to_training)
        low, high = estimates.interval()
        effect = estimates.mean / np.where(np.isnan(estimates.p), np.nan, estimates.sd)
        undefined = np.full(len(series), np.nan)
        test = {
            "test": np.full(len(series), CORRECTED, dtype=object), "pairs": estimates.pairs.astype(np.int64),
            "difference": estimates.mean, "sd_difference": estimates.sd, "statistic": estimates.statistic,
            "degrees_of_freedom": estimates.decisive_freedom, "p": estimates.p, "effect_size": effect,
            "hedges_g": hedges_g(effect, estimates.pairs - 1), "rank_biserial": undefined, "ci_low": low,
            "ci_high": high, "note": np.full(len(series), "", dtype=object),
        }  # fmt: skip
        yield _frame(keys, test, unit="fold and seed", generalises_to=ONE_RUN)


def _over_images(cells: Cells, pair: BaselinePair, images: ImageDifferences) -> "Iterator[pd.DataFrame]":
    """Test over test images, and over patients where that is not the comparison of the design."""
    keys = {"row": cells.row_of[pair.cell, images.series], "baseline": pair.baseline, "series": images.series}
    defined = (~np.isnan(images.values)).sum(axis=0)
    missing = joined(
        incomplete(defined, len(images.values), "images defined"),
        incomplete(np.full(len(images.series), images.replicates), cells.design.replicates, "replicates paired"),
    )
    several = SEVERAL_IMAGES if len(np.unique(images.patients)) < len(images.patients) else ""
    tests = [("test image", t_test(images.values), several), ("test image", wilcoxon_test(images.values), several)]
    if not cells.design.fixed_test:
        tests.append(("patient", over_patients(images.values, images.patients), ""))
    for unit, test, warning in tests:
        note = joined(test["note"], missing, where_tested(test["p"], warning))
        yield _frame(keys, test | {"note": np.array(note, dtype=object)}, unit=unit, generalises_to=PATIENTS)


def _frame(keys: dict[str, Any], test: Columns, *, unit: str, generalises_to: str) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame({**keys, **test, "unit": unit, "generalises_to": generalises_to})
    return frame.assign(kind=frame["test"] + unit)
