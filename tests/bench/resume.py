"""Cost of running a finished study again."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from models.score_bins import SCORE_BINS
from results import schema
from study.planning.graph import Plan, Replicate
from study.search.load import load_plan
from study.store.store import Store, write_scores
from tests.bench.figure import Figure, cpu_seconds_of_children, seconds

CLASS, PIXELS = "right_lung", 64 * 64


def resume(*, quick: bool) -> Iterator[Figure]:
    """Measure `study run` on a finished study of 5,000 stages (quick: 460), including tables and the figure."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        folder = Path(place)
        document = _document(seeds=5 if quick else 54)
        file, store, cache = folder / "finished.yaml", Store(folder / "runs"), folder / "cache"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        count = _finish(load_plan(document, file="finished", cache=cache), store)
        run_call, plan_call = (_command(verb, file, store.root, cache) for verb in ("run", "plan"))
        first = seconds(run_call)  # writes the tables for the first time
        repeats = range(2 if quick else 5)
        values, cpu = zip(*[_both(run_call) for _ in repeats], strict=True)
        plan = cpu_seconds_of_children(plan_call)
    name = f"resume of a finished study, {count:,} stages"
    yield Figure(name=name, unit="s", values=values, goal=10.0)
    yield Figure(name=name, unit="CPU s", values=cpu)
    yield Figure(name="the same, tables made for the first time", unit="s", values=[first])
    yield Figure(name="study plan of it", unit="CPU s", values=[plan])


def _command(verb: str, file: Path, storage: Path, cache: Path) -> Callable[[], object]:
    words = [sys.executable, "-m", "study", verb, file, "--storage", storage, "--cache", cache]
    return partial(subprocess.run, words, check=True, capture_output=True)


def _both(run_call: Callable[[], object]) -> tuple[float, float]:
    seconds_of_runs: list[float] = []
    cpu = cpu_seconds_of_children(lambda: seconds_of_runs.append(seconds(run_call)))
    return seconds_of_runs[0], cpu


def _document(*, seeds: int) -> dict[str, Any]:
    """10 fractions x 10 folds x seeds; fractions with the same images, of which there are a few, share a stage."""
    data = {"source": "phantom", "images": 60, "patients": 60, "seed": 4, "size": 64, "classes": [CLASS]}
    return {
        "name": "finished",
        "data": {"hospital": data},
        "image": {"size": 64},
        "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 1}},
        "pathways": {"none": ["segment"]},
        "compare": {
            "architecture": ["unet"], "backbone": ["resnet18"], "initial_weights": ["random"],
            "labelled_fraction": [number / 10 for number in range(1, 11)], "folds": 10,
            "seeds": list(range(seeds)), "baseline": {"pathway": "none"},
        },
    }  # fmt: skip


def _finish(plan: Plan, store: Store) -> int:
    """Publish every stage with realistic scores but without training; return the number of stages."""
    random = np.random.default_rng(0)
    for replicate in plan.replicates:
        draft = store.work(replicate.chain[-1]) / "draft"
        draft.mkdir(parents=True, exist_ok=True)
        write_scores(draft, replicate.scoring.key, *_scores(plan, replicate, random))
    for digest in plan.nodes:
        record = {"digest": digest, "stage": "segment", "updates": 1, "seconds": 1.0}
        store.publish(digest, store.work(digest) / "draft", record)
    shutil.rmtree(store.root / "work")
    return len(plan.nodes)


def _scores(plan: Plan, replicate: Replicate, random: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    index, split = plan.views[plan.target].index, plan.split(replicate)
    places = [(row, name) for name, rows in (("test", split.test), ("validation", split.validation)) for row in rows]
    scores, images = [], []
    for row, name in places:
        tp, fp, fn = (int(value) for value in random.integers(100, 1000, 3))
        positives, negatives = (random.multinomial(part, [1 / SCORE_BINS] * SCORE_BINS).tolist()
                                for part in (tp + fn, PIXELS - tp - fn))  # fmt: skip
        counts = {"tp": tp, "fp": fp, "fn": fn, "tn": PIXELS - tp - fp - fn}
        scores.append({"image": index.ids[row], "class": CLASS, "split": name, **counts, "threshold": None,
                       "positives": positives, "negatives": negatives})  # fmt: skip
        count, foreground = (
            random.multinomial(pixels, [1 / schema.CONFIDENCE_BINS] * schema.CONFIDENCE_BINS)
            for pixels in (PIXELS, tp + fp + fn)
        )
        images.append({
            "image": index.ids[row], "patient": index.patients[row], "split": name, "confusion": None,
            "confidence_count": count.tolist(), "confidence_sum": (count * 0.9).tolist(),
            "confidence_correct": (count * 9 // 10).tolist(),
            "foreground_count": foreground.tolist(), "foreground_sum": (foreground * 0.9).tolist(),
            "foreground_correct": (foreground * 9 // 10).tolist(),
        })  # fmt: skip
    return (
        pa.Table.from_pylist(scores, schema=schema.scores()),
        pa.Table.from_pylist(images, schema=schema.images()),
    )
