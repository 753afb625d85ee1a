"""What may go of a storage, through the real command line."""

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


def left(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.glob("*/*") if path.name != ".lock"}


def gc(store: Store, *words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gc", "--storage", str(store.root), *words])
    assert ended.value.code == 0


def test_it_is_shown_and_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = left(store)
    gc(store)
    shown = capsys.readouterr().out
    assert left(store) == before
    assert f"{store.stage(LOST)}  1.0 MiB" in shown
    assert shown.endswith("3 folders, 2.0 MiB could be removed with --yes\n")


def test_what_a_study_plans_with_stays(store: Store) -> None:
    gc(store, "--yes")
    assert left(store) == {f"stages/{KEPT}", f"work/{KEPT}", "studies/one"}


def test_what_a_search_tried_stays_with_what_it_starts_from(store: Store) -> None:
    folder = store.study("one")
    journal = open_journal(folder, create=True)
    assert journal is not None
    search = optuna.create_study(storage=journal)
    search.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"chain": [LOST, "c" * 32]}))
    store.stage("c" * 32).mkdir()
    store.stage("d" * 32).mkdir()
    gc(store, "--yes")
    assert {path.name for path in (store.root / "stages").iterdir()} == {KEPT, LOST, "c" * 32}


def test_work_that_goes_on_stays(store: Store) -> None:
    with lease(store.work(LOST)):
        gc(store, "--yes")
        assert store.work(LOST).is_dir()
