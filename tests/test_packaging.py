"""The package as distributed: layers, dependencies, lock, contents of the wheel."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("study", "cluster", "results", "models", "datasets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME, DEVELOPMENT = PROJECT["dependencies"], PROJECT["optional-dependencies"]["dev"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
MODULES = {
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "python-gdcm": "gdcm",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "tensorboardx": "tensorboardX",
}
"""Modules not named like their distribution."""


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower()


def run_python(*arguments: str, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def copy_sources(place: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def check_layers(place: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return run_python("-c", code, cwd=place, path=place)


def test_imports_go_one_way() -> None:
    checked = check_layers(ROOT)
    assert checked.returncode == 0, checked.stdout


def test_forbidden_imports_are_detected(tmp_path: Path) -> None:
    broken = {
        "study/store/atomic.py": ("import ray", "Only cluster imports ray"),
        "models/catalog/hub.py": ("import datasets.errors", "Imports go one way"),
        "datasets/errors.py": ("import torch", "datasets and results need no torch"),
        "results/notes.py": ("import timm", "Only models imports timm"),
        "cluster/connect.py": ("import pydicom", "Only datasets imports albumentations, nibabel and pydicom"),
    }
    place = copy_sources(tmp_path)
    for file, (line, _) in broken.items():
        with (place / file).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    output = check_layers(place).stdout
    for _, contract in broken.values():
        assert re.search(rf"^{contract}.* BROKEN$", output, flags=re.MULTILINE), output


def test_every_runtime_dependency_imports_with_our_datasets_first_on_the_path(tmp_path: Path) -> None:
    names = [MODULES.get(name_of(line), name_of(line)) for line in RUNTIME]
    lines = ["import datasets", "from models.encoders.vision import smp, timm", *(f"import {name}" for name in names)]
    lines += ["import ray.tune", "print(datasets.__file__)"]
    imported = run_python("-W", "ignore", "-c", "\n".join(lines), cwd=tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.split() == [str(ROOT / "datasets" / "__init__.py")]


def test_every_runtime_dependency_is_imported_by_a_package() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py"))
    # smp and timm import torchvision, whose version has to fit torch's; optuna is given, for the search to come;
    # pydicom finds gdcm by itself, as its plugin for compressed pixels, and tifffile finds imagecodecs
    not_imported = {"torchvision", "optuna", "python-gdcm", "imagecodecs"}
    for name in {name_of(line) for line in RUNTIME} - not_imported:
        module = MODULES.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", sources, flags=re.MULTILINE), name


def test_the_command_works_from_another_folder(tmp_path: Path) -> None:
    helped = run_python("-m", "study", "--help", cwd=tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "plan" in helped.stdout


def test_the_command_of_the_package_exists() -> None:
    module, _, function = PROJECT["scripts"]["study"].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package."""
    place = copy_sources(tmp_path_factory.mktemp("sources"))
    code = "from setuptools import build_meta; print(build_meta.build_wheel('wheel'))"
    built = run_python("-W", "ignore", "-c", code, cwd=place)
    assert built.returncode == 0, built.stderr
    (file,) = (place / "wheel").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel; its dependencies are those of this environment."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, with_pip=True)
    programs = place / "bin"
    command = [programs / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(command, check=True, cwd=place)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return programs


def run_installed(programs: Path, place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `study` of a new environment in a folder."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(
        [programs / "study", *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_an_installed_wheel_has_all_that_its_commands_read(installed: Path, tmp_path: Path) -> None:
    code = "import study, models, datasets, cluster, results; print(study.__file__, models.__file__)"
    found = subprocess.check_output([installed / "python", "-I", "-c", code], text=True, cwd=tmp_path).split()
    assert all(Path(file).is_relative_to(installed.parent) for file in found)
    for words, expected in (
        (["--version"], f"study {PROJECT['version']}"),
        (["demo", "--help"], "generated radiographs"),
        (["catalog"], "semi_supervised"),
        (["schema"], '"title": "Study"'),
        (["backbones", "--search", "resnet18"], "resnet18"),
        (["init", "demo"], "wrote demo.yaml"),
        (["plan", "demo.yaml"], "compares     3 arms"),
    ):
        ended = run_installed(installed, tmp_path, *words)
        assert ended.returncode == 0, ended.stderr
        assert expected in ended.stdout


def test_shells_complete_commands_templates_and_studies(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "studies" / "lung-2").mkdir(parents=True)
    for words, expected in (("study ca", "catalog"), ("study init dem", "demo"), ("study table lu", "lung-2")):
        completed = run_installed(
            installed, tmp_path, _STUDY_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
        )
        assert completed.stdout.split() == [expected], completed.stderr


@pytest.mark.slow
def test_the_demo_of_an_installed_wheel_runs(installed: Path, tmp_path: Path) -> None:
    ended = run_installed(installed, tmp_path, "demo", OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.stderr
    assert {"none", "one_step", "two_step"} <= set(re.findall(r"^\| (\w+) \|", ended.stdout, flags=re.MULTILINE))
    assert (tmp_path / "runs" / "studies" / "demo" / "report" / "learning_curve.png").is_file()
    reported = run_installed(installed, tmp_path, "report", "demo")
    assert reported.returncode == 0, reported.stderr


def test_the_container_file_installs_the_lock_and_names_no_index() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--constraint requirements.lock" in text
    copied = {word for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE) for word in line.split()[:-1]}
    assert {*PACKAGES, "pyproject.toml", "requirements.lock"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    arguments = set(re.findall(r"^ARG (\w+)", text, flags=re.MULTILINE))
    assert arguments == {"PYTHON", "TORCH_INDEX", "EXTRAS"}
    assert all(re.search(rf"\$\{{?{name}\b", text) for name in arguments)


def test_a_wheel_contains_the_packages_and_their_tables_only(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file()
        and (
            path.name == "py.typed"
            or path.suffix in {".py", ".yaml", ".json", ".html", ".css", ".js"}
            or path.parent.name == "launch"
        )
    }
    assert inside == expected
    assert {f"{name}/py.typed" for name in PACKAGES} <= inside


def test_the_lock_pins_every_dependency_exactly() -> None:
    pinned = {line.partition("==")[0] for line in LOCK.splitlines()}
    assert all(re.match(r"^[a-z0-9.-]+==[^ ]+( ; .+)?$", line) for line in LOCK.splitlines())
    assert {name_of(line) for line in [*RUNTIME, *DEVELOPMENT]} <= pinned


def test_the_lock_is_portable() -> None:
    assert "://" not in LOCK
    assert not re.findall(r"^-", LOCK, flags=re.MULTILINE), "options, such as an index"
    assert not re.findall(r"==[^ ;]*\+", LOCK), "builds of one machine"
    assert not re.findall(r"^(nvidia|cuda|triton)", LOCK, flags=re.MULTILINE), "packages for GPUs only"


def test_the_lock_is_within_the_bounds_of_every_dependency() -> None:
    pinned = dict(line.partition(" ;")[0].split("==") for line in LOCK.splitlines())
    for line in [*RUNTIME, *DEVELOPMENT]:
        needed = Requirement(line)
        assert needed.specifier.contains(pinned[needed.name.lower()]), line


def test_pydicom_has_no_known_vulnerabilities() -> None:
    (needed,) = [Requirement(line) for line in RUNTIME if name_of(line) == "pydicom"]
    assert not needed.specifier.contains("3.0.1")
