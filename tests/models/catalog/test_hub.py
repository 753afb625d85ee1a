"""Requests to the hub: proxies, and responses that count as no response."""

from collections.abc import Iterator

import pytest

from models.catalog import hub
from models.catalog.registry import published_weights
from tests.support.hub import Hub, local_hub, sha256

WEIGHTS = published_weights("tu-lcnet_050", "imagenet")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and an environment without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with local_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.mark.parametrize(("endpoint", "variable"), [
    ("http://hub.invalid", "HTTP_PROXY"), ("https://hub.invalid", "HTTPS_PROXY"), ("https://hub.invalid", "ALL_PROXY"),
])  # fmt: skip
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_hub_behind_a_proxy_is_reachable_if_the_proxy_is(
    endpoint: str, variable: str, scheme: str, running: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not hub.reachable()
    for name in (variable, variable.lower()):
        monkeypatch.setenv(name, scheme + running.url.removeprefix("http://"))
    assert hub.reachable()
    for name in (variable, variable.lower()):
        monkeypatch.setenv(name, NOWHERE)
    assert not hub.reachable()


@pytest.mark.parametrize(("exempt", "is_reached"), [("127.0.0.1", True), ("*", True), ("other.org", False)])
def test_a_hub_that_is_exempt_from_the_proxy_is_connected_directly(
    exempt: str, is_reached: bool, running: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running.url == hub.endpoint()
    for name, value in (("http_proxy", NOWHERE), ("no_proxy", exempt)):
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)
    assert hub.reachable() == is_reached


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:port", "http://"])
def test_an_invalid_proxy_address_makes_the_hub_unreachable(
    proxy: str, running: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.reachable()
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert not hub.reachable()
    assert running.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_response_of_an_overloaded_or_failing_hub_counts_as_none(
    status: int, running: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.commit(WEIGHTS.repository, b"first")
    content = hub.upstream_content(WEIGHTS)
    assert content is not None
    assert content.sha256 == sha256(b"first")
    monkeypatch.setattr(running, "answer", lambda _: (status, {}, b""))
    with pytest.raises(hub.HubUnavailable):
        hub.upstream_content(WEIGHTS)
    assert hub.upstream_contents([WEIGHTS]) == {WEIGHTS: None}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_hub_means_that_the_file_does_not_exist(
    status: int, running: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "answer", lambda _: (status, {}, b""))
    assert hub.upstream_content(WEIGHTS) is None
    assert not hub.has_file(WEIGHTS)
