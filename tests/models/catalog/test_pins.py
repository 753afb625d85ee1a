"""Weights of the table are pinned to the content of the hub."""

from pathlib import Path

import pytest

from models.catalog.pins import pin, pins_of, read_table, with_pins, write_table
from models.catalog.published import Content, PublishedWeights
from tests.support.hub import Hub, local_hub, sha256

COMMIT = "c" * 40
ROWS = {
    "one": {"size": None, "weights": {"imagenet": "timm/one.a@main", "a": "timm/one.a@main"}},
    "two": {"size": 224, "weights": {"b": "timm/two.b@main"}},
    "library": {"size": None, "weights": {"imagenet": f"smp-hub/library@{COMMIT}"}},
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of three backbones."""
    write_table(ROWS, tmp_path / "table.json")
    return tmp_path / "table.json"


def pinned(table: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return pin(table)


def test_branches_become_commit_and_hash_if_the_hub_is_reachable(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_hub() as hub:
        commit = hub.commit("timm/one.a", b"first")
        assert pinned(table, hub, monkeypatch) == (1, 1)
        entry = f"timm/one.a@{commit}#{sha256(b'first')}"
        assert read_table(table) == ROWS | {"one": {"size": None, "weights": {"imagenet": entry, "a": entry}}}
        assert len(table.read_text().splitlines()) == len(ROWS) + 2
        hub.requests.clear()
        hub.commit("timm/one.a", b"second")
        hub.commit("timm/two.b", b"third")
        assert pinned(table, hub, monkeypatch) == (1, 0)
        assert read_table(table)["one"]["weights"]["a"] == entry
        assert not any("one.a" in request or "library" in request for request in hub.requests)


def test_the_table_is_unchanged_without_the_hub(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    before = table.read_text()
    assert pin(table) == (0, 2)
    assert table.read_text() == before


def test_a_generated_table_keeps_the_pins_of_the_previous_one() -> None:
    entry = f"timm/one.a@{COMMIT}#{'0' * 64}"
    pins = pins_of({"one": {"weights": {"a": entry, "b": f"smp-hub/b@{COMMIT}", "c": "timm/c@main"}}})
    assert pins == {"timm/one.a": entry}
    assert with_pins({"imagenet": "timm/one.a@main", "d": "timm/d@main"}, pins) == {
        "imagenet": entry, "d": "timm/d@main",
    }  # fmt: skip


def test_pinning_does_not_change_the_identity_of_weights_with_known_content() -> None:
    content = Content(sha256="0" * 64, commit=COMMIT)
    moving = PublishedWeights.parse("timm/one.a@main")
    fixed = PublishedWeights.parse(f"timm/one.a@{COMMIT}#{content.sha256}")
    assert fixed.stated == content
    assert moving.identity(content) == fixed.identity(fixed.stated) == f"timm/one.a#{content.sha256}"
    assert moving.key == fixed.key
    assert moving.identity(None) not in {moving.identity(content), str(moving)}


def test_weights_of_a_pinned_revision_are_identified_by_it() -> None:
    weights = PublishedWeights.parse(f"smp-hub/library@{COMMIT}")
    for content in (None, Content(sha256="0" * 64, commit=COMMIT)):
        assert weights.identity(content) == f"smp-hub/library@{COMMIT}"
