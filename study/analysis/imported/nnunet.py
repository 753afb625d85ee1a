"""Read the results of nnU-Net: the counts of each validation case in the summary files of its folds.

Layout of version 2: `fold_K/validation/summary.json` with `metric_per_case`; of version 1: `results.all`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.metrics.compute import MetricSettings, measure
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
FOLD = re.compile(r"fold_(\d+)")
COUNTS = {"tp": "TP", "fp": "FP", "fn": "FN", "tn": "TN"}
SPECIES = ("trainer", "plans", "configuration")
"""Factors in the name of a folder, such as nnUNetTrainer__nnUNetPlans__2d."""
LAYOUT = "allowed: a results folder of nnU-Net, with TRAINER__PLANS__CONFIGURATION/fold_K/validation/summary.json"


def read_nnunet(folder: Path) -> "pd.DataFrame":
    """Return the metrics of all configurations in a results folder, in the columns of `values.read_values`.

    The metrics are computed from the counts of each case by the formulas of this platform: per case (aggregation
    case) and pooled over the cases of a fold (aggregation dataset).

    Raises:
        ConfigError: There are no summaries, or one is invalid.
    """
    import pandas as pd

    summaries = sorted(path for path in folder.rglob(SUMMARY) if FOLD.fullmatch(path.parent.parent.name))
    if not summaries:
        raise ConfigError([Problem(path="", message=f"has no fold_K/validation/{SUMMARY}; {LAYOUT}")], str(folder))
    cases = {path: _cases(path) for path in summaries}
    total: dict[Path, int] = {}
    for path, by_case in cases.items():
        arm = path.parents[2]
        total[arm] = total.get(arm, 0) + len(by_case)
    rows: list[dict[str, Any]] = []
    for path, by_case in cases.items():
        arm = path.parents[2]
        factors = _factors(arm)
        shared = factors | {
            "fold": str(int(FOLD.fullmatch(path.parent.parent.name)[1])),  # type: ignore[index]
            "labelled_images": str(max(total[arm] - len(by_case), 1)),
            "labelled_fraction": "1.0",
            "line": str(path),
        }
        rows += [shared | row for row in _rows(by_case, _class_names(arm))]
    return pd.DataFrame(rows).fillna("")


def _factors(arm: Path) -> dict[str, str]:
    parts = arm.name.split("__")
    named = dict(zip(SPECIES, parts, strict=True)) if len(parts) == len(SPECIES) else {"configuration": arm.name}
    return {"architecture": "nnU-Net", **{name: named.get(name, "-") for name in SPECIES}}


def _class_names(arm: Path) -> Mapping[str, str]:
    """Return the names of label values from `dataset.json` beside the folds; the values themselves without it."""
    file = arm / "dataset.json"
    if not file.is_file():
        return {}
    labels = _json(file).get("labels", {})
    if not isinstance(labels, Mapping):
        return {}
    pairs = (
        (str(value), str(name)) if not str(name).isdigit() else (str(name), str(value))
        for name, value in labels.items()
    )
    return dict(pairs)


def _cases(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return tp, fp, fn and tn by case and label value."""
    summary = _json(path)
    entries = summary.get("metric_per_case") or (summary.get("results") or {}).get("all")
    if not isinstance(entries, list) or not entries:
        raise ConfigError([Problem(path="", message=f"has no metrics of cases; {LAYOUT}")], str(path))
    cases: dict[str, dict[str, dict[str, int]]] = {}
    for entry in entries:
        name = Path(str(entry.get("prediction_file") or entry.get("test") or "")).name
        metrics = entry.get("metrics") or {key: value for key, value in entry.items() if isinstance(value, Mapping)}
        try:
            cases[name] = {
                str(label): {count: int(values.get(key, values.get(LONG[key]))) for count, key in COUNTS.items()}
                for label, values in metrics.items()
                if str(label) != "0"
            }
        except (AttributeError, TypeError, ValueError) as error:
            message = f"case {name or 'without a name'} lacks counts (TP, FP, FN, TN); {LAYOUT}"
            raise ConfigError([Problem(path="", message=message)], str(path)) from error
    return cases


LONG = {"TP": "True Positives", "FP": "False Positives", "FN": "False Negatives", "TN": "True Negatives"}
"""Names of counts in version 1, which only some of its releases write."""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(path="", message=f"is not JSON ({error}); {LAYOUT}")], str(path)) from error
    if not isinstance(content, dict):
        raise ConfigError([Problem(path="", message=f"is no JSON object; {LAYOUT}")], str(path))
    return content


def _rows(cases: Mapping[str, Mapping[str, Mapping[str, int]]], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the per-case and the pooled metrics of one fold."""
    import pyarrow as pa

    no_bins = [0] * schema.CONFIDENCE_BINS
    scores = pa.Table.from_pylist([
        {"image": case, "class": names.get(label, label), "split": "test", **counts, "positives": [], "negatives": []}
        for case, by_label in cases.items() for label, counts in by_label.items()
    ], schema=schema.scores())  # fmt: skip
    columns = ("confidence_count", "confidence_sum", "confidence_correct")
    images = pa.Table.from_pylist(
        [{"image": case, "patient": case, "split": "test"} | dict.fromkeys(columns, no_bins) for case in cases],
        schema=schema.images(),
    )
    measured = measure(scores, images, MetricSettings())
    for row in measured.rows:
        if row.value is not None and row.aggregation == "dataset" and row.metric != "threshold":
            yield {"aggregation": "dataset", "class": row.class_, "metric": row.metric, "value": repr(row.value),
                   "split": "test"}  # fmt: skip
    for part in measured.images:
        for column, (class_, metric) in enumerate(part.series):
            values = part.values[:, column]
            if np.isnan(values).all():  # a metric that these counts do not define
                continue
            for image, patient, value in zip(part.images, part.patients, values.tolist(), strict=True):
                yield {"aggregation": "case", "class": class_, "metric": metric, "image": image, "patient": patient,
                       "value": "" if math.isnan(value) else repr(value), "split": "test"}  # fmt: skip
