"""Scores of the background as a separate class, for tables of earlier versions, which have only its confusion."""

from typing import TYPE_CHECKING

import numpy as np

from models.score_bins import SCORE_BINS

if TYPE_CHECKING:
    import pyarrow as pa

BACKGROUND = "background"


def with_background(scores: "pa.Table", images: "pa.Table") -> "pa.Table":
    """Return the scores with a background row per image; its score histogram is unknown, so it has no AUC.

    Overlapping classes have no background: their scores are returned unchanged.
    """
    import pyarrow as pa

    bins = len(scores["positives"][0]) if scores.num_rows else SCORE_BINS
    empty = [0] * bins  # as many bins as the other classes, which earlier versions stored with fewer
    rows = []
    columns = [images[name].to_pylist() for name in ("image", "split", "confusion")]
    for image, split, confusion in zip(*columns, strict=True):
        if confusion is None:
            return scores
        side = round(len(confusion) ** 0.5)
        pixels = np.asarray(confusion).reshape(side, side)
        tp = int(pixels[0, 0])
        fp, fn = int(pixels[:, 0].sum()) - tp, int(pixels[0].sum()) - tp
        counts = {"tp": tp, "fp": fp, "fn": fn, "tn": int(pixels.sum()) - tp - fp - fn}
        key = {"image": image, "class": BACKGROUND, "split": split}
        rows.append({**key, **counts, "positives": empty, "negatives": empty})
    return pa.concat_tables([scores, pa.Table.from_pylist(rows, schema=scores.schema)])
