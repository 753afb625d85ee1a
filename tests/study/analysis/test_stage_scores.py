"""The scores of a study's localisation stages: from its stages to a table in its folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from study.analysis.published import read_published
from study.analysis.stage_scores import read_stage_scores, write_stage_scores
from study.config.schema import Checkpoint
from study.errors import ConfigError
from study.planning.graph import Plan
from study.store.paths import STAGE_SCORES
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.tiny import planned, tiny, written

LOCATING = {
    "data.clinic.split": {"test": {"images": 4}},
    "stages.locate": {"task": "localisation", "data": "clinic", "structure": "heart", "epochs": 1},
    "pathways": {"none": ["segment"], "transferred": ["locate", "segment"]},
    "compare.seeds": [0, 1],
}


def trained(plan: Plan, storage: Path, cache: Path) -> Store:
    """Train the localisation stage of seed 0."""
    (digest,) = [node.digest for node in plan.nodes.values() if (node.step.stage, node.seed) == ("locate", 0)]
    runtime = RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0))
    run_stage(stage_job(plan, plan.nodes[digest]), runtime, WorkerContext(report=lambda _: None))
    return Store(storage)


def rows(plan: Plan, store: Store) -> dict[tuple[int, str, str], dict[str, Any]]:
    write_stage_scores(plan, store)
    table = read_stage_scores(store.study("tiny")).to_pylist()
    return {(row["seed"], row["metric"], row["split"]): row for row in table}


@pytest.fixture(name="cache", scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_table_has_every_run_with_the_scores_of_its_stage(cache: Path, tmp_path: Path) -> None:
    plan = planned(tiny(LOCATING), cache)
    store = trained(plan, tmp_path / "runs", cache)
    scores = rows(plan, store)
    digest = scores[0, "mse_pixels", "test"]["digest"]
    stored = pq.read_table(store.stage(digest) / STAGE_SCORES).to_pylist()
    assert {(row["metric"], row["split"]): row["value"] for row in stored if row["metric"] == "mse_pixels"} == {
        ("mse_pixels", split): scores[0, "mse_pixels", split]["value"] for split in ("test", "validation")
    }
    assert scores[0, "mse_pixels", "test"]["images"] >= 4
    assert scores[0, "mse_pixels", "test"]["pathway"] == "transferred"
    assert scores[1, "mse_pixels", "test"]["value"] is None
    assert scores[1, "mse_pixels", "test"]["note"] == "not finished"


def test_training_again_gives_the_same_scores(cache: Path, tmp_path: Path) -> None:
    plan = planned(tiny(LOCATING), cache)
    first, second = (rows(plan, trained(plan, tmp_path / name, cache)) for name in ("first", "second"))
    assert first == second


def test_without_a_fixed_test_set_only_validation_images_are_scored(cache: Path, tmp_path: Path) -> None:
    plan = planned(tiny(LOCATING | {"data.clinic.split": {}}), cache)
    scores = rows(plan, trained(plan, tmp_path / "runs", cache))
    assert scores[0, "mse_pixels", "validation"]["value"] > 0
    assert scores[0, "mse_pixels", "test"]["value"] is None
    assert scores[0, "mse_pixels", "test"]["note"] == "no test images: the split of its data holds none out"


def test_outdated_scores_on_changed_test_images_are_not_shown(cache: Path, tmp_path: Path) -> None:
    plan = planned(tiny(LOCATING), cache)
    store = trained(plan, tmp_path / "runs", cache)
    index = plan.views["clinic"].index
    hashes = [f"changed {content}" for content in index.annotation_digests["centres"]]
    plan.views["clinic"].index = replace(index, annotation_digests={**index.annotation_digests, "centres": hashes})
    row = rows(plan, store)[0, "mse_pixels", "test"]
    assert (row["value"], row["note"]) == (None, "scored on other test images")


def test_a_study_without_a_localisation_stage_has_no_table(cache: Path, tmp_path: Path) -> None:
    plan, store = planned(tiny(), cache), Store(tmp_path)
    write_stage_scores(plan, store)
    with pytest.raises(ConfigError, match="has no scores of stages; allowed: a study with a localisation stage"):
        read_stage_scores(store.study("tiny"))


def test_published_values_refer_to_a_localisation_stage_and_one_of_its_metrics(cache: Path, tmp_path: Path) -> None:
    section = {"source": "A paper", "metric": "mse_pixels", "stage": "locate", "values": [{"value": 206.15}]}
    file = written(tiny(LOCATING | {"published": [section | {"split": "test"}]}), tmp_path)
    (value,) = read_published(file)
    assert value.match == {"metric": "mse_pixels", "stage": "locate", "split": "test"}
    for change, problem in (
        ({"stage": "segment"}, r"published\[0\].stage: unknown localisation stage 'segment'; allowed: locate"),
        ({"metric": "dice"}, r"published\[0\].metric: unknown metric 'dice'; allowed: mse_pixels"),
    ):
        with pytest.raises(ConfigError, match=problem):
            planned(tiny(LOCATING | {"published": [section | change]}), cache)
