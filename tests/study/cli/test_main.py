"""The commands catalog, init, schema and plan, and the modules that they import."""

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
pytestmark = pytest.mark.usefixtures("working_directory")


def run_command(*arguments: str) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    return int(exit_info.value.code or 0)


def test_version_equals_that_of_the_package(capsys: Capture) -> None:
    assert run_command("--version") == 0
    assert capsys.readouterr().out == f"study {metadata.version('segmentation-study')}\n"


def test_catalog_describes_each_file_in_one_line(capsys: Capture) -> None:
    assert run_command("catalog") == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted(file.stem for file in (ROOT / "study" / "catalog").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == files
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_template_is_copied_and_can_be_planned(capsys: Capture) -> None:
    assert run_command("init", "demo", "-o", "new/mine.yaml") == 0
    assert capsys.readouterr().out == "wrote new/mine.yaml; next: study plan new/mine.yaml\n"
    assert run_command("plan", "new/mine.yaml") == 0


def test_unknown_template_is_rejected_with_the_allowed_names(capsys: Capture) -> None:
    assert run_command("init", "dmo") == 2
    assert "unknown template 'dmo'; allowed: adversarial_semi_supervised, " in capsys.readouterr().err


def test_init_does_not_overwrite_an_existing_file(capsys: Capture) -> None:
    Path("demo.yaml").write_text("mine")
    assert run_command("init", "demo") == 2
    assert "demo.yaml exists; allowed: a new file" in capsys.readouterr().err
    assert Path("demo.yaml").read_text() == "mine"


def test_unwritable_output_path_is_rejected(capsys: Capture) -> None:
    Path("file").touch()
    assert run_command("init", "demo", "-o", "file/demo.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_schema_is_printed(capsys: Capture) -> None:
    assert run_command("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Study"


def test_json_plan_has_the_documented_keys_and_nothing_on_stderr(capsys: Capture) -> None:
    write_study(base(), Path("study.yaml"))
    assert run_command("plan", "study.yaml", "--json") == 0
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert err == ""
    assert {key: plan[key] for key in ("study", "arms", "cells", "replicates")} == {
        "study": "small", "arms": 3, "cells": 6, "replicates": 12,
    }  # fmt: skip
    assert plan["stages"] == {"naive": 24, "unique": 14, "finished": 0, "to_run": 14, "after_search": 0}
    assert plan["image_epochs"].keys() == {"naive", "unique", "to_run"}
    assert all(isinstance(count, int) for count in plan["image_epochs"].values())
    assert plan["tasks"] == {"segmentation": 13, "classification": 1}
    assert (plan["leaks"], plan["excluded"], plan["warnings"]) == ([], [], [])


def test_json_plan_lists_leaks_by_stage_target_kind_and_number(capsys: Capture) -> None:
    for name in ("clinic", "hospital"):
        write_folder(Path(name))
    data = {name: {"source": "folder", "root": name} for name in ("clinic", "hospital")}
    write_study(base({"data": data, "leaks": "report"}), Path("study.yaml"))
    assert run_command("plan", "study.yaml", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert {"stage": "classify", "with": "hospital", "kind": "file", "images": 6} in plan["leaks"]


def test_overrides_change_the_plan(capsys: Capture) -> None:
    write_study(base(), Path("study.yaml"))
    assert run_command("plan", "study.yaml", "--json", "--set", "compare.folds=4", "--set", "name=other") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["study"], plan["replicates"]) == ("other", 24)


def test_plan_does_not_write_to_the_storage() -> None:
    write_study(base(), Path("study.yaml"))
    assert run_command("plan", "study.yaml") == 0
    assert not Path("runs").exists()


def test_unknown_study_is_rejected_by_name(capsys: Capture) -> None:
    assert run_command("status", "nobody") == 2
    message = "unknown study 'nobody'; allowed: none is defined; run it first, or name its storage with --storage"
    assert capsys.readouterr().err == f"--storage runs: {message}\n"


def heavy_imports(*arguments: str) -> set[str]:
    """Return the heavy modules that a command imports in a new process."""
    code = (
        "import sys\nfrom study.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "cache",
                          "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=True)  # fmt: skip
    return set(result.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "arguments", [("--help",), ("catalog",), ("run", "--help"), ("submit", "--help"), ("schema",)], ids=" ".join
)
def test_help_does_not_import_heavy_modules(arguments: tuple[str, ...]) -> None:
    assert heavy_imports(*arguments) == set()


def test_plan_on_generated_data_does_not_import_heavy_modules() -> None:
    write_study(base(), Path("study.yaml"))
    assert heavy_imports("plan", "study.yaml") == set()


def test_second_plan_reads_the_manifest_without_decoding_images() -> None:
    write_folder(Path("mine"))
    write_study(
        base({"data.hospital": {"source": "folder", "root": "mine"}, "compare.labelled_fraction": [1.0]}),
        Path("study.yaml"),
    )
    assert {"cv2", "PIL"} <= heavy_imports("plan", "study.yaml")
    assert heavy_imports("plan", "study.yaml") <= {"pyarrow"}
