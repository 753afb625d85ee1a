"""Dice of a study's own test images: as it was scored, and at the size of each image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.sample import Pixels, Source
from datasets.sources import open_source
from models.counts import predicted_masks
from models.tasks.base import Outputs
from results.background import BACKGROUND
from results.metrics import MetricSettings, measure
from study.choice import Choice
from study.model import Model
from study.outcome import metric_settings
from study.parse import parse
from study.predictor import Predictor
from study.spec import StudySpec
from study.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Masks = NDArray[np.bool_]
DICE = ("macro", "dice")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A test image's mean Dice over the classes it shows: as scored at `size` x `size`, and at its own size."""

    image: str
    scored: float
    original: float
    size: int
    own: tuple[int, int]

    @property
    def line(self) -> str:
        """Return it as it is told."""
        height, width = self.own
        scored = f"{self.scored:.4f} as scored at {self.size} x {self.size}"
        return f"{self.image}: Dice {scored}, {self.original:.4f} at its own {width} x {height}"


class OwnTest:
    """The target's images, and which networks of a choice they test; `found` are those that were looked at.

    Only networks that did not learn from an image answer for it, though its masks are the mean of all.
    """

    def __init__(
        self, source: Source, spec: StudySpec, choice: Choice, store: Store, models: Sequence[Model], cache: Path
    ) -> None:
        import pyarrow.parquet as pq

        self.found: list[Found] = []
        self._others = 0
        self._source, self._settings, self._choice = source, metric_settings(spec), choice
        index = source.index(cache)
        self._rows = {content: row for row, content in enumerate(index.content) if index.offers["masks"][row]}
        self._ids, self._size = index.ids, 0
        self._tested: dict[str, list[tuple[Model, float]]] = {}
        for model in models:
            places = [find(model.digest, choice.scorings[model.digest]) for find in (store.scores, store.images)]
            scores, images = (pq.read_table(place) for place in places)
            self._size = _side(scores)
            for image, value in _stored(scores, images, self._settings).items():
                self._tested.setdefault(image, []).append((model, value))

    def look(self, file: Path, pixels: Pixels) -> None:
        """Find out whether a picture is one of these, by its content, and how well it is segmented."""
        row = self._rows.get(blake2b(file.read_bytes(), digest_size=16).hexdigest())
        if row is None:
            return
        tested = self._tested.get(self._ids[row], [])
        if not tested:
            self._others += 1
            return
        truth = self._source.masks(row)
        self.found.append(Found(
            image=self._ids[row],
            scored=float(np.mean([value for _, value in tested])),
            original=float(np.mean([self._dice(model, pixels, truth) for model, _ in tested])),
            size=self._size,
            own=(pixels.shape[0], pixels.shape[1]),
        ))  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Yield a line for each image, their mean, and how many of the data could not be told of."""
        yield from (one.line for one in self.found)
        if self.found:
            scored, original = (np.mean([getattr(one, name) for one in self.found]) for name in ("scored", "original"))
            yield (
                f"mean of {len(self.found)} test images: Dice {scored:.4f} as scored, {original:.4f} at own size; "
                "each by networks that did not learn from it"
            )
        if self._others:
            yield f"no Dice of {self._others} images of the study's data: they test none of these networks"

    def told(self) -> dict[str, dict[str, float]]:
        """Return both numbers by image."""
        return {one.image: {"scored": one.scored, "original": one.original} for one in self.found}

    def _dice(self, model: Model, pixels: Pixels, truth: Pixels) -> float:
        outputs, threshold = model.outputs, self._choice.threshold(model.record)
        found = Predictor([model]).whole(pixels, *pixels.shape[:2])[None]
        masks = predicted_masks(found, exclusive=outputs.exclusive, threshold=threshold)[0].numpy()
        goals = truth == np.arange(1, len(masks) + 1)[:, None, None] if outputs.exclusive else truth > 0
        return mean_dice(_named(masks, outputs), _named(goals, outputs), self._settings)


def own_test(choice: Choice, store: Store, models: Sequence[Model], cache: Path) -> OwnTest | None:
    """Open the target of the study; None where no study scored these networks, or its data are not here."""
    spec = parse(dict(choice.spec))[0] if choice.study is not None else None
    settings = spec.data.get(models[0].record["settings"]["data"]) if spec is not None else None
    if spec is None or settings is None:
        return None
    try:
        return OwnTest(open_source(settings), spec, choice, store, models, cache)
    except (DataError, OSError):
        return None


def mean_dice(masks: Mapping[str, Masks], truth: Mapping[str, Masks], settings: MetricSettings) -> float:
    """Return the mean Dice over the scored classes that the truth shows; NaN where it shows none."""
    wanted = set(settings.classes or truth) - {BACKGROUND} | ({BACKGROUND} if settings.background else set())
    shown = [name for name, goal in truth.items() if name in wanted and goal.any()]
    dice = [2 * (masks[one] & truth[one]).sum() / (masks[one].sum() + truth[one].sum()) for one in shown]
    return float(np.mean(dice)) if dice else float("nan")


def _named(masks: Masks, outputs: Outputs) -> dict[str, Masks]:
    named = dict(zip(outputs.names, masks, strict=True))
    return named | ({BACKGROUND: ~masks.any(axis=0)} if outputs.exclusive else {})


def _stored(scores: "pa.Table", images: "pa.Table", settings: MetricSettings) -> dict[str, float]:
    """Return the mean Dice of every test image that shows a class."""
    for part in measure(scores, images, settings).images:
        if part.split == "test":
            values = part.values[:, part.series.index(DICE)]
            return {
                image: float(value) for image, value in zip(part.images, values, strict=True) if not np.isnan(value)
            }
    return {}


def _side(scores: "pa.Table") -> int:
    row = scores.slice(0, 1).to_pylist()[0]
    return math.isqrt(sum(row[name] for name in ("tp", "fp", "fn", "tn")))
