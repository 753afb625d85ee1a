"""Addresses of clusters, and the local cluster that is started without one."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from cluster.connect import connected
from cluster.local_cluster import LocalCluster
from tests.support.command import command_line_of, raylets_of


def test_unused_port_is_rejected_immediately() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    raises = pytest.raises(ConnectionError, match=rf"nothing answers at 127.0.0.1:{port} .*; allowed: HOST:PORT")
    with raises, connected(f"127.0.0.1:{port}"):
        pytest.fail("connected without a cluster")


def test_ray_client_address_is_rejected() -> None:
    raises = pytest.raises(ConnectionError, match=r"ray://head:10001 is for clients .*; allowed: HOST:PORT")
    with raises, connected("ray://head:10001"):
        pytest.fail("connected without a cluster")


@pytest.mark.parametrize(
    "address",
    [
        "head",
        "local",
        "head:",
        "head:x",
        "head:99999",
        "head:²",
        "ftp://head:6379",
        "file:///tmp/x",
        "os://head",
        "127.0.0.1:6379/jobs",
        "[::1",
        "a b:6379",
        "a\nb:6379",
        "\x1b[31m:6379",
        "h\x00:6379",
        f"{'a' * 5000}:6379",
        "",
    ],
)
def test_invalid_address_is_rejected_in_one_short_line(address: str) -> None:
    with pytest.raises(ConnectionError, match=r"^is '.*; allowed: auto, or HOST:PORT") as error, connected(address):
        pytest.fail("connected without a cluster")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 250


def test_dashboard_address_is_rejected_with_the_command_for_it() -> None:
    raises = pytest.raises(ConnectionError, match=r"http://head:8265 is a dashboard; .*`study submit`")
    with raises, connected("http://head:8265"):
        pytest.fail("connected without a cluster")


def test_password_in_ray_address_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://me:hunter2@head:8265")
    with pytest.raises(ConnectionError) as error, connected("auto"):
        pytest.fail("connected without a cluster")
    assert str(error.value).startswith("has a user or a password in it; allowed: ")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("host", ["a" * 100, "nowhere.invalid"])
def test_unknown_host_is_rejected(host: str) -> None:
    with pytest.raises(ConnectionError, match=r"nothing answers at .*; allowed: "), connected(f"{host}:6379"):
        pytest.fail("connected without a cluster")


@pytest.mark.cluster
def test_local_cluster_runs_tasks_without_an_autoscaler() -> None:
    with connected(LocalCluster()) as capacity:
        arguments = [argument for child in psutil.Process().children() for argument in command_line_of(child)]
        assert any("/raylet/raylet" in argument for argument in arguments)
        assert not any("/autoscaler/" in argument for argument in arguments)
        assert ray.get(ray.remote(lambda: 2).remote()) == 2
    assert capacity.cpus > 0


@pytest.mark.cluster
def test_cluster_started_in_advance_is_used() -> None:
    with LocalCluster() as local:
        local.begin()
        with connected(local):
            assert len(raylets_of(psutil.Process())) == 1
        assert not ray.is_initialized()


@pytest.mark.cluster
def test_unused_cluster_started_in_advance_ends_with_its_block() -> None:
    with LocalCluster() as local:
        local.begin()
        deadline = time.monotonic() + 60
        while not raylets_of(psutil.Process()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not ray.is_initialized()
    assert not raylets_of(psutil.Process())


def test_cluster_that_was_not_started_does_not_import_ray() -> None:
    code = (
        "import sys; from cluster.local_cluster import LocalCluster\n"
        "with LocalCluster(): assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
