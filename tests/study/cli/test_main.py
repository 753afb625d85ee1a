"""The commands before a run: catalog, init, schema, plan; and what they may import."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from study.cli.main import main
from tests.support.documents import base, write_study
from tests.support.folder import write_folder

ROOT = Path(__file__).parents[3]
HEAVY = (
    "torch",
    "ray",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "cv2",
    "PIL",
    "pydicom",
    "albumentations",
    "pyarrow",
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def study(*words: str) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_version_is_that_of_the_package(capsys: Capture) -> None:
    assert study("--version") == 0
    assert capsys.readouterr().out == f"study {metadata.version('segmentation-study')}\n"


def test_the_catalog_tells_each_file_in_a_line(capsys: Capture) -> None:
    assert study("catalog") == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted(file.stem for file in (ROOT / "study" / "catalog").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == files
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_a_template_is_copied_and_plans(capsys: Capture) -> None:
    assert study("init", "demo", "-o", "new/mine.yaml") == 0
    assert capsys.readouterr().out == "wrote new/mine.yaml; next: study plan new/mine.yaml\n"
    assert study("plan", "new/mine.yaml") == 0


def test_an_unknown_template_is_refused_with_the_known_ones(capsys: Capture) -> None:
    assert study("init", "dmo") == 2
    assert "unknown template 'dmo'; allowed: adversarial_semi_supervised, " in capsys.readouterr().err


def test_an_existing_file_is_not_overwritten(capsys: Capture) -> None:
    Path("demo.yaml").write_text("mine")
    assert study("init", "demo") == 2
    assert "demo.yaml exists; allowed: a new file" in capsys.readouterr().err
    assert Path("demo.yaml").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(capsys: Capture) -> None:
    Path("file").touch()
    assert study("init", "demo", "-o", "file/demo.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_schema_is_printed(capsys: Capture) -> None:
    assert study("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Study"


def test_a_plan_in_json_has_the_promised_keys_and_stands_alone_on_stdout(capsys: Capture) -> None:
    write_study(base(), Path("study.yaml"))
    assert study("plan", "study.yaml", "--json") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == ""
    assert {key: told[key] for key in ("study", "arms", "cells", "replicates")} == {
        "study": "small", "arms": 3, "cells": 6, "replicates": 12,
    }  # fmt: skip
    assert told["stages"] == {"naive": 24, "unique": 14, "finished": 0, "to_run": 14, "after_search": 0}
    assert told["image_epochs"].keys() == {"naive", "unique", "to_run"}
    assert all(isinstance(count, int) for count in told["image_epochs"].values())
    assert told["tasks"] == {"segmentation": 13, "classification": 1}
    assert (told["leaks"], told["excluded"], told["warnings"]) == ([], [], [])


def test_leaks_in_json_say_stage_target_kind_and_number(capsys: Capture) -> None:
    for name in ("clinic", "hospital"):
        write_folder(Path(name))
    data = {name: {"source": "folder", "root": name} for name in ("clinic", "hospital")}
    write_study(base({"data": data, "leaks": "report"}), Path("study.yaml"))
    assert study("plan", "study.yaml", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {"stage": "classify", "with": "hospital", "kind": "file", "images": 6} in told["leaks"]


def test_overrides_reach_the_plan(capsys: Capture) -> None:
    write_study(base(), Path("study.yaml"))
    assert study("plan", "study.yaml", "--json", "--set", "compare.folds=4", "--set", "name=other") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["replicates"]) == ("other", 24)


def test_planning_writes_nothing_into_the_storage() -> None:
    write_study(base(), Path("study.yaml"))
    assert study("plan", "study.yaml") == 0
    assert not Path("runs").exists()


def test_a_study_that_was_never_run_is_refused_by_name(capsys: Capture) -> None:
    assert study("status", "nobody") == 2
    told = "unknown study 'nobody'; allowed: none is defined; run it first, or name its storage with --storage"
    assert capsys.readouterr().err == f"--storage runs: {told}\n"


def imported(*words: str) -> set[str]:
    """Return which heavy modules a command imports in a process of its own."""
    code = (
        "import sys\nfrom study.cli.main import main\n"
        f"try:\n    main({list(words)!r})\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "cache",
                          "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=True)  # fmt: skip
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [("--help",), ("catalog",), ("run", "--help"), ("submit", "--help"), ("schema",)], ids=" ".join
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert imported(*words) == set()


def test_a_plan_on_generated_data_imports_nothing_heavy() -> None:
    write_study(base(), Path("study.yaml"))
    assert imported("plan", "study.yaml") == set()


def test_a_plan_on_known_images_reads_their_table_and_decodes_nothing() -> None:
    write_folder(Path("mine"))
    write_study(
        base({"data.hospital": {"source": "folder", "root": "mine"}, "compare.labelled_fraction": [1.0]}),
        Path("study.yaml"),
    )
    assert {"cv2", "PIL"} <= imported("plan", "study.yaml")
    assert imported("plan", "study.yaml") <= {"pyarrow"}
