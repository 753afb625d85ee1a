"""The cache of the hub, as written by its client and after a copy without links."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import hf_hub_download

from models.catalog.hub_cache import WEIGHTS_FILE, cache_folder, cached_content, cached_file, sha256_of
from models.catalog.published import Content, PublishedWeights
from tests.support.hub import Hub, local_hub, sha256

WEIGHTS = PublishedWeights(repository="lab/encoder", revision="main")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub on this machine."""
    with local_hub() as running:
        yield running


def download(hub: Hub, folder: Path, revision: str = "main") -> None:
    hf_hub_download(WEIGHTS.repository, WEIGHTS_FILE, revision=revision, cache_dir=folder, endpoint=hub.url)


def without_links(folder: Path, target: Path) -> Path:
    """Copy a cache so that files replace links."""
    shutil.copytree(folder, target, symlinks=False, ignore=shutil.ignore_patterns("blobs", ".locks"))
    return target


def test_the_folder_is_that_of_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == Path(huggingface_hub.constants.HF_HUB_CACHE)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hub"


def test_the_content_of_a_branch_is_known_with_and_without_links(hub: Hub, tmp_path: Path) -> None:
    assert cached_content(WEIGHTS, tmp_path) is None
    commit = hub.commit(WEIGHTS.repository, b"first")
    download(hub, tmp_path / "linked")
    expected = Content(sha256=sha256(b"first"), commit=commit)
    assert cached_content(WEIGHTS, tmp_path / "linked") == expected
    assert cached_content(WEIGHTS, without_links(tmp_path / "linked", tmp_path / "copied")) == expected


def test_each_cached_version_is_located_by_its_content(hub: Hub, tmp_path: Path) -> None:
    first = Content(commit=hub.commit(WEIGHTS.repository, b"first"), sha256=sha256(b"first"))
    download(hub, tmp_path)
    hub.commit(WEIGHTS.repository, b"second")
    download(hub, tmp_path)
    earlier, present = cached_file(WEIGHTS, first, tmp_path), cached_file(WEIGHTS, None, tmp_path)
    assert earlier is not None
    assert present is not None
    assert (earlier.read_bytes(), present.read_bytes()) == (b"first", b"second")
    assert cached_file(WEIGHTS, Content(sha256="0" * 64, commit=first.commit), tmp_path) is None


def test_a_content_is_located_under_another_commit(hub: Hub, tmp_path: Path) -> None:
    download(hub, tmp_path, hub.commit(WEIGHTS.repository, b"first"))
    moved = Content(sha256=sha256(b"first"), commit="f" * 40)
    assert cached_file(WEIGHTS, moved, tmp_path) is not None


def test_a_file_is_hashed_again_after_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"one", b"three"):
        file.write_bytes(content)
        assert sha256_of(file) == hashlib.sha256(content).hexdigest()


def test_it_imports_neither_torch_nor_the_client() -> None:
    code = (
        "import sys; from models.catalog import hub, hub_cache; "
        "assert not {'torch', 'huggingface_hub'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
