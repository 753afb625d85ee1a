"""A whole study against the scripts that a user would write: segmentation-models-pytorch under Ray Tune or Optuna."""

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

from study.document import Document
from study.store import Store
from tests.bench.chest import by_hand, chest_images, chest_study, shrunk
from tests.bench.figure import Figure, interleaved, ratio
from tests.bench.process import Cost, watched

PLATFORM = "study"
CORES = os.cpu_count() or 1
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "Ray Tune, actors reused": ("tune_script", "--reuse-actors"),
    "Ray Tune": ("tune_script",),
    "Optuna, a process a core": ("optuna_script", "--processes", str(CORES)),
    "Optuna, one process": ("optuna_script", "--workers", str(CORES)),
}
USUAL = ("Ray Tune, actors reused", "Optuna, a process a core")
SHORT: dict[str, Any] = {
    "compare.labelled_fraction": [1.0],
    **{f"stages.{name}.epochs": 1 for name in ("classify", "encode", "boxes", "segment")},
}
GROWTH = ((2, (1.0,)), (2, (0.25, 0.5, 1.0)), (4, (0.25, 1.0)))
"""Folds and fractions of further studies."""


def whole_study(*, quick: bool) -> Iterator[Figure]:
    """Measure the study of the goals on real images, on small ones, and with more folds and fractions."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        folder = Path(place)
        images = chest_images(folder / "made")
        small = shrunk(images, folder / "small")
        if quick:
            yield from _compared("small PNGs", _Sides(folder, chest_study(small, SHORT)), rounds=1, scripts=USUAL)
            return
        real = _Sides(folder, chest_study(images))
        yield from _compared("image files", real, rounds=3, goal=3.0)
        better = yield from _compared("small PNGs", _Sides(folder, chest_study(small)), rounds=3)
        for folds, fractions in GROWTH:
            changes = {"compare.folds": folds, "compare.labelled_fraction": list(fractions)}
            what = f"small PNGs, {folds} folds, {len(fractions)} fractions"
            yield from _compared(what, _Sides(folder, chest_study(small, changes)), rounds=1, scripts=(better,))


class _Sides:
    """The study and the scripts as commands; each run has a storage and a cache of its own."""

    def __init__(self, folder: Path, document: Document) -> None:
        self._folder, self._runs = Path(tempfile.mkdtemp(dir=folder)), 0
        self._file, self._hand = self._folder / "chest.yaml", self._folder / "by-hand.json"
        self._file.write_text(yaml.safe_dump(document), encoding="utf-8")
        self._hand.write_text(json.dumps(by_hand(document, self._folder / "cache")), encoding="utf-8")
        self.store = Store(self._folder)
        self.scores: dict[str, float] = {}

    def platform(self) -> Cost:
        """Plan and run the study, nothing prepared."""
        place = self._next()
        self.store = Store(place / "runs")
        log = place / "log"
        cost = watched("study", "run", self._file, "--storage", self.store.root, "--cache", place / "cache", log=log)
        rows = pq.read_table(self.store.study("chest") / "results.parquet").to_pylist()
        headline = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "mean_iou"}
        chosen = [row["value"] for row in rows if headline.items() <= row.items()]
        self.scores[PLATFORM] = statistics.fmean(chosen)
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
    what: str, sides: _Sides, *, rounds: int, scripts: Sequence[str] = tuple(SCRIPTS), goal: float | None = None
) -> Generator[Figure, None, str]:
    """Run all sides once, and in further rounds the study and the best script, which is returned."""
    calls: dict[str, Callable[[], Cost]] = {PLATFORM: sides.platform}
    calls |= {name: partial(sides.script, name) for name in scripts}
    costs = interleaved(calls, 1)
    shares = [_Stages(sides.store)]
    best = min(scripts, key=lambda name: costs[name][0].seconds)
    for _ in range(rounds - 1):
        for name, more in interleaved({name: calls[name] for name in (PLATFORM, best)}, 1).items():
            costs[name] += more
        shares.append(_Stages(sides.store))
    yield from _figures(what, costs, best, shares, goal)
    yield from (
        Figure(name=f"{what}: mean IoU, {name}", unit="", values=[score], better="higher")
        for name, score in sides.scores.items()
    )
    return best


def _figures(
    what: str, costs: Mapping[str, list[Cost]], best: str, stages: list["_Stages"], goal: float | None
) -> Iterator[Figure]:
    own = [cost.seconds for cost in costs[PLATFORM]]
    faster = ratio(f"{what}: study against {best}", [cost.seconds for cost in costs[best]], own, goal)
    yield faster
    saved = [one.naive / one.unique for one in stages]
    yield Figure(name=f"{what}: naive / unique stage seconds", unit="ratio", values=saved, better="higher")
    kept_share = [value / possible for value, possible in zip(faster.values, saved, strict=True)]
    yield Figure(name=f"{what}: share of that ratio", unit="ratio", values=kept_share, better="higher",
                 goal=0.9 if goal is None else None)  # fmt: skip
    for name, runs in costs.items():
        yield Figure(name=f"{what}: {name}", unit="s", values=[cost.seconds for cost in runs])
        yield Figure(name=f"{what}: {name}", unit="CPU s", values=[cost.cpu for cost in runs])
        yield Figure(name=f"{what}: {name}", unit="MiB", values=[cost.memory for cost in runs])
    before = [one.first - cost.began for one, cost in zip(stages, costs[PLATFORM], strict=True)]
    after = [cost.began + cost.seconds - one.last for one, cost in zip(stages, costs[PLATFORM], strict=True)]
    busy = [one.unique / CORES for one in stages]
    yield Figure(name=f"{what}: study, before its first stage", unit="s", values=before)
    yield Figure(name=f"{what}: study, stage seconds / cores", unit="s", values=busy)
    yield Figure(name=f"{what}: study, after its last stage", unit="s", values=after)


class _Stages:
    """What the stages of a finished study took: each once, and if every replicate trained its whole chain."""

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
