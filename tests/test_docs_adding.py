"""The packages' pages on adding a part are sufficient: a copy of the tree with these additions trains with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import docs
from tests.support.own_data import write_own_data
from tests.test_packaging import copy_sources

PAGES = [docs.read(f"{package}/README.md") for package in ("models", "datasets", "results")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with all additions of the pages."""
    place = copy_sources(tmp_path_factory.mktemp("tree"))
    for page in PAGES:
        docs.apply(page, place)
    return place


def run(tree: Path, *words: str | Path, cwd: Path | None = None) -> str:
    """Run Python with the changed packages first on the path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(docs.ROOT)])}
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd or tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_study_trains_with_the_added_loss_architecture_task_source_and_metric(tree: Path, tmp_path: Path) -> None:
    write_own_data(tmp_path / "my-data")
    script = docs.ROOT / "tests" / "support" / "added.py"
    output = run(tree, script, tmp_path, cwd=tmp_path).split()
    assert {"margin", "fcn", "rotation", "two_bones", "specificity"} <= set(output)


def test_shown_code_follows_the_style_of_the_packages(tree: Path) -> None:
    names = ["models", "datasets", "results", "study/config/stages.py"]
    run(tree, "-m", "ruff", "check", "--no-cache", *names)
    run(tree, "-m", "ruff", "format", "--no-cache", "--check", *names)


@pytest.mark.parametrize("package", ["results"])
def test_a_plain_block_runs(package: str) -> None:
    blocks = docs.blocks(docs.read(f"{package}/README.md"), "python")
    assert blocks
    for block in blocks:
        run(docs.ROOT, "-c", block)
