"""Published weights enter digests by their content; a storage keeps the content that it has recorded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.catalog.published import Content
from models.catalog.registry import published_weights
from study.config.document import with_paths
from study.errors import ConfigError
from study.execution.readiness import refuse_unready
from study.execution.scheduler import _store_weights
from study.monitoring.plan_summary import summary, summary_text
from study.planning.graph import Plan
from study.planning.pending import pending_stages
from study.planning.pretrained import changed_weights, unresolved_stages
from study.search.load import load_plan
from study.store.pretrained import record_contents, recorded_content, stored_weights
from study.store.store import Store
from tests.support.hub import Hub, local_hub, sha256
from tests.support.searched import searched
from tests.support.tiny import tiny

NAME = ("tu-lcnet_050", "imagenet")
WEIGHTS = published_weights(*NAME)
STUDY = tiny({"compare.initial_weights": ["imagenet"]})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with local_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, and an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def planned(tmp_path: Path, document: dict[str, Any] = STUDY, storage: str = "runs") -> Plan:
    return load_plan(document, file="tiny.yaml", cache=tmp_path / "cache", storage=tmp_path / storage)


def write_cached(tmp_path: Path, content: bytes, commit: str) -> None:
    """Write a file into the cache like a copy without links, and let `main` refer to it."""
    root = tmp_path / "hub" / f"models--{WEIGHTS.repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (snapshot, root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (snapshot / "model.safetensors").write_bytes(content)
    (root / "refs" / "main").write_text(commit)


@pytest.mark.usefixtures("offline")
def test_stages_from_weights_of_unknown_content_are_unresolved_and_refused_by_a_run(tmp_path: Path) -> None:
    document = tiny({"compare.initial_weights": ["random", "imagenet"]})
    plan = planned(tmp_path, document)
    assert plan.contents == {WEIGHTS: None}
    assert set(unresolved_stages(plan)) == {NAME}
    chains = [row.chain for row in plan.replicates if plan.arms[row.arm].initial_weights == "imagenet"]
    assert set(unresolved_stages(plan)[NAME]) == {digest for chain in chains for digest in chain}
    content = summary(plan, Store(tmp_path / "runs"), tmp_path / "cache")
    assert content["unresolved"] == [{"backbone": NAME[0], "initial_weights": NAME[1], "stages": 5}]
    assert "unresolved   5 stages from imagenet weights of tu-lcnet_050" in summary_text(content)
    (warning,) = content["warnings"]
    assert "cannot be reached, so that the content of main is not known; allowed: " in warning
    with pytest.raises(ConfigError, match=r"content of main is not known; allowed: .*HF_HOME"):
        refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")


@pytest.mark.usefixtures("offline")
def test_stages_that_depend_on_a_search_are_also_unresolved(tmp_path: Path) -> None:
    plan = planned(tmp_path, searched({"compare.initial_weights": ["imagenet"]}))
    assert set(unresolved_stages(plan)[NAME]) == {*plan.nodes, *plan.graph.after_search}


def test_the_digest_depends_on_the_content_and_not_on_its_location(tmp_path: Path, hub: Hub) -> None:
    unknown = planned(tmp_path)
    commit = hub.commit(WEIGHTS.repository, b"first")
    from_hub = planned(tmp_path)
    hub.commit(WEIGHTS.repository, b"second")
    from_cache = planned(tmp_path)
    write_cached(tmp_path, b"first", commit)
    cached = planned(tmp_path)
    assert set(from_hub.nodes) == set(cached.nodes)
    assert len({*unknown.nodes, *from_hub.nodes, *from_cache.nodes}) == 3 * len(from_hub.nodes)
    assert from_hub.contents[WEIGHTS] == cached.contents[WEIGHTS]
    assert summary(from_hub, Store(tmp_path), tmp_path)["unresolved"] == []


def test_a_storage_keeps_its_content_without_requests(tmp_path: Path, hub: Hub) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    first, store = planned(tmp_path), Store(tmp_path / "runs")
    record_contents(store, first.contents)
    commit = hub.commit(WEIGHTS.repository, b"second")
    write_cached(tmp_path, b"second", commit)
    hub.requests.clear()

    resumed, fresh = planned(tmp_path), planned(tmp_path, storage="other")
    assert set(resumed.nodes) == set(first.nodes)
    assert not set(fresh.nodes) & set(first.nodes)
    assert hub.requests == []
    (message,) = changed_weights(resumed)
    assert "has changed since it was first used" in message
    assert commit in message
    assert list(changed_weights(fresh)) == []


def test_a_recorded_content_that_is_no_longer_available_is_refused(tmp_path: Path, hub: Hub) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    plan, store = planned(tmp_path), Store(tmp_path / "runs")
    record_contents(store, plan.contents)
    hub.commit(WEIGHTS.repository, b"second")
    refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")  # the hub still has its commit
    hub.repositories.clear()
    hub.commit(WEIGHTS.repository, b"second")
    with pytest.raises(
        ConfigError, match=f"recorded .SHA-256 {sha256(b'first')}.*has another one; allowed: .*--storage"
    ):
        refuse_unready(planned(tmp_path), tmp_path / "runs", tmp_path / "cache")
    write_cached(tmp_path, b"first", "1" * 40)
    refuse_unready(planned(tmp_path), tmp_path / "runs", tmp_path / "cache")


def test_weights_of_a_pinned_revision_need_no_hub_for_their_digest(tmp_path: Path, hub: Hub) -> None:
    document = tiny({"compare.initial_weights": ["imagenet"], "compare.backbone": ["resnet18"]})
    plan = planned(tmp_path, document)
    assert hub.requests == []
    assert unresolved_stages(plan) == {}


TEACHER = {"backbone": NAME[0], "initial_weights": NAME[1]}
DISTILLED = tiny({
    "stages.classify": {"task": "feature_distillation", "data": "clinic", "epochs": 1, "teacher": TEACHER},
})  # fmt: skip


@pytest.mark.usefixtures("offline")
def test_stages_after_a_teacher_of_unknown_content_are_unresolved_and_refused_by_a_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, DISTILLED)
    assert plan.contents == {WEIGHTS: None}
    chains = [row.chain for row in plan.replicates if len(row.chain) == 2]
    assert set(unresolved_stages(plan)[NAME]) == {digest for chain in chains for digest in chain}
    with pytest.raises(ConfigError, match=r"content of main is not known; allowed: ") as refused:
        refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")
    assert [problem.path for problem in refused.value.problems] == ["stages.classify.teacher.initial_weights"]


@pytest.mark.usefixtures("offline")
def test_weights_missing_for_arms_and_teachers_are_reported_for_each_path(tmp_path: Path) -> None:
    document = with_paths(DISTILLED, {"compare.initial_weights": ["random", "imagenet"]})
    with pytest.raises(ConfigError) as refused:
        refuse_unready(planned(tmp_path, document), tmp_path / "runs", tmp_path / "cache")
    paths = [problem.path for problem in refused.value.problems]
    assert paths == ["compare.initial_weights[1]", "stages.classify.teacher.initial_weights"]


def test_the_content_of_a_teacher_is_recorded_and_kept(tmp_path: Path, hub: Hub) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    first = planned(tmp_path, DISTILLED)
    record_contents(Store(tmp_path / "runs"), first.contents)
    hub.commit(WEIGHTS.repository, b"second")
    assert set(planned(tmp_path, DISTILLED).nodes) == set(first.nodes)
    fresh = planned(tmp_path, DISTILLED, "other")
    alone = {row.chain[-1] for row in first.replicates if len(row.chain) == 1}
    assert set(fresh.nodes) & set(first.nodes) == alone


def test_an_unreachable_hub_does_not_count_as_one_with_another_content(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    plan = planned(tmp_path)
    record_contents(Store(tmp_path / "runs"), plan.contents)
    monkeypatch.setattr(hub, "answer", lambda _: (503, {}, b""))
    with pytest.raises(ConfigError, match="are not cached and the hub does not answer; allowed: "):
        refuse_unready(planned(tmp_path), tmp_path / "runs", tmp_path / "cache")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("linked", [False, True])
def test_weights_of_a_commit_have_a_content_only_if_the_cache_has_their_hash(linked: bool, tmp_path: Path) -> None:
    document = tiny({"compare.initial_weights": ["imagenet"], "compare.backbone": ["resnet18"]})
    weights = published_weights("resnet18", "imagenet")
    root = tmp_path / "hub" / f"models--{weights.repository.replace('/', '--')}"
    file, blob = root / "snapshots" / weights.revision / "model.safetensors", root / "blobs" / sha256(b"x")
    file.parent.mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_bytes(b"x")
    if linked:
        file.symlink_to(blob)
    else:
        file.write_bytes(b"x")
    plan, store = planned(tmp_path, document), Store(tmp_path / "runs")
    assert plan.contents == {weights: Content(sha256=sha256(b"x"), commit=weights.revision) if linked else None}
    assert unresolved_stages(plan) == {}
    refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")
    record_contents(store, plan.contents)
    assert recorded_content(store, weights) == plan.contents[weights]


def test_weights_of_a_commit_missing_on_the_hub_are_refused(tmp_path: Path, hub: Hub) -> None:
    plan = planned(tmp_path, tiny({"compare.initial_weights": ["imagenet"], "compare.backbone": ["resnet18"]}))
    (weights,) = plan.contents
    with pytest.raises(ConfigError, match="are not cached and the hub does not give them; allowed: "):
        refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")
    hub.commit(weights.repository, b"weights", commit=weights.revision)
    refuse_unready(plan, tmp_path / "runs", tmp_path / "cache")


def test_weights_that_cannot_be_stored_are_refused_in_one_line(tmp_path: Path, hub: Hub) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    plan, store = planned(tmp_path, DISTILLED), Store(tmp_path / "runs")
    hub.repositories.clear()
    with pytest.raises(ConfigError, match=r"tiny\.yaml: pretrained weights .* are not cached .*; allowed: "):
        _store_weights(plan, pending_stages(plan, store), (), store)


def test_weights_of_finished_ancestors_are_stored_if_the_hub_has_them(tmp_path: Path, hub: Hub) -> None:
    hub.commit(WEIGHTS.repository, b"first")
    plan, store = planned(tmp_path, DISTILLED), Store(tmp_path / "runs")
    pending = replace(pending_stages(plan, store), stages=())
    lineage = {digest for row in plan.replicates for digest in row.chain}
    repositories = hub.repositories.copy()
    hub.repositories.clear()
    _store_weights(plan, pending, lineage, store)
    assert stored_weights(store, WEIGHTS, plan.contents[WEIGHTS]) is None
    hub.repositories |= repositories
    _store_weights(plan, pending, lineage, store)
    assert stored_weights(store, WEIGHTS, plan.contents[WEIGHTS]) is not None
