"""Stages as runs in TensorBoard and MLflow: what they are called, what is told of them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cluster.protocol import Listener, StageOutcome
from results.metrics.compute import measure
from study.analysis.tables import metric_settings
from study.monitoring.display import Display
from study.monitoring.trackers import Background, Ending, MLflow, Run, TensorBoard, Value, Writer
from study.planning.graph import Plan
from study.store.paths import TENSORBOARD
from study.store.store import Store

FINAL = ("mean_iou", "dice")


class Tracked:
    """A listener that passes on what it hears, and keeps a run of every stage that trains."""

    def __init__(self, listener: Listener, plan: Plan, store: Store, writers: Sequence[Background]) -> None:
        self._listener, self._plan, self._store, self._writers = listener, plan, store, writers
        self._last: dict[str, int] = {}
        """Open runs, with the last epoch heard of."""

    def started(self, name: str) -> None:
        """Pass on; the run begins with its first epoch, because another driver may hold the stage."""
        self._listener.started(name)

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Add an epoch."""
        self._listener.progressed(name, scores)
        new, self._last[name] = name not in self._last, int(scores["epoch"])
        metrics = {key: float(value) for key, value in scores.items() if key not in ("epoch", "epochs")}
        for writer in self._writers:
            if new:
                writer.begin(run_of(self._plan, name))
            writer.log(name, self._last[name], _defined(metrics))

    def lost(self, name: str, why: str) -> None:
        """Pass on; the run goes on with the stage."""
        self._listener.lost(name, why)

    def stranded(self) -> None:
        """Pass on."""
        self._listener.stranded()

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """Add the final scores and close the run, unless the stage runs once more."""
        self._listener.ended(name, outcome, again=again)
        if again or name not in self._last:
            return
        final = self._final(name) if outcome.status == "done" else {}
        endings: Mapping[str, Ending] = {"done": "FINISHED", "failed": "FAILED"}
        self._close(name, endings.get(outcome.status, "KILLED"), final)

    def _final(self, name: str) -> Mapping[str, float]:
        import pyarrow as pa

        try:
            return final_scores(self._plan, self._store, name)
        except (OSError, pa.ArrowInvalid):  # the outcome will tell; no tracking ends a study
            return {}

    def close(self) -> None:
        """End the runs of stages that the driver leaves unfinished, and wait until all is written."""
        for name in tuple(self._last):
            self._close(name, "KILLED", {})
        for writer in self._writers:
            writer.close()

    def _close(self, name: str, ending: Ending, final: Mapping[str, float]) -> None:
        epoch = self._last.pop(name)
        for writer in self._writers:
            if final:
                writer.log(name, epoch, final)
            writer.end(name, ending)


@contextmanager
def tracked(display: Display, plan: Plan, store: Store) -> Iterator[Listener]:
    """Yield the listener of a study: the display, and the runs that its file asks for."""
    wanted, writers = plan.spec.tracking, list[Writer]()
    if wanted.tensorboard:
        writers.append(TensorBoard(store.study(plan.spec.name) / TENSORBOARD))
    if wanted.mlflow is not None:
        writers.append(MLflow(wanted.mlflow, plan.spec.name))
    if not writers:
        yield display
        return
    listener = Tracked(display, plan, store, [Background(writer, display.line) for writer in writers])
    try:
        yield listener
    finally:
        listener.close()


def run_of(plan: Plan, digest: str) -> Run:
    """Return a stage as a run, named by what the arms have in common that share it."""
    node = plan.node(digest)
    step, draw = node.step, node.draw
    arms = [plan.arms[one.arm].factors for one in plan.replicates if digest in one.chain]
    network = {"architecture": step.architecture or "", "backbone": step.backbone}
    factors = dict(arms[0].items() & _all_of(arms)) if arms else network
    named = [factors[name] for name in (arms[0] if arms else network) if factors.get(name)]
    told = {"labelled": draw.labelled, "fold": draw.fold, "seed": node.seed}
    places = {name: f"{value:g}" for name, value in told.items() if value is not None}
    words = [step.stage, *named, *(f"{name} {value}" for name, value in places.items()), digest[:8]]
    settings = step.settings.model_dump(mode="json", by_alias=True)
    params = {**network, "start": node.start, **flat(settings), **flat(step.image.model_dump(mode="json"), "image.")}
    tags = {"study": plan.spec.name, "stage": step.stage, "digest": digest, **places, **factors}
    return Run(key=digest, name=" ".join(words), params=params, tags=tags)


def _all_of(arms: Sequence[Mapping[str, str]]) -> set[tuple[str, str]]:
    return set.intersection(*(set(arm.items()) for arm in arms))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Return nested settings by dotted names, without those that are not set; lists as JSON."""
    found: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value if isinstance(value, Value) else json.dumps(value)
    return found


def final_scores(plan: Plan, store: Store, digest: str) -> dict[str, float]:
    """Return the headline metrics of a target stage on test images, and those of each class; else nothing.

    With several thresholds the last one of the plan tells.
    """
    import pyarrow.parquet as pq

    found: dict[str, float] = {}
    if store.mirror is not None:
        store.mirror.refresh(digest)
    for key in plan.scorings.get(digest, {}):
        if store.scored(digest, key):
            tables = pq.read_table(store.scores(digest, key)), pq.read_table(store.images(digest, key))
            for row in measure(*tables, metric_settings(plan.spec)).rows:
                if (
                    (row.split, row.aggregation) == ("test", "dataset")
                    and row.metric in FINAL
                    and row.value is not None
                ):
                    found[f"test/{row.metric}" + ("" if row.class_ == "macro" else f"/{row.class_}")] = row.value
    return found


def _defined(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not math.isnan(value)}
