"""Scores of the localisation stages of a study, as a table in its folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.settings import LocalisationSettings
from results import schema
from study.analysis.derived_cache import study_table
from study.errors import ConfigError, Problem
from study.planning.graph import Plan, PlannedStage
from study.store.atomic import write_table
from study.store.paths import STAGE_SCORES
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

UNSCORED = "trained by a version without these scores"
NOT_FINISHED = "not finished"
OTHER_IMAGES = "scored on other test images"
NO_IMAGES = {"test": "no test images: the split of its data holds none out", "validation": "no validation images"}


def write_stage_scores(plan: Plan, store: Store) -> None:
    """Write the scores of all localisation stages of the compared replicates; no file without such stages."""
    import pyarrow as pa

    rows = list(_rows(plan, store))
    if rows:
        columns = schema.stage_scores(tuple(plan.spec.compare.factors))
        folder = store.study(plan.spec.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / STAGE_SCORES, pa.Table.from_pylist(rows, schema=columns))


def _rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    names = [*schema.FACTORS, *plan.spec.compare.factors]
    arms: dict[str, dict[int, None]] = {}
    for replicate in plan.replicates:
        for digest in replicate.chain:
            if isinstance(plan.nodes[digest].step.settings, LocalisationSettings):
                arms.setdefault(digest, {})[replicate.arm] = None
    finished = store.finished()
    for digest, numbers in arms.items():
        node = plan.nodes[digest]
        # A stage that several arms share has the values of all of them.
        values = {name: dict.fromkeys(plan.arms[number].factors[name] for number in numbers) for name in names}
        shared = {
            "study": plan.spec.name, **{name: ", ".join(texts) for name, texts in values.items()},
            "stage": node.step.stage, "seed": node.seed, "fold": node.selection.fold, "digest": digest,
            "aggregation": "", "class": "",
        }  # fmt: skip
        yield from (shared | row for row in _scores(plan, store, node, is_finished=digest in finished))


def _scores(plan: Plan, store: Store, node: PlannedStage, *, is_finished: bool) -> Iterator[dict[str, Any]]:
    """Yield metric, split, value, images and note of one stage."""
    import pyarrow.parquet as pq

    file = store.stage_scores(node.digest) if is_finished else None
    stored = {(row["metric"], row["split"]): row for row in pq.read_table(file).to_pylist()} if file else {}
    view = plan.views[node.selection.data]
    validation, test = view.stage_rows(node.selection).validation, view.held_out(node.selection)
    for metric in schema.STAGE_METRICS:
        if metric == "mean_iou" and node.step.settings.target != "box":
            continue
        for split in schema.STAGE_SPLITS:
            row = stored.get((metric, split), {})
            note = ""
            if not (test.rows if split == "test" else validation):
                row, note = {}, NO_IMAGES[split]
            elif not row:
                note = UNSCORED if is_finished else NOT_FINISHED
            elif split == "test" and row["fingerprint"] != test.fingerprint:
                row, note = {}, OTHER_IMAGES
            yield {
                "metric": metric, "split": split, "value": row.get("value"), "images": row.get("images"), "note": note,
            }  # fmt: skip


def read_stage_scores(folder: Path) -> "pa.Table":
    """Return the scores of the localisation stages of a study.

    Raises:
        ConfigError: The study has no such stage, or has not run.
    """
    import pyarrow.parquet as pq

    if not os.path.lexists(folder / STAGE_SCORES):
        message = "has no scores of stages; allowed: a study with a localisation stage that has run; leave --stage out"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    return pq.read_table(study_table(folder, STAGE_SCORES))
