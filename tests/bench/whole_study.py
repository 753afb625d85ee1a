"""A complete study compared with a user's scripts: segmentation-models-pytorch with Ray Tune or Optuna."""

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from study.config.document import Document
from study.store.store import Store
from tests.bench.chest import chest_images, chest_study, script_study, shrunk
from tests.bench.figure import Figure, against_best, ratio
from tests.bench.process import Cost, watched

PLATFORM = "study"
CORES = os.cpu_count() or 1
PLAIN = "Optuna, a process a core"
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "Ray Tune, actors reused": ("tune_script", "--reuse-actors"),
    "Ray Tune": ("tune_script",),
    PLAIN: ("optuna_script", "--processes", str(CORES)),
    "Optuna, one process": ("optuna_script", "--workers", str(CORES)),
}
USUAL = ("Ray Tune, actors reused", PLAIN)
SHORT: dict[str, Any] = {
    "compare.labelled_fraction": [1.0],
    **{f"stages.{name}.epochs": 1 for name in ("classify", "encode", "boxes", "segment")},
}
ONE_EPOCH = "small PNGs, one epoch"
GROWTH = ((2, (0.25, 0.5, 1.0)), (4, (0.25, 1.0)))
"""Folds and fractions of further short studies."""
ROUNDS = 3
REAL_SECONDS, SMALL_SECONDS = 1100.0, 800.0
"""Time in seconds within which further rounds of a comparison end."""


def whole_study(*, quick: bool) -> Iterator[Figure]:
    """Measure the study of the goals on real images and on small ones.

    First shorter studies: all scripts on one of two folds and one fraction, then more folds and fractions.
    """
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        folder = Path(place)
        images = chest_images(folder / "made")
        small = shrunk(images, folder / "small")
        scripts = (PLAIN,) if quick else tuple(SCRIPTS)
        better = yield from _compared(ONE_EPOCH, _Sides(folder, chest_study(small, SHORT)), scripts=scripts)
        if quick:
            return
        for folds, fractions in GROWTH:
            changes = SHORT | {"compare.folds": folds, "compare.labelled_fraction": list(fractions)}
            what = f"{ONE_EPOCH}, {folds} folds, {len(fractions)} fractions"
            yield from _compared(what, _Sides(folder, chest_study(small, changes)), scripts=(better,))
        real_sides = _Sides(folder, chest_study(images))
        yield from _compared("image files", real_sides, rounds=ROUNDS, within=REAL_SECONDS, goal=3.0)
        small_sides = _Sides(folder, chest_study(small))
        yield from _compared("small PNGs", small_sides, rounds=ROUNDS, within=SMALL_SECONDS, share=0.9)


class _Sides:
    """The study and the scripts as commands; each run has a new storage and cache."""

    def __init__(self, folder: Path, document: Document) -> None:
        self._folder, self._runs = Path(tempfile.mkdtemp(dir=folder)), 0
        self._file, self._hand = self._folder / "chest.yaml", self._folder / "by-hand.json"
        self._file.write_text(yaml.safe_dump(document), encoding="utf-8")
        self._hand.write_text(json.dumps(script_study(document, self._folder / "cache")), encoding="utf-8")
        self.stages: list[_Stages] = []
        """Stages of each run of the study."""
        self.scores: dict[str, float] = {}

    def platform(self) -> Cost:
        """Plan and run the study with an empty cache."""
        place = self._next()
        store = Store(place / "runs")
        log = place / "log"
        cost = watched("study", "run", self._file, "--storage", store.root, "--cache", place / "cache", log=log)
        rows = pq.read_table(store.study("chest") / "results.parquet").to_pylist()
        headline = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "mean_iou"}
        chosen = [row["value"] for row in rows if headline.items() <= row.items()]
        self.scores[PLATFORM] = statistics.fmean(chosen)
        self.stages.append(_Stages(store))
        return cost

    def script(self, name: str) -> Cost:
        """Run one of the scripts."""
        place = self._next()
        file, *options = SCRIPTS[name]
        cost = watched(f"tests.bench.scripts.{file}", self._hand, place / "out.json", *options, log=place / "log")
        self.scores[name] = statistics.fmean(row["mean_iou"] for row in json.loads((place / "out.json").read_text()))
        return cost

    def _next(self) -> Path:
        self._runs += 1
        place = self._folder / str(self._runs)
        place.mkdir()
        return place


def _compared(
    what: str, sides: _Sides, *, rounds: int = 1, within: float = 0.0, scripts: Sequence[str] = USUAL,
    goal: float | None = None, share: float | None = None,
) -> Generator[Figure, None, str]:  # fmt: skip
    """Run all sides once, and in further rounds the study and the best script, which is returned."""
    calls: dict[str, Callable[[], Cost]] = {PLATFORM: sides.platform}
    calls |= {name: partial(sides.script, name) for name in scripts}
    best, costs = against_best(PLATFORM, calls, rounds, within=within, length=lambda cost: cost.seconds)
    yield from _figures(what, costs, best, sides.stages, goal=goal, share=share)
    yield from (
        Figure(name=f"{what}: mean IoU, {name}", unit="", values=[score], better="higher")
        for name, score in sides.scores.items()
    )
    return best


def _figures(
    what: str, costs: Mapping[str, list[Cost]], best: str, stages: list["_Stages"], *, goal: float | None,
    share: float | None,
) -> Iterator[Figure]:  # fmt: skip
    platform_seconds = [cost.seconds for cost in costs[PLATFORM]]
    before = [entry.first - cost.began for entry, cost in zip(stages, costs[PLATFORM], strict=True)]
    after = [cost.began + cost.seconds - entry.last for entry, cost in zip(stages, costs[PLATFORM], strict=True)]
    busy = [entry.unique / CORES for entry in stages]
    saved = [entry.naive / entry.unique for entry in stages]
    why = _why(*map(statistics.median, (platform_seconds, before, busy, after, saved)))
    faster = ratio(
        f"{what}: study against {best}", [cost.seconds for cost in costs[best]], platform_seconds, goal, why=why
    )
    yield faster
    yield Figure(name=f"{what}: naive / unique stage seconds", unit="ratio", values=saved, better="higher")
    kept_share = [value / possible for value, possible in zip(faster.values, saved, strict=True)]
    yield Figure(
        name=f"{what}: share of that ratio", unit="ratio", values=kept_share, better="higher", goal=share, why=why
    )
    for name, runs in costs.items():
        yield Figure(name=f"{what}: {name}", unit="s", values=[cost.seconds for cost in runs])
        yield Figure(name=f"{what}: {name}", unit="CPU s", values=[cost.cpu for cost in runs])
        yield Figure(name=f"{what}: {name}", unit="MiB", values=[cost.memory for cost in runs])
    yield Figure(name=f"{what}: study, before its first stage", unit="s", values=before)
    yield Figure(name=f"{what}: study, stage seconds / cores", unit="s", values=busy)
    yield Figure(name=f"{what}: study, after its last stage", unit="s", values=after)


def _why(total: float, before: float, busy: float, after: float, saved: float) -> str:
    """Describe the seconds of a study other than training."""
    training = total - before - after
    return (
        f"of {total:.1f} s, {before:.1f} pass before its first stage (data read, Ray and its processes started) and "
        f"{after:.1f} after its last; between, stages hold {busy / training:.0%} of the cores. That each is "
        f"trained once and not in every chain makes a factor of {saved:.2f}"
    )


class _Stages:
    """Seconds of the stages of a finished study: each once, and if every replicate trained its entire chain."""

    def __init__(self, store: Store) -> None:
        records = {digest: store.record(digest) for digest in store.finished()}
        targets = [digest for digest in records if any(store.stage(digest).glob("scores-*"))]
        self.unique = sum(record["seconds"] for record in records.values())
        self.naive = 0.0
        for digest in targets:
            at: str | None = digest
            while at is not None:
                self.naive, at = self.naive + records[at]["seconds"], records[at]["parent"]
        ends = {digest: (store.stage(digest) / "stage.yaml").stat().st_mtime for digest in records}
        self.first = min(ends[digest] - records[digest]["seconds"] for digest in records)
        self.last = max(ends.values())
