"""Stages of two workers through the real command line."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.store.store import Store
from tests.support.command import Command
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
SHORT = {
    "compare.pathway": ["one_step"], "compare.baseline": [], "stages.classify.epochs": 1, "stages.segment.steps": 2,
}  # fmt: skip


def run_study(folder: Path, name: str, *options: str) -> Path:
    file, storage = written(tiny(SHORT), folder / name), folder / name / "runs"
    command = Command("run", file, "--storage", storage, "--cache", folder / "cache", *options, temporary=folder)
    command.until(lambda: False, may_end=True)
    assert command.process.wait() == 0, command.text
    return storage


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("workers")
    return run_study(folder, "one"), run_study(folder, "two", "--set", "resources.workers=2")


def test_two_workers_publish_the_stages_of_one_worker(storages: tuple[Path, Path]) -> None:
    first, second = (Store(storage).finished() for storage in storages)
    assert first == second
    assert len(first) == 3
    assert not list((storages[1] / "work").glob("*/*"))


def test_two_workers_train_like_one_and_score_the_same_images(storages: tuple[Path, Path]) -> None:
    """Sums are added in another order, and Adam's first updates are as large for a rounding error as for a gradient."""
    first, second = (_losses(Store(storage)) for storage in storages)
    assert first.keys() == second.keys()
    for digest, losses in first.items():
        assert second[digest] == pytest.approx(losses, rel=0.02)
    first, second = (
        pq.read_table(storage / "studies" / "tiny" / "results.parquet").to_pandas() for storage in storages
    )
    assert len(first) > 100
    assert first.drop(columns="value").equals(second.drop(columns="value"))
    overall = (first["metric"] == "mean_iou") & (first["class"] == "macro")
    assert overall.sum() >= 4
    assert (first["value"] - second["value"])[overall].abs().max() < 0.05


def _losses(store: Store) -> dict[str, list[float]]:
    tables = {digest: pq.read_table(store.stage(digest) / "history.parquet") for digest in store.finished()}
    return {digest: table["train/loss"].to_pylist() + table["val/loss"].to_pylist() for digest, table in tables.items()}


def test_a_machine_too_small_for_the_workers_is_refused(tmp_path: Path) -> None:
    file = written(tiny(SHORT), tmp_path)
    command = Command("run", file, "--storage", tmp_path / "runs", "--cache", tmp_path / "cache", "--set",
                      "resources.workers=4", "--set", "resources.cpus=64", temporary=tmp_path)  # fmt: skip
    command.until(lambda: False, may_end=True)
    assert command.process.wait() == 2
    assert "resources.cpus: is 64 for each of 4 workers and this machine has" in command.text
