"""Figures from the stored pixel counts and training histories."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.score_bins import THRESHOLD_STEPS
from results import figures
from results.metrics.background import BACKGROUND
from results.metrics.formulas import Confidence, Counts, FloatArray, auc, ece
from results.metrics.thresholds import COARSE, coarsened
from results.report.answers import arm_name, class_records
from results.report.study_figure import StudyFigure
from results.schema import metric_name
from study.report.facts import Chain, Facts

if TYPE_CHECKING:
    import pyarrow as pa

    from study.report.figures import Drawer

MAX_ARMS = 4
MAX_RUNS = 25
"""Maximum number of lines of a stage in the training curves."""
SCORES = ("val/mean_iou", "val/auc", "val/distance")


def scores_file(facts: Facts, chain: Chain) -> str | None:
    """Return the key of the scores of a replicate; None if there are none, or several and no plan."""
    digest = chain.stages[-1]
    if chain.scoring is not None:
        return chain.scoring if facts.store.scored(digest, chain.scoring) else None
    keys = facts.store.scorings(digest)
    return keys[0] if len(keys) == 1 else None


def pixel_figures(drawer: "Drawer") -> Iterator[StudyFigure]:
    """Yield ROC curves, reliability diagram and confusion matrix."""
    import pyarrow.parquet as pq

    bins: dict[str, Confidence] = {}
    classes: dict[str, dict[str, tuple[FloatArray, FloatArray]]] = {}
    confusion: tuple[str, FloatArray, list[str]] | None = None
    for cell in drawer.focus[:MAX_ARMS]:
        arm, store = arm_name(cell, drawer.factors), drawer.facts.store
        keys = [(chain.stages[-1], scores_file(drawer.facts, chain)) for chain in drawer.chains(cell)]
        images = [_test_rows(pq.read_table(store.images(digest, key))) for digest, key in keys if key]
        scores = [_test_rows(pq.read_table(store.scores(digest, key))) for digest, key in keys if key]
        if not images:
            continue
        bins[arm] = _bins(images)
        for name, histograms in _histograms(scores).items():
            classes.setdefault(name, {})[arm] = histograms
        if confusion is None and (counts := _confusion_counts(images)) is not None:
            confusion = (arm, counts, [BACKGROUND, *_foreground(scores)])
    if classes:
        yield _roc(drawer, classes)
    if bins:
        yield _reliability(drawer, bins)
    if confusion is not None and len(confusion[1]) == len(confusion[2]):
        yield _confusion_figure(drawer, *confusion)


def _reliability(drawer: "Drawer", bins: Mapping[str, Confidence]) -> StudyFigure:
    errors = ", ".join(f"{arm} {float(ece(confidence)[0]):.3f}" for arm, confidence in bins.items())
    caption = (
        "Reliability diagram: accuracy by confidence over all test pixels, with the expected calibration error (ECE). "
        "Below the dotted line the network is overconfident."
    )
    alt = f"Reliability diagram. Expected calibration error: {errors}."
    figure = figures.reliability(bins, colour_indices=drawer.colours)
    return StudyFigure(name="reliability", figure=figure, alt=alt, caption=caption)


def _roc(drawer: "Drawer", classes: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]]) -> StudyFigure:
    areas = "; ".join(
        f"{name}: " + ", ".join(f"{arm} {_area(*histograms):.3f}" for arm, histograms in arms.items())
        for name, arms in classes.items()
    )
    intervals = _areas_with_intervals(drawer)
    caption = "ROC curves of pixels by class, over all runs"
    caption += "; AUC: mean of the runs (95 % interval)." if intervals else ", with the area under the curve (AUC)."
    if any(len(positives) == THRESHOLD_STEPS for arms in classes.values() for positives, _ in arms.values()):
        caption += f" {COARSE}."
    figure = figures.roc(classes, colour_indices=drawer.colours, areas=intervals)
    return StudyFigure(name="roc", figure=figure, alt=f"ROC curves. Area under the curve, {areas}.", caption=caption)


def _areas_with_intervals(drawer: "Drawer") -> dict[str, dict[str, figures.Interval]]:
    """Return the mean AUC of the replicates with its interval, by class and arm, where it is known."""
    areas: dict[str, dict[str, figures.Interval]] = {}
    keys = (*drawer.factors, drawer.level)
    names = {tuple(cell[key] for key in keys): arm_name(cell, drawer.factors) for cell in drawer.focus}
    for record in class_records(drawer.comparisons, "auc"):
        arm = names.get(tuple(record[key] for key in keys))
        if arm is not None and record["mean"] is not None:
            interval = figures.Interval(record["mean"], record["ci_low"], record["ci_high"])
            areas.setdefault(record["class"], {})[arm] = interval
    return areas


def _confusion_figure(drawer: "Drawer", arm: str, counts: FloatArray, names: Sequence[str]) -> StudyFigure:
    recall = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    recalls = ", ".join(f"{name} {value:.0%}" for name, value in zip(names, recall, strict=True))
    caption = f"Confusion matrix of {arm}: predicted classes of the pixels of each true class; each row sums to 100 %."
    figure = figures.confusion(counts.astype(np.int64), names)
    return StudyFigure(name="confusion", figure=figure, alt=f"Confusion matrix. Recall: {recalls}.", caption=caption)


def _test_rows(table: "pa.Table") -> "pa.Table":
    import pyarrow.compute as pc

    return table.filter(pc.field("split") == "test")


def _bins(images: "Sequence[pa.Table]") -> Confidence:
    parts = {"count": "confidence_count", "total": "confidence_sum", "correct": "confidence_correct"}
    return Confidence(**{name: _summed(images, column)[None] for name, column in parts.items()})


def _summed(tables: "Sequence[pa.Table]", column: str) -> FloatArray:
    sums = [_matrix(table[column]).sum(axis=0) for table in tables if table.num_rows]
    if len({len(histogram) for histogram in sums}) > 1:  # some replicates have score histograms of an earlier version
        sums = [coarsened(histogram) for histogram in sums]
    return np.asarray(np.sum(sums, axis=0))


def _matrix(column: "pa.ChunkedArray") -> FloatArray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float64).reshape(len(column), -1)


def _histograms(scores: "Sequence[pa.Table]") -> dict[str, tuple[FloatArray, FloatArray]]:
    import pyarrow.compute as pc

    histograms = {}
    for name in _foreground(scores):
        parts = [table.filter(pc.field("class") == name) for table in scores]
        histograms[name] = (_summed(parts, "positives"), _summed(parts, "negatives"))
    return histograms


def _foreground(scores: "Sequence[pa.Table]") -> list[str]:
    return [name for name in dict.fromkeys(scores[0]["class"].to_pylist()) if name != BACKGROUND]


def _area(positives: FloatArray, negatives: FloatArray) -> float:
    none = np.zeros(1)
    counts = Counts(tp=none, fp=none, fn=none, tn=none, positives=positives[None], negatives=negatives[None])
    return float(auc(counts)[0])


def _confusion_counts(images: "Sequence[pa.Table]") -> FloatArray | None:
    tables = [table.filter(table["confusion"].is_valid()) for table in images]
    if not any(table.num_rows for table in tables):
        return None
    flat = _summed(tables, "confusion")
    return flat.reshape(math.isqrt(len(flat)), -1)


def training_figure(drawer: "Drawer") -> Iterator[StudyFigure]:
    """Yield the training curves of the best cell's chain."""
    import pyarrow.parquet as pq

    if drawer.best is None:
        return
    runs: dict[str, list[figures.History]] = {}
    scores: dict[str, str] = {}
    seen: set[str] = set()
    for chain in drawer.chains(drawer.best):
        for digest in chain.stages:
            stage = drawer.facts.stages.get(digest)
            if digest in seen or stage is None or stage.seconds is None:
                continue
            seen.add(digest)
            name = stage.name if stage.parent is None else f"{stage.name} after {_parent_name(drawer.facts, digest)}"
            if len(runs.setdefault(name, [])) < MAX_RUNS:
                table = pq.read_table(drawer.facts.store.file(digest, "history.parquet"))
                score = next((column for column in SCORES if column in table.column_names), "")
                scores[name] = scores.get(name) or metric_name(score.removeprefix("val/"))
                runs[name].append(_history(table, score))
    if runs:
        name = arm_name(drawer.best, drawer.factors)
        caption = f"Training curves of the stages of the best cell ({name}); a thin line is one run."
        ends = ", ".join(f"{stage}: {len(part)} runs" for stage, part in runs.items())
        figure = figures.training_curves(runs, scores)
        yield StudyFigure(name="training", figure=figure, alt=f"Training curves. {ends}.", caption=caption)


def _parent_name(facts: Facts, digest: str) -> str:
    parent = facts.stages.get(facts.stages[digest].parent or "")
    return parent.name if parent else "a stage"


def _history(table: "pa.Table", score: str) -> figures.History:
    epochs = table["epoch"].to_pylist()

    def points(column: str) -> list[tuple[int, float]]:
        values = table[column].to_pylist() if column in table.column_names else []
        return [(epoch, value) for epoch, value in zip(epochs, values, strict=False) if value is not None]

    return figures.History(loss=points("train/loss"), validation_loss=points("val/loss"), score=points(score))
