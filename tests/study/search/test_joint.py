"""A joint search over architecture, backbone, pathway and loss weights: interruption, resumption and comparisons."""

import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from study.search.table import search_rows
from study.store.store import Store
from tests.support.command import Command
from tests.support.searched import searched
from tests.support.tiny import written

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

CHANGES = {
    "compare.architecture": ["unet", "fpn"],
    "compare.backbone": ["tu-lcnet_050", "tu-lcnet_075"],
    "compare.labelled_fraction": [1.0],
    "compare.folds": 4,
    "compare.seeds": [0, 1, 2],
    "compare.top": 2,
    # One slot: concurrent trials would see each other's results in a different order.
    "resources": {"cpus": 2},
}
SPACE = {
    "target.optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "target.loss.dice": {"uniform": [0.1, 2.0]},
    "target.loss.binary_cross_entropy": {"uniform": [0.1, 2.0]},
}
TRIALS = 8


def run(folder: Path, *, kills: int) -> Path:
    """Run the study to completion, killing the driver `kills` times on the way; return the study folder."""
    file = written(searched(CHANGES, scope="study", trials=TRIALS, space=SPACE), folder)
    arguments = ("run", file, "--storage", folder / "runs", "--cache", folder / "cache")
    for _ in range(kills):
        command = Command(*arguments, temporary=folder)
        command.until(lambda command=command: command.text.count("trial ") >= 2)
        command.send(signal.SIGKILL)
    command = Command(*arguments, temporary=folder)
    assert command.wait() == 0, command.text
    return Store(folder / "runs").study("searched")


def read_trials(folder: Path) -> list[dict[str, Any]]:
    columns = ("trial", "state", "value", "params")
    return [{name: row.get(name) for name in columns} for row in search_rows(folder)]


def read_comparisons(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "comparisons.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Study folders of an uninterrupted run and of a run whose driver was killed twice."""
    return run(tmp_path_factory.mktemp("uninterrupted"), kills=0), run(tmp_path_factory.mktemp("killed"), kills=2)


def test_killed_joint_search_ends_with_the_same_trials(studies: tuple[Path, Path]) -> None:
    uninterrupted, killed = map(read_trials, studies)
    assert len(uninterrupted) == TRIALS
    assert killed == uninterrupted


def test_killed_joint_search_gives_the_same_comparisons(studies: tuple[Path, Path]) -> None:
    uninterrupted, killed = map(read_comparisons, studies)
    assert {row["pathway"] for row in uninterrupted} >= {"none"}
    assert killed == uninterrupted


def test_joint_search_comparisons_are_limited_to_the_settings_found(studies: tuple[Path, Path]) -> None:
    rows = [row for row in read_comparisons(studies[0]) if row["difference"] is not None]
    assert {row["generalises_to"] for row in rows} == {"new training sets, at the settings found"}
