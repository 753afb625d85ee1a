"""One search over architecture, backbone, pathway and loss weights: killed and resumed, and what its answer claims."""

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
    # One slot: trials that run at once would see each other's results in another order.
    "resources": {"cpus": 2},
}
SPACE = {
    "target.optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "target.loss.dice": {"uniform": [0.1, 2.0]},
    "target.loss.binary_cross_entropy": {"uniform": [0.1, 2.0]},
}
TRIALS = 8


def run(folder: Path, *, kills: int) -> Path:
    """Run the study to its end, killing the driver after every other trial; return the folder of the study."""
    file = written(searched(CHANGES, scope="study", trials=TRIALS, space=SPACE), folder)
    arguments = ("run", file, "--storage", folder / "runs", "--cache", folder / "cache")
    for _ in range(kills):
        command = Command(*arguments, temporary=folder)
        command.until(lambda command=command: command.text.count("trial ") >= 2)
        command.send(signal.SIGKILL)
    command = Command(*arguments, temporary=folder)
    assert command.wait() == 0, command.text
    return Store(folder / "runs").study("searched")


def trials_of(folder: Path) -> list[dict[str, Any]]:
    columns = ("trial", "state", "value", "params")
    return [{name: row.get(name) for name in columns} for row in search_rows(folder)]


def comparisons_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "comparisons.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study that ran through, and one whose driver was killed twice."""
    return run(tmp_path_factory.mktemp("whole"), kills=0), run(tmp_path_factory.mktemp("killed"), kills=2)


def test_a_killed_joint_search_ends_with_the_same_trials(studies: tuple[Path, Path]) -> None:
    whole, killed = map(trials_of, studies)
    assert len(whole) == TRIALS
    assert killed == whole


def test_a_killed_joint_search_chooses_and_compares_the_same(studies: tuple[Path, Path]) -> None:
    whole, killed = map(comparisons_of, studies)
    assert {row["pathway"] for row in whole} >= {"none"}
    assert killed == whole


def test_the_comparisons_of_a_joint_search_claim_only_the_settings_found(studies: tuple[Path, Path]) -> None:
    compared = [row for row in comparisons_of(studies[0]) if row["difference"] is not None]
    assert {row["generalises_to"] for row in compared} == {"new training sets, at the settings found"}
