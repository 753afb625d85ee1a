"""Faulty studies through the command line: exit status 2, a line a fault that says how to mend it, nothing trained."""

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
Refuse = Callable[..., Lines]


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a study that must be refused; return the lines after the file's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def run(document: dict[str, Any], *options: str, storage: str = "runs") -> Lines:
        write_study(document, Path("study.yaml"))
        with pytest.raises(SystemExit) as ended:
            main(["run", "study.yaml", "--cache", "cache", "--storage", storage, *options])
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert not out
        lines = err.splitlines()
        assert [line for line in lines if not LINE.match(line) or JARGON.search(line)] == []
        assert not (Path(storage) / "stages").exists()
        return [line.removeprefix("study.yaml: ") for line in lines]

    return run


@pytest.mark.parametrize(("document", "place", "remedy"), SPECS.values(), ids=SPECS)
def test_faulty_specs_are_refused_in_one_line(
    document: dict[str, Any], place: str, remedy: str, refuse: Refuse
) -> None:
    (line,) = refuse(document)
    assert line.startswith(place)
    assert remedy in line


TRUE = ("metrics.min_images", "compare.folds", "compare.seeds[0]", "stages.segment.epochs", "resources.gpus",
        "stages.segment.optimizer.lr", "data.hospital.seed", "image.size", "checkpoint.seconds")  # fmt: skip


@pytest.mark.parametrize("path", TRUE)
def test_true_is_no_number(path: str, refuse: Refuse) -> None:
    value: bool | list[bool] = [True] if path.endswith("[0]") else True
    lines = refuse(base({path.removesuffix("[0]"): value}))
    assert [line for line in lines if line.startswith(f"{path}: is true; allowed: ")]


def test_true_is_no_number_among_the_values_of_a_factor(refuse: Refuse) -> None:
    lines = refuse(base({"compare": base()["compare"] | {"segment.batch_size": [4, True]}}))
    assert lines == [
        "compare.segment.batch_size: value True does not fit: batch_size is true; allowed: a number; write 1 if that "
        "is meant"
    ]


PUBLISHED = {"source": "a paper", "values": [{"value": 0.5}]}
EMPTY: dict[str, tuple[dict[str, Any], str]] = {
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


@pytest.mark.parametrize(("changes", "message"), EMPTY.values(), ids=EMPTY)
def test_what_would_count_nothing_or_twice_is_refused(changes: dict[str, Any], message: str, refuse: Refuse) -> None:
    (line,) = refuse(base(changes))
    assert line.startswith(message)


def test_a_single_labelled_image_is_refused_where_a_network_needs_two(refuse: Refuse, tmp_path: Path) -> None:
    compare = {key: value for key, value in base()["compare"].items() if key != "labelled_fraction"}
    alone = {"compare": compare | {"labelled_images": [1]}, "image.size": 32, "data.hospital.patients": 20}
    lines = refuse(base(alone))
    assert lines
    assert all(
        line.startswith("stages.segment: trains on 1 image under ")
        and "allowed: 2 training images or more; add images" in line
        for line in lines
    )
    assert planned(base(alone | {"image.size": 64}), tmp_path).nodes


def _labels_gone(root: Path) -> None:
    (root / "labels.csv").unlink()


FOLDERS = {
    "corrupt picture": (lambda root: (root / "images" / "anna-1.png").write_bytes(b"nothing"),
                        "images/anna-1.png cannot be decoded", "restore, convert or remove"),
    "truncated picture": (lambda root: truncate(root / "images" / "anna-1.png"), "images/anna-1.png cannot be decoded",
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


@pytest.mark.parametrize(("spoil", "what", "remedy"), FOLDERS.values(), ids=FOLDERS)
def test_faulty_data_is_refused_in_one_line(
    spoil: Callable[[Path], object], what: str, remedy: str, refuse: Refuse
) -> None:
    spoil(write_folder(Path("mine")))
    (line,) = refuse(base({"data.hospital": {"source": "folder", "root": "mine"}}))
    assert line.startswith("data.hospital: ")
    assert what in line
    assert remedy in line


def test_a_faulty_box_refuses_a_study_that_reads_boxes_and_no_other(refuse: Refuse, tmp_path: Path) -> None:
    root = write_folder(Path("mine"))
    (root / "boxes.csv").write_text("image,x,y,width,height,label\nben,60,5,20,10,disc\n")
    data = {"data.hospital": {"source": "folder", "root": "mine"}}
    assert planned(base(data), tmp_path).nodes
    (line,) = refuse(base(data | {"stages.boxes.data": "hospital"}))
    assert line.startswith("data.hospital: ben: box disc (60, 5, 20, 10) leaves the image; allowed: inside 64 x 48; ")


def test_a_missing_folder_is_refused(refuse: Refuse) -> None:
    (line,) = refuse(base({"data.hospital": {"source": "folder", "root": "nowhere"}}))
    assert line.startswith("data.hospital: ")
    assert "nowhere is no folder" in line


def test_labels_asked_from_data_without_labels_are_refused(refuse: Refuse) -> None:
    _labels_gone(write_folder(Path("mine")))
    data = {"source": "folder", "root": "mine"}
    (line,) = refuse(base({"data.hospital": data, "stages.classify.data": "hospital"}))
    assert line.startswith("stages.classify.data: classification needs labels, which hospital has not")


def test_faults_of_structure_references_networks_and_data_are_told_together(refuse: Refuse) -> None:
    lines = refuse(
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
    places = [line.partition(": ")[0] for line in lines]
    assert places == [
        "compare.backbone[0]", "compare.seeds", "data.hospital", "paths", "pathways.more[0]", "stages.boxes.data",
        "stages.segment.epochs",
    ]  # fmt: skip


@pytest.mark.parametrize(("option", "storage"), [("--storage", "file/runs"), ("--cache", "runs")])
def test_a_folder_that_cannot_be_written_is_refused(option: str, storage: str, refuse: Refuse) -> None:
    Path("file").touch()
    options = () if option == "--storage" else ("--cache", "file/cache")
    (line,) = refuse(base(), *options, storage=storage)
    assert line.startswith(f"{option}: ")
    assert "cannot be written" in line


def test_a_cache_that_cannot_be_written_is_refused_before_real_images_are_read(refuse: Refuse) -> None:
    write_folder(Path("mine"))
    Path("file").touch()
    document = base({"data.hospital": {"source": "folder", "root": "mine"}})
    (line,) = refuse(document, "--cache", "file/cache")
    assert "--cache" in line


OVERRIDES = {
    "without a value": ("image.size", "image.size: --set 'image.size' has no value", "path.in.spec=value"),
    "into a value": ("name.x=3", "name.x: --set: 'name' holds 'small'", "a path to a key"),
    "into a list": ("pathways.none.0=classify", "pathways.none.0: --set: 'none' holds", "a path to a key"),
    "of an unknown key": ("image.sise=64", "image.sise: unknown key 'sise'", "did you mean size?"),
    "with broken YAML": ("image.size=[64", "image.size: --set: line 1: ", "valid YAML"),
}


@pytest.mark.parametrize(("override", "place", "remedy"), OVERRIDES.values(), ids=OVERRIDES)
def test_faulty_overrides_are_refused(override: str, place: str, remedy: str, refuse: Refuse) -> None:
    (line,) = refuse(base(), "--set", override)
    assert line.startswith(place)
    assert remedy in line


FILES = {
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


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_files_that_are_no_study_are_refused_by_a_real_process(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(text.encode(errors="surrogateescape"))
    told = _command("study.yaml", tmp_path)
    assert told.startswith(f"study.yaml: {message}")


def test_a_missing_file_is_refused_by_a_real_process(tmp_path: Path) -> None:
    assert "No such file or directory" in _command("none.yaml", tmp_path)


def test_a_faulty_study_is_refused_by_a_real_process(tmp_path: Path) -> None:
    write_study(base({"stages.segment.epochs": 0}), tmp_path / "study.yaml")
    assert _command("study.yaml", tmp_path).startswith("study.yaml: stages.segment.epochs: is 0; allowed: ")


def _command(file: str, folder: Path) -> str:
    """Run `python -m study run`, which must refuse in one line; return it."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "study", "run", file]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert "; allowed: " in done.stderr
    assert not (folder / "runs").exists()
    return done.stderr
