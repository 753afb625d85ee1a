"""Agreement of the annotators of a study's target data, from its table of results."""

import os
from collections.abc import Mapping
from pathlib import Path

from results import schema
from results.metrics.agreement import AGREEMENT, Agreement, agreements
from study.analysis.derived_cache import study_table
from study.store.atomic import AlteredFileError
from study.store.paths import RESULTS


def read_agreements(folder: Path, series: Mapping[str, str | None]) -> list[Agreement]:
    """Return the agreement of each pair of annotators; empty without several, and for other splits than `test`.

    Args:
        folder: The folder of the study.
        series: `metric`, `class`, `aggregation` and `split`; None for the headline's.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    chosen = {name: value or schema.HEADLINE[name] for name, value in series.items()}
    if chosen["split"].partition("@")[0] != "test" or not os.path.lexists(folder / RESULTS):
        return []
    columns = ["split", "aggregation", "class", "metric", "value", "images", "fold", "seed"]
    try:
        file = study_table(folder, RESULTS)
    except AlteredFileError:  # the comparisons, which are shown, do not depend on it
        return []
    rows = pq.read_table(file, columns=columns, filters=pc.starts_with(pc.field("split"), AGREEMENT))
    return agreements(
        rows.to_pylist(), metric=chosen["metric"], class_=chosen["class"], aggregation=chosen["aggregation"]
    )
