"""All paired tests of cells with their baselines, each with what its answer generalises to."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from results import schema
from results.cells import describe, numbered
from results.design import Design, arm_pairs
from results.notes import SEVERAL_IMAGES, SHARED_TRAINING, incomplete, joined, where_tested
from results.one_sample import drawn, ranked, student
from results.pairing import adjusted, differences, over_replicates
from results.per_image import Paired, Scored, paired_images
from results.statistics import as_table, further_factors

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TRAINING, PATIENTS = "new training sets", "these models, new patients"
FAMILY = ("baseline", "series", "test", "unit")


def paired_tests(results: "pa.Table", design: Design, scored: Sequence[Scored] = ()) -> "pa.Table":
    """Return the tests table; `scored` are the replicates with the metrics of their single test images.

    Replicates: differences paired by fold and seed. t = mean / (sd sqrt(1/n + 1/(folds - 1))) with n pairs and
    n - 1 degrees of freedom (Nadeau and Bengio 2003); a fixed test set takes the ordinary paired t. Folds:
    seeds averaged first. Test images (aggregation case): replicates averaged first, each image once. Patients:
    a bootstrap of the mean over images. `p_adjusted` is Holm's over one baseline, series, test and unit.
    """
    import pandas as pd

    factors = schema.factor_columns(results.column_names)
    frame = numbered(results, factors, design.level)
    pairs = arm_pairs(frame, factors, design.families)
    both = differences(frame, pairs, design.level)
    tests = [_over_pairs(both, design), *_over_folds(both, design)]
    for paired in paired_images(frame, pairs, scored, design, factors):
        tests += _over_images(paired, design)
    every = adjusted(pd.concat([part for part in tests if len(part)] or tests[:1], ignore_index=True), [*FAMILY])
    cells = describe(frame, design).drop(columns=["series", "ci_low", "ci_high"])
    rows = every.merge(cells, on="row").sort_values(["row", "baseline"], kind="stable")
    return as_table(rows, schema.paired_tests(further_factors(factors)))


def _over_pairs(both: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    tests = over_replicates(both, design).drop(columns=["p_adjusted", "tests"])
    missing = incomplete(tests["pairs"], design.replicates, "replicates paired")
    return tests.assign(
        test=design.test,
        unit="fold and seed",
        generalises_to=TRAINING,
        rank_biserial=np.nan,
        note=joined(tests.pop("test_note"), missing),
    )


def _over_folds(both: "pd.DataFrame", design: Design) -> "Iterator[pd.DataFrame]":
    """Test over folds, seeds averaged first."""
    means = both.groupby(["row", "baseline", "series", "fold"], sort=False)["difference"].mean().unstack("fold")
    values = means.to_numpy(np.float64).T
    missing = incomplete((~np.isnan(values)).sum(axis=0), design.folds, "folds paired")
    warning = "" if design.fixed_test else SHARED_TRAINING
    for test in (student(values), ranked(values)):
        note = joined(test["note"], missing, where_tested(test["p"], warning))
        yield means.index.to_frame(index=False).assign(**test | {"note": note}, unit="fold", generalises_to=TRAINING)


def _over_images(paired: Paired, design: Design) -> "Iterator[pd.DataFrame]":
    """Test over test images, and draw patients."""
    _, values, patients, replicates = paired.found
    missing = joined(
        incomplete((~np.isnan(values)).sum(axis=0), len(values), "images defined"),
        incomplete(np.full(values.shape[1], replicates), design.replicates, "replicates paired"),
    )
    warning = SEVERAL_IMAGES if len(np.unique(patients)) < len(patients) else ""
    tests = {"test image": (student(values), ranked(values)), "patient": (drawn(values, patients),)}
    for unit, parts in tests.items():
        for test in parts:
            note = joined(test["note"], missing, where_tested(test["p"], warning))
            yield paired.keys.assign(**test | {"note": note}, unit=unit, generalises_to=PATIENTS)
