"""Published initial weights go into a shared storage once, and are read from there where there is no hub."""

import hashlib
from pathlib import Path

import pytest

from models.catalog import registry
from models.catalog.registry import WEIGHTS_FILE, initial_weights_id
from study.planning.pending import pending_stages
from study.planning.pretrained import pretrained_weights
from study.store.bucket_backend import create_mirror
from study.store.pretrained import store_weights, stored_weights
from study.store.store import Store
from tests.support.object_store import ObjectStore
from tests.support.searched import planned, searched

WEIGHTS = ("resnet18", "imagenet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with these weights, and no hub behind it."""
    repository, _, revision = initial_weights_id(*WEIGHTS).partition("@")
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    commit = revision if len(revision) == 40 else "0" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit / WEIGHTS_FILE).write_bytes(b"weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "hub")
    return tmp_path / "hub"


def machine(server: ObjectStore, folder: Path, name: str) -> Store:
    return Store(create_mirror(server.uri(folder.name), folder / name))


@pytest.mark.usefixtures("hub")
def test_weights_that_one_machine_keeps_are_there_for_another(server: ObjectStore, tmp_path: Path) -> None:
    here, there = (machine(server, tmp_path, name) for name in ("here", "there"))
    assert stored_weights(there, *WEIGHTS) is None
    store_weights(here, [WEIGHTS])
    found = stored_weights(there, *WEIGHTS)

    assert found is not None
    assert found.read_bytes() == b"weights"
    assert there.root in found.parents


def test_weights_that_only_candidates_start_from_are_among_those_needed(tmp_path: Path) -> None:
    changes = {"compare.backbone": ["resnet18"], "compare.initial_weights": ["imagenet"], "compare.pathway": ["none"]}
    plan, store = planned(searched(changes), tmp_path, tmp_path / "cache"), Store(tmp_path)
    left = pending_stages(plan, store)

    assert not left.stages
    assert pretrained_weights(plan, left, store) == [WEIGHTS]


@pytest.mark.usefixtures("hub")
def test_weights_are_kept_once(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(machine(server, tmp_path, "here"), [WEIGHTS])
    before = server.keys(tmp_path.name)
    store_weights(machine(server, tmp_path, "there"), [WEIGHTS])

    assert server.keys(tmp_path.name) == before
    assert [key.rpartition("/")[2] for key in before] == [hashlib.blake2b(b"weights").hexdigest()[:32] + ".safetensors"]


@pytest.mark.usefixtures("hub")
def test_weights_that_were_altered_in_the_storage_are_refused(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(machine(server, tmp_path, "here"), [WEIGHTS])
    (key,) = server.keys(tmp_path.name)
    server.write(f"{tmp_path.name}/{key}", b"other weights")

    with pytest.raises(ValueError, match="was altered; allowed: "):
        stored_weights(machine(server, tmp_path, "there"), *WEIGHTS)


@pytest.mark.usefixtures("hub")
def test_a_folder_that_nodes_share_keeps_them_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store_weights(store, [WEIGHTS])

    assert stored_weights(store, *WEIGHTS) is not None
