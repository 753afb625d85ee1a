"""Object stores addressed by keys below a URI."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from study.errors import ConfigError
from study.store.object_store import Remote, StoreUnavailable, checked_uri, problem, writing_problem
from tests.support.object_store import ObjectStore


@pytest.fixture
def remote(server: ObjectStore, request: pytest.FixtureRequest) -> Remote:
    return Remote(server.uri(re.sub(r"\W+", "-", request.node.name)), patience=0.0)


def test_written_object_is_listed_with_size_and_read(remote: Remote) -> None:
    remote.write("stages/a/file", b"content")

    assert {key: entry.bytes for key, entry in remote.entries("stages").items()} == {"stages/a/file": 7}
    assert remote.read("stages/a/file") == b"content"


def test_uploaded_file_is_downloaded_unchanged(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"x" * 2**20)
    assert remote.put(tmp_path / "sent", "folder/file").bytes == 2**20
    remote.get("folder/file", tmp_path / "new" / "fetched")

    assert (tmp_path / "new" / "fetched").read_bytes() == (tmp_path / "sent").read_bytes()


def test_missing_key_reads_as_none_and_leaves_no_file(remote: Remote, tmp_path: Path) -> None:
    assert remote.read("nothing") is None
    assert remote.entries("nothing") == {}
    with pytest.raises(FileNotFoundError):
        remote.get("nothing", tmp_path / "target" / "file")
    assert not list((tmp_path / "target").iterdir())


def test_delete_is_idempotent(remote: Remote) -> None:
    for key in ("folder/a", "folder/b", "other/c"):
        remote.write(key, b"")
    remote.delete("other/c")
    remote.delete("other/c")
    remote.delete_folder("folder")
    remote.delete_folder("folder")

    assert remote.entries("folder") == remote.entries("other") == {}


@pytest.mark.parametrize("key", ["../other", "a/../../b", "/etc/passwd", "a//b", "", ".", "a\\..\\b", "a/\0"])
def test_key_outside_the_prefix_is_rejected(remote: Remote, key: str, tmp_path: Path) -> None:
    for call in (
        lambda: remote.read(key), lambda: remote.write(key, b""), lambda: remote.get(key, tmp_path / "file"),
        lambda: remote.entries(key), lambda: remote.delete(key), lambda: remote.delete_folder(key),
        lambda: remote.copy("a", key), lambda: remote.put(tmp_path, key),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="would leave the storage"):
            call()


def test_keys_outside_the_prefix_are_not_listed(server: ObjectStore, remote: Remote) -> None:
    prefix = remote.uri.removeprefix("s3://bucket/")
    for key in ("stages/a/seal.json", "stages/../../evil", "stages/b\\..\\c", "stages//d"):
        server.write(f"{prefix}/{key}", b"")

    assert remote.entries("stages").keys() == {"stages/a/seal.json"}


def test_requests_are_retried_until_server_responds(server: ObjectStore, remote: Remote) -> None:
    server.stop()
    threading.Timer(1.0, server.start).start()
    replace(remote, patience=60.0).write("late", b"arrived")

    assert remote.read("late") == b"arrived"


@pytest.mark.slow  # the client library retries for some seconds
def test_unreachable_server_is_named_by_its_uri(server: ObjectStore, remote: Remote) -> None:
    server.stop()
    try:
        with pytest.raises(StoreUnavailable, match=remote.uri):
            remote.read("file")
        assert "cannot be read" in str(problem(remote))
        assert "cannot be written" in str(writing_problem(remote))
    finally:
        server.start()


def test_missing_bucket_is_reported(server: ObjectStore) -> None:
    assert "there is no bucket nowhere; allowed: " in str(problem(Remote("s3://nowhere/prefix")))
    assert problem(Remote(server.uri("prefix"))) is None


def test_write_check_leaves_storage_unchanged(server: ObjectStore, remote: Remote) -> None:
    assert writing_problem(remote) is None
    assert server.keys(remote.uri.removeprefix("s3://bucket/")) == {}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/prefix", "unknown scheme 'ftp'; allowed: s3, gs"),
        ("s3://", "is no bucket with a prefix"),
        ("s3://bucket/a/../b", "is no bucket with a prefix"),
        ("s3://bucket/a b", "is no bucket with a prefix"),
        ("s3://bucket/a?colour=red", "unknown option 'colour'; allowed: endpoint_override, region, scheme"),
    ],
)
def test_invalid_uri_is_rejected(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--storage") as error:
        checked_uri(uri)
    assert message in str(error.value)


@pytest.mark.parametrize("uri", ["s3://me:hidden@bucket/p", "s3://bucket/p?secret_key=hidden&access_key=me"])
def test_credentials_in_uri_are_rejected_and_not_shown(uri: str) -> None:
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as error:
        checked_uri(uri)
    assert "hidden" not in str(error.value)


def test_equivalent_uris_are_normalised() -> None:
    assert checked_uri("s3://bucket/runs/") == checked_uri("s3://bucket/runs") == "s3://bucket/runs"
    assert checked_uri("s3://bucket/?region=eu-west-1") == "s3://bucket?region=eu-west-1"


def test_endpoint_is_read_from_the_uri(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = checked_uri(f"s3://bucket/endpoint?endpoint_override=127.0.0.1:{server.port}&scheme=http")
    Remote(uri, patience=0.0).write("file", b"x")

    assert server.keys("endpoint").keys() == {"file"}
