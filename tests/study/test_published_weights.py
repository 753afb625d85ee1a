"""Published weights through the command line: resolved, recorded, and kept after they changed upstream."""

import json
import shutil
from pathlib import Path

import pytest

from models.catalog.published import Content
from models.catalog.registry import published_weights
from study.cli.main import main
from study.store.pretrained import record_contents
from study.store.store import Store
from tests.support.command import histories
from tests.support.hub import local_hub, sha256, timm_weights
from tests.support.tiny import tiny, written

STUDY = tiny({
    "compare.initial_weights": ["imagenet"], "compare.pathway": ["none"], "compare.baseline": [],
    "compare.folds": 2, "stages.segment.steps": 1,
})  # fmt: skip
REPOSITORY = published_weights("tu-lcnet_050", "imagenet").repository


@pytest.mark.cluster
def test_a_study_keeps_the_content_of_its_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(written(STUDY, tmp_path))

    def study(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([words[0], file, "--cache", str(tmp_path / "cache"), *words[1:]])
        return int(ended.value.code or 0), *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert json.loads(study("plan", "--json")[1])["unresolved"][0]["stages"] == 2
    status, _, errors = study("run")
    assert status == 2
    assert "the content of main is not known; allowed: " in errors
    assert not (tmp_path / "runs" / "weights").exists()

    with local_hub() as hub:
        for name, value in hub.environment(tmp_path / "hub").items():
            monkeypatch.setenv(name, value)
        hub.commit(REPOSITORY, timm_weights("lcnet_050", 1.0))
        assert json.loads(study("plan", "--json")[1])["unresolved"] == []
        assert study("run")[0] == 0
        trained = histories(tmp_path / "runs")
        hub.commit(REPOSITORY, timm_weights("lcnet_050", 2.0))
        shutil.rmtree(tmp_path / "hub")
        hub.requests.clear()
        assert study("run")[0] == 0
        assert histories(tmp_path / "runs") == trained
        assert hub.requests == []
        assert json.loads(study("plan", "--json", "--storage", "new")[1])["stages"]["finished"] == 0
        assert len(hub.requests) > 0


@pytest.mark.parametrize("command", ["plan", "run"])
def test_altered_weights_in_the_storage_are_refused_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = published_weights("tu-lcnet_050", "imagenet")
    content = Content(sha256=sha256(b"published"), commit="1" * 40)
    storage = tmp_path / "runs"
    record_contents(Store(storage), {weights: content})
    stored = storage / "weights" / weights.key / f"{content.sha256}.safetensors"
    stored.write_bytes(b"altered")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SystemExit) as ended:
        main([command, str(written(STUDY, tmp_path)), "--cache", str(tmp_path / "cache"), "--storage", str(storage)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{stored}: was altered after it was written; allowed: files as they were written; remove it, and the next run "
        "fetches it again"
    ]
