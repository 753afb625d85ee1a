"""Garbage collection of a storage, through the real command line."""

import json
from pathlib import Path

import optuna
import pytest

from study.cli.main import main
from study.search.journal import open_journal
from study.store.lease import lease
from study.store.store import Store

KEPT, LOST = "a" * 32, "b" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for digest in (KEPT, LOST):
        for folder in (store.stage(digest), store.work(digest)):
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"x" * 2**20)
    (tmp_path / "damaged" / f"{KEPT}-1").mkdir(parents=True)
    store.study("one").mkdir(parents=True)
    (store.study("one") / "plan.json").write_text(json.dumps({"stages": {KEPT: "segment"}}))
    return store


def remaining(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.glob("*/*") if path.name != ".lock"}


def gc(store: Store, *words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gc", "--storage", str(store.root), *words])
    assert ended.value.code == 0


def test_a_dry_run_lists_garbage_and_removes_nothing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = remaining(store)
    gc(store)
    output = capsys.readouterr().out
    assert remaining(store) == before
    assert f"{store.stage(LOST)}  1.0 MiB" in output
    assert output.endswith("3 folders, 2.0 MiB could be removed with --yes\n")


def test_stages_planned_by_a_study_are_kept(store: Store) -> None:
    gc(store, "--yes")
    assert remaining(store) == {f"stages/{KEPT}", f"work/{KEPT}", "studies/one"}


def test_stages_tried_by_a_search_are_kept_with_their_ancestors(store: Store) -> None:
    folder = store.study("one")
    journal = open_journal(folder, create=True)
    assert journal is not None
    search = optuna.create_study(storage=journal)
    search.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"chain": [LOST, "c" * 32]}))
    store.stage("c" * 32).mkdir()
    store.stage("d" * 32).mkdir()
    gc(store, "--yes")
    assert {path.name for path in (store.root / "stages").iterdir()} == {KEPT, LOST, "c" * 32}


def test_folders_of_running_work_are_kept(store: Store) -> None:
    with lease(store.work(LOST)):
        gc(store, "--yes")
        assert store.work(LOST).is_dir()
