"""Stored tables of finished stages, and replicates of one arm, of any size, without a study."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.score_bins import SCORE_EDGES
from results import schema

PIXELS = 600
NAMES = ("left", "right", "effusion", "absent")
BOUNDS = (0, *SCORE_EDGES, 2)
Masks = tuple[NDArray[np.bool_], NDArray[np.float64]]
Stored = tuple[pa.Table, pa.Table]


def truth_and_scores(images: int = 5, names: int = 4) -> Masks:
    random = np.random.default_rng(0)
    truth = random.random((images, names, PIXELS)) < np.linspace(0.5, 0.1, names)[:, None]
    truth[:, -1] = False
    truth[1:, 2] = False
    scores = np.clip(0.2 * truth + 0.8 * random.random(truth.shape), 0, 0.9999)
    return truth, (np.floor(scores * 200) + 0.5) / 200


def stage(
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    names: Sequence[str] = NAMES,
    splits: Sequence[str] = ("test",),
) -> Stored:
    """Write the tables that a finished stage stores."""
    decided = scores >= 0.5
    rows, image_rows = [], []
    for split, image in product(splits, range(len(truth))):
        for index, name in enumerate(names):
            t, s, d = truth[image, index], scores[image, index], decided[image, index]
            counts = [int(x.sum()) for x in (t & d, ~t & d, t & ~d, ~t & ~d)]
            histograms = [np.histogram(s[chosen], BOUNDS)[0] for chosen in (t, ~t)]
            sums = np.histogram(s, 20, (0, 1), weights=s)[0]
            rows.append([str(image), name, split, *counts, *histograms, None, sums])
        sure = np.maximum(scores[image], 1 - scores[image]).ravel()
        correct = (truth[image] == decided[image]).ravel()
        everything, foreground = np.ones_like(correct), (truth[image] | decided[image]).ravel()
        bins = [
            np.histogram(sure[chosen], 20, (0, 1), weights=weights[chosen])[0]
            for chosen in (everything, foreground)
            for weights in (np.ones(len(sure), np.int64), sure, correct.astype(int))
        ]
        image_rows.append([str(image), f"p/{image}", split, *bins, None])
    return tabled(rows, schema.scores()), tabled(image_rows, schema.images())


def tabled(rows: list[list[object]], columns: pa.Schema) -> pa.Table:
    """Return rows as a table; missing columns are null."""
    missing = [None] * (len(columns) - len(rows[0]))
    pairs = zip(zip(*([*row, *missing] for row in rows), strict=True), columns, strict=True)
    return pa.table([pa.array(list(column), field.type) for column, field in pairs], schema=columns)


def replicate(number: int, further: Mapping[str, str] | None = None) -> schema.ReplicateRecord:
    return schema.ReplicateRecord(
        factors={"architecture": "unet", "backbone": "vgg16", "initial_weights": "random", "pathway": "none"}
        | dict(further or {}),
        labelled_fraction=0.5,
        labelled_images=8,
        updates=100,
        fold=number % 5,
        seed=number // 5,
        digest=f"d{number}",
    )
