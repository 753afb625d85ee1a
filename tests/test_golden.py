"""Digests are unchanged, and a storage written by an earlier version is resumed without training."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.cli.main import main
from tests.golden.write import DIGESTS, FINISHED, GOLDEN, PLANNED, catalog_plan, digests
from tests.support.command import histories
from tests.support.tiny import written

TABLES = ("results.parquet", "comparisons.parquet", "tests.parquet")


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_digests_of_the_catalog_are_unchanged(name: str, tmp_path: Path) -> None:
    golden = json.loads(DIGESTS.read_text(encoding="utf-8"))
    assert digests(catalog_plan(name, tmp_path)) == golden[name]


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_study_is_resumed_without_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    storage = tmp_path / "runs"
    folder = storage / "studies" / name
    tables, trained = {table: pq.read_table(folder / table) for table in TABLES}, histories(storage)
    for path in (*(folder / table for table in TABLES), folder / ".measured.parquet"):
        path.unlink()  # derived: computed again from the stages
    with pytest.raises(SystemExit) as ended:
        main(["run", str(written(FINISHED[name](), tmp_path)), "--storage", "runs", "--cache", "cache"])
    assert not ended.value.code, capsys.readouterr().err
    assert histories(storage) == trained
    for table, values in tables.items():  # later versions may add columns and metrics
        metrics = sorted(set(values["metric"].to_pylist()))
        derived = pq.read_table(folder / table, columns=values.column_names, filters=[("metric", "in", metrics)])
        assert repr(derived.to_pylist()) == repr(values.to_pylist()), table  # nan equals nan
