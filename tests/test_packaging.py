"""The package as distributed: layers, dependencies, lock, contents of the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

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


def test_a_wheel_contains_the_packages_and_their_tables_only(tmp_path: Path) -> None:
    place = copy_sources(tmp_path)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('wheel'))"
    built = run_python("-W", "ignore", "-c", code, cwd=place)
    assert built.returncode == 0, built.stderr
    (wheel,) = (place / "wheel").glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file()
        and (path.suffix in {".py", ".yaml", ".json", ".html", ".css", ".js"} or path.parent.name == "launch")
    }
    assert inside == expected


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
