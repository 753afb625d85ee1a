"""Figures that need the stored pixel counts and training histories."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.score_bins import THRESHOLD_STEPS
from results import figures
from results.metrics.formulas import Array, Confidence, Counts, auc, ece
from results.metrics.thresholds import COARSE, coarsened
from results.report.answers import NAMES, arm_name
from results.report.page import Block
from study.report.facts import Chain, Facts

if TYPE_CHECKING:
    import pyarrow as pa

    from study.report.figures import Drawer

MOST_ARMS = 4
MOST_RUNS = 25
"""Lines of one stage in the training curves."""
SCORES = ("val/mean_iou", "val/auc", "val/distance")


def scores_file(facts: Facts, chain: Chain) -> str | None:
    """Return the key of a replicate's scores, None where there are none or, without a plan, several."""
    digest = chain.stages[-1]
    if chain.scoring is not None:
        return chain.scoring if facts.store.scored(digest, chain.scoring) else None
    keys = facts.store.scorings(digest)
    return keys[0] if len(keys) == 1 else None


def pixel_figures(drawer: "Drawer") -> Iterator[Block]:
    """Yield reliability diagram, ROC curves and confusion matrix."""
    import pyarrow.parquet as pq

    bins: dict[str, Confidence] = {}
    classes: dict[str, dict[str, tuple[Array, Array]]] = {}
    confused: tuple[str, Array, list[str]] | None = None
    for cell in drawer.focus[:MOST_ARMS]:
        arm, store = arm_name(cell, drawer.factors), drawer.facts.store
        keys = [(chain.stages[-1], scores_file(drawer.facts, chain)) for chain in drawer.chains(cell)]
        images = [_test(pq.read_table(store.images(digest, key))) for digest, key in keys if key]
        scores = [_test(pq.read_table(store.scores(digest, key))) for digest, key in keys if key]
        if not images:
            continue
        bins[arm] = _bins(images)
        for name, both in _histograms(scores).items():
            classes.setdefault(name, {})[arm] = both
        if confused is None and (counts := _confusion(images)) is not None:
            confused = (arm, counts, ["background", *dict.fromkeys(scores[0]["class"].to_pylist())])
    if bins:
        yield _reliability(drawer, bins)
    if classes:
        yield _roc(drawer, classes)
    if confused is not None and len(confused[1]) == len(confused[2]):
        yield _confused(drawer, *confused)


def _reliability(drawer: "Drawer", bins: Mapping[str, Confidence]) -> Block:
    told = ", ".join(f"{arm} {float(ece(one)[0]):.3f}" for arm, one in bins.items())
    caption = (
        "Is the network as sure as it is right? On the dotted line it is; below it, it is too sure. All test pixels."
    )
    alt = f"Reliability diagram. Expected calibration error: {told}."
    return drawer.picture("reliability", figures.reliability(bins, places=drawer.places), alt=alt, caption=caption)


def _roc(drawer: "Drawer", classes: Mapping[str, Mapping[str, tuple[Array, Array]]]) -> Block:
    told = "; ".join(
        f"{name}: " + ", ".join(f"{arm} {_area(*both):.3f}" for arm, both in arms.items())
        for name, arms in classes.items()
    )
    caption = (
        "ROC curves of pixels: what share of a class is found, and what share of all else is called so by mistake."
    )
    if any(len(positives) == THRESHOLD_STEPS for arms in classes.values() for positives, _ in arms.values()):
        caption += f" {COARSE}."
    figure = figures.roc(classes, places=drawer.places)
    return drawer.picture("roc", figure, alt=f"ROC curves. Area under the curve, {told}.", caption=caption, wide=True)


def _confused(drawer: "Drawer", arm: str, counts: Array, names: Sequence[str]) -> Block:
    right = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    told = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, right, strict=True))
    caption = f"What pixels of each true class were called by {arm}; each row sums to 100 %."
    figure = figures.confusion(counts.astype(np.int64), names)
    return drawer.picture("confusion", figure, alt=f"Confusion matrix. Called rightly: {told}.", caption=caption)


def _test(table: "pa.Table") -> "pa.Table":
    import pyarrow.compute as pc

    return table.filter(pc.field("split") == "test")


def _bins(images: "Sequence[pa.Table]") -> Confidence:
    parts = {"count": "confidence_count", "total": "confidence_sum", "correct": "confidence_correct"}
    return Confidence(**{name: _summed(images, column)[None] for name, column in parts.items()})


def _summed(tables: "Sequence[pa.Table]", column: str) -> Array:
    sums = [_matrix(table[column]).sum(axis=0) for table in tables if table.num_rows]
    if len({len(one) for one in sums}) > 1:  # some replicates have score histograms of an earlier version
        sums = [coarsened(one) for one in sums]
    return np.asarray(np.sum(sums, axis=0))


def _matrix(column: "pa.ChunkedArray") -> Array:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float64).reshape(len(column), -1)


def _histograms(scores: "Sequence[pa.Table]") -> dict[str, tuple[Array, Array]]:
    import pyarrow.compute as pc

    found = {}
    for name in dict.fromkeys(scores[0]["class"].to_pylist()):
        parts = [table.filter(pc.field("class") == name) for table in scores]
        found[name] = (_summed(parts, "positives"), _summed(parts, "negatives"))
    return found


def _area(positives: Array, negatives: Array) -> float:
    none = np.zeros(1)
    counts = Counts(tp=none, fp=none, fn=none, tn=none, positives=positives[None], negatives=negatives[None])
    return float(auc(counts)[0])


def _confusion(images: "Sequence[pa.Table]") -> Array | None:
    tables = [table.filter(table["confusion"].is_valid()) for table in images]
    if not any(table.num_rows for table in tables):
        return None
    flat = _summed(tables, "confusion")
    return flat.reshape(math.isqrt(len(flat)), -1)


def training_figure(drawer: "Drawer") -> Iterator[Block]:
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
            name = stage.name if stage.parent is None else f"{stage.name} after {_parent(drawer.facts, digest)}"
            if len(runs.setdefault(name, [])) < MOST_RUNS:
                table = pq.read_table(drawer.facts.store.file(digest, "history.parquet"))
                score = next((column for column in SCORES if column in table.column_names), "")
                scores[name] = scores.get(name) or _named(score)
                runs[name].append(_history(table, score))
    if runs:
        name = arm_name(drawer.best, drawer.factors)
        caption = f"How the stages of the best cell ({name}) trained; a thin line is one run."
        ends = ", ".join(f"{stage}: {len(part)} runs" for stage, part in runs.items())
        figure = figures.training_curves(runs, scores)
        yield drawer.picture("training", figure, alt=f"Training curves. {ends}.", caption=caption, wide=len(runs) > 1)


def _named(score: str) -> str:
    name = score.removeprefix("val/")
    return NAMES.get(name, name)


def _parent(facts: Facts, digest: str) -> str:
    parent = facts.stages.get(facts.stages[digest].parent or "")
    return parent.name if parent else "a stage"


def _history(table: "pa.Table", score: str) -> figures.History:
    epochs = table["epoch"].to_pylist()

    def points(column: str) -> list[tuple[int, float]]:
        values = table[column].to_pylist() if column in table.column_names else []
        return [(epoch, value) for epoch, value in zip(epochs, values, strict=False) if value is not None]

    return figures.History(loss=points("train/loss"), validation_loss=points("val/loss"), score=points(score))
