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


def ran(folder: Path, name: str, *options: str) -> Path:
    file, storage = written(tiny(SHORT), folder / name), folder / name / "runs"
    command = Command("run", file, "--storage", storage, "--cache", folder / "cache", *options, temporary=folder)
    command.until(lambda: False, may_end=True)
    assert command.process.wait() == 0, command.text
    return storage


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("workers")
    return ran(folder, "one"), ran(folder, "two", "--set", "resources.workers=2")


def test_two_workers_publish_the_stages_of_one(storages: tuple[Path, Path]) -> None:
    one, two = (Store(storage).finished() for storage in storages)
    assert one == two
    assert len(one) == 3
    assert not list((storages[1] / "work").glob("*/*"))


def test_two_workers_learn_as_one_and_score_the_same_images(storages: tuple[Path, Path]) -> None:
    """Sums are added up in another order, and Adam's first updates are as large for a rounding as for a gradient."""
    one, two = (_losses(Store(storage)) for storage in storages)
    assert one.keys() == two.keys()
    for digest, losses in one.items():
        assert two[digest] == pytest.approx(losses, rel=0.02)
    one, two = (pq.read_table(storage / "studies" / "tiny" / "results.parquet").to_pandas() for storage in storages)
    assert len(one) > 100
    assert one.drop(columns="value").equals(two.drop(columns="value"))
    overall = (one["metric"] == "mean_iou") & (one["class"] == "macro")
    assert overall.sum() >= 4
    assert (one["value"] - two["value"])[overall].abs().max() < 0.05


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
