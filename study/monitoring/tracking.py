"""Stages as runs in TensorBoard and MLflow: their names, parameters, tags and metrics."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cluster.protocol import Listener, StageOutcome
from results.metrics.compute import measure
from study.analysis.tables import metric_settings
from study.monitoring.trackers import BackgroundWriter, MLflow, Run, RunStatus, TensorBoard, Value, Writer
from study.planning.graph import Plan
from study.store.paths import TENSORBOARD
from study.store.store import Store

FINAL = ("mean_iou", "dice")


class TrackingListener(Listener):
    """Writes a run for every stage that trains.

    A run starts with the first epoch, because another driver may hold the lease of the stage.
    """

    def __init__(self, plan: Plan, store: Store, writers: Sequence[BackgroundWriter]) -> None:
        self._plan, self._store, self._writers = plan, store, writers
        self._last: dict[str, int] = {}
        """Open runs, with their last epoch."""

    def progressed(self, digest: str, scores: Mapping[str, float]) -> None:
        """Add an epoch."""
        is_new, self._last[digest] = digest not in self._last, int(scores["epoch"])
        metrics = {key: float(value) for key, value in scores.items() if key not in ("epoch", "epochs")}
        for writer in self._writers:
            if is_new:
                writer.begin(build_run(self._plan, digest))
            writer.log(digest, self._last[digest], _defined(metrics))

    def ended(self, digest: str, outcome: StageOutcome, *, again: bool) -> None:
        """Add the final scores and close the run, unless the stage runs again."""
        if again or digest not in self._last:
            return
        final = self._final(digest) if outcome.status == "done" else {}
        statuses: Mapping[str, RunStatus] = {"done": "FINISHED", "failed": "FAILED"}
        self._close(digest, statuses.get(outcome.status, "KILLED"), final)

    def _final(self, digest: str) -> Mapping[str, float]:
        import pyarrow as pa

        try:
            return final_scores(self._plan, self._store, digest)
        except (OSError, pa.ArrowInvalid):  # the stage reports the damage; tracking must not end the study
            return {}

    def close(self) -> None:
        """Close the runs of unfinished stages, and wait until everything is written."""
        for digest in tuple(self._last):
            self._close(digest, "KILLED", {})
        for writer in self._writers:
            writer.close()

    def _close(self, digest: str, status: RunStatus, final: Mapping[str, float]) -> None:
        epoch = self._last.pop(digest)
        for writer in self._writers:
            if final:
                writer.log(digest, epoch, final)
            writer.end(digest, status)


@contextmanager
def open_tracking(plan: Plan, store: Store, say: Callable[[str], None]) -> Iterator[Listener]:
    """Yield a listener that writes to the trackers that the study file configures; `say` prints their problems."""
    settings, writers = plan.spec.tracking, list[Writer]()
    if settings.tensorboard:
        writers.append(TensorBoard(store.study(plan.spec.name) / TENSORBOARD))
    if settings.mlflow is not None:
        writers.append(MLflow(settings.mlflow, plan.spec.name))
    tracking = TrackingListener(plan, store, [BackgroundWriter(writer, say) for writer in writers])
    try:
        yield tracking
    finally:
        tracking.close()


def build_run(plan: Plan, digest: str) -> Run:
    """Return a stage as a run, named by the factors that all arms that need this stage have in common."""
    node = plan.node(digest)
    step, selection = node.step, node.selection
    users = {digest, *(user for user, stage in plan.nodes.items() if digest in stage.teachers)}
    arms = [plan.arms[replicate.arm].factors for replicate in plan.replicates if not users.isdisjoint(replicate.chain)]
    network = {"architecture": step.architecture or "", "backbone": step.backbone}
    factors = dict(arms[0].items() & _common_items(arms)) if arms else network
    levels = [factors[name] for name in (arms[0] if arms else network) if factors.get(name)]
    numbers = {"labelled": selection.labelled, "fold": selection.fold, "seed": node.seed}
    sampling = {name: f"{value:g}" for name, value in numbers.items() if value is not None}
    parts = [node.name, *levels, *(f"{name} {value}" for name, value in sampling.items()), digest[:8]]
    settings = flatten_settings(step.settings.model_dump(mode="json", by_alias=True))
    image = flatten_settings(step.image.model_dump(mode="json"), "image.")
    params = {**network, "start": node.start, **settings, **image}
    tags = {"study": plan.spec.name, "stage": step.stage, "digest": digest, **sampling, **factors}
    return Run(key=digest, name=" ".join(parts), params=params, tags=tags)


def _common_items(arms: Sequence[Mapping[str, str]]) -> set[tuple[str, str]]:
    return set.intersection(*(set(arm.items()) for arm in arms))


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Return nested settings by dotted names; None is left out, and lists become JSON."""
    flattened: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flattened |= flatten_settings(value, f"{prefix}{name}.")
        elif value is not None:
            flattened[prefix + name] = value if isinstance(value, Value) else json.dumps(value)
    return flattened


def final_scores(plan: Plan, store: Store, digest: str) -> dict[str, float]:
    """Return the headline metrics on test images, macro and by class; empty unless it is a target stage.

    If the stage is scored at several thresholds, the last one of the plan is used.
    """
    import pyarrow.parquet as pq

    scores: dict[str, float] = {}
    store.refresh(digest)
    for key in plan.scorings.get(digest, {}):
        if store.scored(digest, key):
            tables = pq.read_table(store.scores(digest, key)), pq.read_table(store.images(digest, key))
            for row in measure(*tables, metric_settings(plan.spec)).rows:
                if (
                    (row.split, row.aggregation) == ("test", "dataset")
                    and row.metric in FINAL
                    and row.value is not None
                ):
                    scores[f"test/{row.metric}" + ("" if row.class_ == "macro" else f"/{row.class_}")] = row.value
    return scores


def _defined(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not math.isnan(value)}
