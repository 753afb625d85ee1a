"""Invalid studies on the command line: exit status 2, one line with a remedy for each fault, and nothing trained."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.cli.main import main
from tests.support.documents import base, planned, write_study
from tests.support.faulty import SPECS
from tests.support.folder import write_folder
from tests.support.pictures import save, truncate

LINE = re.compile(r"^\S+\.yaml: \S[^:]*: \S.*; ?allowed: \S.*$")
JARGON = re.compile(
    r"pydantic|\bInput\b|\btuple\b|\bdict\b|NoneType|instance of|object at 0x|Error\b|Traceback|\[key\]"
)
Lines = list[str]
RunRejected = Callable[..., Lines]


@pytest.fixture
def run_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunRejected:
    """Run a study that must be rejected; return the lines of stderr without the name of the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def run(document: dict[str, Any], *options: str, storage: str = "runs") -> Lines:
        write_study(document, Path("study.yaml"))
        with pytest.raises(SystemExit) as exit_info:
            main(["run", "study.yaml", "--cache", "cache", "--storage", storage, *options])
        out, err = capsys.readouterr()
        assert exit_info.value.code == 2
        assert out in ("", "reading study.yaml and its data\n")  # the latter where a machine is slow
        lines = err.splitlines()
        assert [line for line in lines if not LINE.match(line) or JARGON.search(line)] == []
        assert not (Path(storage) / "stages").exists()
        return [line.removeprefix("study.yaml: ") for line in lines]

    return run


@pytest.mark.parametrize(("document", "start", "remedy"), SPECS.values(), ids=SPECS)
def test_invalid_study_is_rejected_in_one_line(
    document: dict[str, Any], start: str, remedy: str, run_rejected: RunRejected
) -> None:
    (line,) = run_rejected(document)
    assert line.startswith(start)
    assert remedy in line


NUMBERS = ("metrics.min_images", "compare.folds", "compare.seeds[0]", "stages.segment.epochs", "resources.gpus",
        "stages.segment.optimizer.lr", "data.hospital.seed", "image.size", "checkpoint.seconds")  # fmt: skip


@pytest.mark.parametrize("path", NUMBERS)
def test_true_is_not_accepted_as_a_number(path: str, run_rejected: RunRejected) -> None:
    value: bool | list[bool] = [True] if path.endswith("[0]") else True
    lines = run_rejected(base({path.removesuffix("[0]"): value}))
    assert [line for line in lines if line.startswith(f"{path}: is true; allowed: ")]


def test_true_is_not_accepted_as_a_numeric_value_of_a_factor(run_rejected: RunRejected) -> None:
    lines = run_rejected(base({"compare": base()["compare"] | {"segment.batch_size": [4, True]}}))
    assert lines == [
        "compare.segment.batch_size: value True does not fit: batch_size is true; allowed: a number; write 1 if that "
        "is meant"
    ]


PUBLISHED = {"source": "a paper", "values": [{"value": 0.5}]}
INVALID_COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "no class": ({"metrics": {"classes": []}}, "metrics.classes: is []; allowed: at least one entry"),
    "a class twice": ({"metrics": {"classes": ["heart", "heart"]}}, "metrics.classes: heart appears twice; allowed: "),
    "a baseline twice": ({"compare.baseline": [{"pathway": "none"}, {"pathway": "none"}]}, "compare.baseline: "),
    "an empty baseline": ({"compare.baseline": [{}]}, "compare.baseline: holds an empty rule, {}; allowed: "),
    "an empty rule": ({"compare.include": [{}]}, "compare.include: holds an empty rule, {}; allowed: "),
    "more images than there are": ({"metrics.min_images": 10_000}, "metrics.min_images: is 10000; allowed: 1 to "),
    "percent": ({"published": [PUBLISHED | {"values": [{"value": 83.6}]}]},
                "published[0].values[0].value: is 83.6; allowed: 0 to 1, the scale of mean_iou; divide percent by 100"),
    "a metric per image, pooled": (
        {"published": [PUBLISHED | {"metric": "dice_empty_is_one"}]},
        "published[0].aggregation: is dataset of dice_empty_is_one; allowed: case, per image; set aggregation: case"),
    "class of no mask": ({"published": [PUBLISHED | {"class": "hart"}]}, "published[0].class: unknown class 'hart'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), INVALID_COUNTS.values(), ids=INVALID_COUNTS)
def test_empty_repeated_or_impossible_values_are_rejected(
    changes: dict[str, Any], message: str, run_rejected: RunRejected
) -> None:
    (line,) = run_rejected(base(changes))
    assert line.startswith(message)


def test_single_training_image_is_rejected_if_the_network_needs_two(run_rejected: RunRejected, tmp_path: Path) -> None:
    compare = {key: value for key, value in base()["compare"].items() if key != "labelled_fraction"}
    changes = {"compare": compare | {"labelled_images": [1]}, "image.size": 32, "data.hospital.patients": 20}
    lines = run_rejected(base(changes))
    assert lines
    assert all(
        line.startswith("stages.segment: trains on 1 image under ")
        and "allowed: 2 training images or more; add images" in line
        for line in lines
    )
    assert planned(base(changes | {"image.size": 64}), tmp_path).nodes


def _remove_labels(root: Path) -> None:
    (root / "labels.csv").unlink()


DATA_FAULTS = {
    "corrupt image": (lambda root: (root / "images" / "anna-1.png").write_bytes(b"nothing"),
                        "images/anna-1.png cannot be decoded", "restore, convert or remove"),
    "truncated image": (lambda root: truncate(root / "images" / "anna-1.png"), "images/anna-1.png cannot be decoded",
                          "restore, convert or remove"),
    "mask of another size": (lambda root: save(np.ones((10, 12), np.uint8), root / "masks" / "ben.png"),
                             "masks/ben.png has 12 x 10 pixels", "64 x 48"),
    "class id outside the list": (lambda root: save(np.full((48, 64), 7, np.uint8), root / "masks" / "ben.png"),
                                  "masks/ben.png holds the class id 7", "classes.txt"),
    "mask without an image": (lambda root: save(np.ones((48, 64), np.uint8), root / "masks" / "bn.png"),
                              "bn.png belongs to no image", "rename"),
    "patients missing": (lambda root: (root / "cases.csv").write_text("image,patient\nben,ben\n"),
                         "cases.csv has no line for anna-1", "add it"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "problem", "remedy"), DATA_FAULTS.values(), ids=DATA_FAULTS)
def test_faulty_data_is_rejected_in_one_line(
    damage: Callable[[Path], object], problem: str, remedy: str, run_rejected: RunRejected
) -> None:
    damage(write_folder(Path("mine")))
    (line,) = run_rejected(base({"data.hospital": {"source": "folder", "root": "mine"}}))
    assert line.startswith("data.hospital: ")
    assert problem in line
    assert remedy in line


def test_faulty_box_is_rejected_only_by_studies_that_read_boxes(run_rejected: RunRejected, tmp_path: Path) -> None:
    root = write_folder(Path("mine"))
    (root / "boxes.csv").write_text("image,x,y,width,height,label\nben,60,5,20,10,disc\n")
    data = {"data.hospital": {"source": "folder", "root": "mine"}}
    assert planned(base(data), tmp_path).nodes
    (line,) = run_rejected(base(data | {"stages.boxes.data": "hospital"}))
    assert line.startswith("data.hospital: ben: box disc (60, 5, 20, 10) leaves the image; allowed: inside 64 x 48; ")


def test_missing_data_folder_is_rejected(run_rejected: RunRejected) -> None:
    (line,) = run_rejected(base({"data.hospital": {"source": "folder", "root": "nowhere"}}))
    assert line.startswith("data.hospital: ")
    assert "nowhere is no folder" in line


def test_classification_on_data_without_labels_is_rejected(run_rejected: RunRejected) -> None:
    _remove_labels(write_folder(Path("mine")))
    data = {"source": "folder", "root": "mine"}
    (line,) = run_rejected(base({"data.hospital": data, "stages.classify.data": "hospital"}))
    assert line.startswith("stages.classify.data: classification needs labels, which hospital has not")


def test_faults_of_all_kinds_are_reported_together(run_rejected: RunRejected) -> None:
    lines = run_rejected(
        base({
            "paths": {},
            "compare.seeds": [1, 1],
            "compare.backbone": ["resnet19"],
            "stages.segment.epochs": 0,
            "stages.boxes.data": "clinc",
            "pathways.more": ["clasify", "segment"],
            "metrics": {"classes": ["hart"]},
            "data.hospital": {"source": "folder", "root": "nowhere"},
        })
    )  # fmt: skip
    paths = [line.partition(": ")[0] for line in lines]
    assert paths == [
        "compare.backbone[0]", "compare.seeds", "data.hospital", "paths", "pathways.more[0]", "stages.boxes.data",
        "stages.segment.epochs",
    ]  # fmt: skip


@pytest.mark.parametrize(("option", "storage"), [("--storage", "file/runs"), ("--cache", "runs")])
def test_unwritable_folder_is_rejected(option: str, storage: str, run_rejected: RunRejected) -> None:
    Path("file").touch()
    options = () if option == "--storage" else ("--cache", "file/cache")
    (line,) = run_rejected(base(), *options, storage=storage)
    assert line.startswith(f"{option}: ")
    assert "cannot be written" in line


def test_unwritable_cache_is_rejected_before_images_are_read(run_rejected: RunRejected) -> None:
    write_folder(Path("mine"))
    Path("file").touch()
    document = base({"data.hospital": {"source": "folder", "root": "mine"}})
    (line,) = run_rejected(document, "--cache", "file/cache")
    assert "--cache" in line


INVALID_OVERRIDES = {
    "without a value": ("image.size", "image.size: --set 'image.size' has no value", "path.in.spec=value"),
    "into a value": ("name.x=3", "name.x: --set: 'name' holds 'small'", "a path to a key"),
    "into a list": ("pathways.none.0=classify", "pathways.none.0: --set: 'none' holds", "a path to a key"),
    "of an unknown key": ("image.sise=64", "image.sise: unknown key 'sise'", "did you mean size?"),
    "with broken YAML": ("image.size=[64", "image.size: --set: line 1: ", "valid YAML"),
}


@pytest.mark.parametrize(("override", "start", "remedy"), INVALID_OVERRIDES.values(), ids=INVALID_OVERRIDES)
def test_invalid_overrides_are_rejected(override: str, start: str, remedy: str, run_rejected: RunRejected) -> None:
    (line,) = run_rejected(base(), "--set", override)
    assert line.startswith(start)
    assert remedy in line


INVALID_FILES = {
    "broken syntax": ("name: [a\nb: c: d\n", "line 2: "),
    "tabs": ("name: a\n\tdata: b\n", "line 2: "),
    "stage twice": (
        "stages:\n  a: {}\n  a: {}\n",
        "'a' appears twice; allowed: each name once; rename or remove line 3",
    ),
    "a list": ("- a\n", "holds a list; allowed: a mapping with name"),
    "nothing": ("", "is empty; allowed: a mapping with name"),
    "no text": ("\udcff\udcfe", "cannot be read"),
}


@pytest.mark.parametrize(("text", "message"), INVALID_FILES.values(), ids=INVALID_FILES)
def test_invalid_study_file_is_rejected_by_a_process(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(text.encode(errors="surrogateescape"))
    line = _run_process("study.yaml", tmp_path)
    assert line.startswith(f"study.yaml: {message}")


def test_missing_study_file_is_rejected_by_a_process(tmp_path: Path) -> None:
    assert "No such file or directory" in _run_process("none.yaml", tmp_path)


def test_invalid_study_is_rejected_by_a_process(tmp_path: Path) -> None:
    write_study(base({"stages.segment.epochs": 0}), tmp_path / "study.yaml")
    assert _run_process("study.yaml", tmp_path).startswith("study.yaml: stages.segment.epochs: is 0; allowed: ")


def _run_process(file: str, folder: Path) -> str:
    """Run `python -m study run`, which must be rejected in one line; return this line."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "study", "run", file]
    result = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout in {"", f"reading {file} and its data\n"}  # that line if the imports take longer than a second
    assert result.stderr.count("\n") == 1
    assert "; allowed: " in result.stderr
    assert not (folder / "runs").exists()
    return result.stderr
