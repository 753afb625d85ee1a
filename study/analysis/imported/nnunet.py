"""Read the results of nnU-Net: the counts of each validation case in the summary files of its folds.

Layout of version 2: `fold_K/validation/summary.json` with `metric_per_case`; of version 1: `results.all`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from results import schema
from results.metrics.compute import MetricSettings, measure
from study.analysis.imported.values import ImportedValues, complete
from study.errors import ConfigError, Problem

SUMMARY = "summary.json"
FOLD = re.compile(r"fold_\d+")
FOLDS = 5
"""Number of folds in nnU-Net."""
DATA_SET = re.compile(r"(Dataset|Task)\d+_")
VALIDATIONS = ("validation", "validation_raw_postprocessed", "validation_raw")
"""Folders with a summary, the preferred one first."""
COUNTS = {"tp": "TP", "fp": "FP", "fn": "FN", "tn": "TN"}
NAME_PARTS = ("trainer", "plans", "configuration")
"""Factors in the name of a folder, such as nnUNetTrainer__nnUNetPlans__2d."""
LAYOUT = "allowed: a results folder of nnU-Net, with TRAINER__PLANS__CONFIGURATION/fold_K/validation/summary.json"


def read_nnunet(folder: Path) -> ImportedValues:
    """Return the metrics of all configurations in a results folder, one data set or several.

    The metrics are computed from the counts of each case by the formulas of this platform: per case (aggregation
    case) and pooled over the cases of a fold (aggregation dataset).

    Raises:
        ConfigError: There are no summaries, or one is invalid.
    """
    import pandas as pd

    summaries = _summaries(folder)
    if not summaries:
        raise ConfigError([Problem(path="", message=f"has no fold_K/validation/{SUMMARY}; {LAYOUT}")], str(folder))
    cases = {path: _cases(path) for path in summaries}
    folds: dict[Path, dict[int, int]] = {}
    for path, by_case in cases.items():
        folds.setdefault(path.parents[2], {})[_fold(path)] = len(by_case)
    data_sets = {arm: _data_set(arm, folder) for arm in folds}
    several = len(set(data_sets.values())) > 1
    rows: list[dict[str, Any]] = []
    for path, by_case in cases.items():
        arm = path.parents[2]
        shared = _factors(arm) | {
            "fold": str(_fold(path)),
            "labelled_images": str(_training_cases(folds[arm])),
            "labelled_fraction": "1.0",
            "dataset": data_sets[arm] if several else "",
            "line": str(path),
        }
        rows += [shared | row for row in _rows(by_case, _class_names(arm))]
    return complete(pd.DataFrame(rows).fillna(""), folder)


def _summaries(folder: Path) -> list[Path]:
    """Return one summary for each fold: the final one, where version 1 also wrote intermediate ones."""
    chosen: dict[Path, Path] = {}
    for name in reversed(VALIDATIONS):
        for path in sorted(folder.rglob(f"{name}/{SUMMARY}")):
            if FOLD.fullmatch(path.parent.parent.name):
                chosen[path.parent.parent] = path
    return sorted(chosen.values())


def _fold(path: Path) -> int:
    return int(path.parent.parent.name.removeprefix("fold_"))


def _training_cases(folds: Mapping[int, int]) -> int:
    """Return the mean number of training cases of a complete cross-validation; 0 (unknown) if folds are missing."""
    if sorted(folds) != list(range(FOLDS)):
        return 0
    return round(sum(folds.values()) * (FOLDS - 1) / FOLDS)


def _data_set(arm: Path, folder: Path) -> str:
    """Return the name of the data set that contains the folder of a configuration."""
    names = [part for part in arm.parts if DATA_SET.match(part)]
    return names[-1] if names else arm.parent.name if arm != folder else ""


def _factors(arm: Path) -> dict[str, str]:
    parts = arm.name.split("__")
    named = dict(zip(NAME_PARTS, parts, strict=True)) if len(parts) == len(NAME_PARTS) else {"configuration": arm.name}
    return {"architecture": "nnU-Net", **{name: named.get(name, "-") for name in NAME_PARTS}}


def _class_names(arm: Path) -> Mapping[str, str]:
    """Return the names of labels from `dataset.json` beside the folds; without it labels keep their values.

    Version 2 maps names to values (a list for a region, which the summary writes as a tuple), version 1 the reverse.
    """
    file = arm / "dataset.json"
    labels = _json(file).get("labels", {}) if file.is_file() else {}
    names = {}
    for name, value in labels.items() if isinstance(labels, Mapping) else ():
        if str(name).isdigit():
            names[str(name)] = str(value)
        else:
            names[str(tuple(value)) if isinstance(value, list) else str(value)] = str(name)
    return names


def _cases(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return tp, fp, fn and tn by case and label value."""
    summary = _json(path)
    entries = summary.get("metric_per_case") or (summary.get("results") or {}).get("all")
    if not isinstance(entries, list) or not entries:
        raise ConfigError([Problem(path="", message=f"has no metrics of cases; {LAYOUT}")], str(path))
    cases: dict[str, dict[str, dict[str, int]]] = {}
    for number, entry in enumerate(entries):
        name = f"case {number}"
        try:
            name = Path(str(entry.get("prediction_file") or entry.get("test") or name)).name
            metrics = entry.get("metrics") or {key: value for key, value in entry.items() if isinstance(value, Mapping)}
            by_label = {
                str(label): {
                    count: int(values.get(key, values.get(VERSION_1_COUNTS[key]))) for count, key in COUNTS.items()
                }
                for label, values in metrics.items()
                if str(label) != "0"
            }
        except (AttributeError, TypeError, ValueError) as error:
            message = f"{name} lacks counts (TP, FP, FN, TN); {LAYOUT}"
            raise ConfigError([Problem(path="", message=message)], str(path)) from error
        if name in cases:
            raise ConfigError([Problem(path="", message=f"has {name} twice; {LAYOUT}")], str(path))
        cases[name] = by_label
    return cases


VERSION_1_COUNTS = {"TP": "True Positives", "FP": "False Positives", "FN": "False Negatives", "TN": "True Negatives"}
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
