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
from tests.support.command import raylets_of, words_of


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = pytest.raises(ConnectionError, match=rf"nothing answers at 127.0.0.1:{port} .*; allowed: HOST:PORT")
    with refused, connected(f"127.0.0.1:{port}"):
        pytest.fail("joined nothing")


def test_a_client_address_is_refused() -> None:
    refused = pytest.raises(ConnectionError, match=r"ray://head:10001 is for clients .*; allowed: HOST:PORT")
    with refused, connected("ray://head:10001"):
        pytest.fail("joined nothing")


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
def test_an_address_of_no_head_is_refused_in_one_short_line(address: str) -> None:
    with pytest.raises(ConnectionError, match=r"^is '.*; allowed: auto, or HOST:PORT") as refused, connected(address):
        pytest.fail("joined nothing")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_a_dashboard_is_refused_with_the_command_for_it() -> None:
    refused = pytest.raises(ConnectionError, match=r"http://head:8265 is a dashboard; .*`study submit`")
    with refused, connected("http://head:8265"):
        pytest.fail("joined nothing")


def test_a_password_in_rays_own_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://me:hunter2@head:8265")
    with pytest.raises(ConnectionError) as refused, connected("auto"):
        pytest.fail("joined nothing")
    assert str(refused.value).startswith("has a user or a password in it; allowed: ")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("host", ["a" * 100, "nowhere.invalid"])
def test_a_host_that_does_not_exist_is_refused(host: str) -> None:
    with pytest.raises(ConnectionError, match=r"nothing answers at .*; allowed: "), connected(f"{host}:6379"):
        pytest.fail("joined nothing")


@pytest.mark.cluster
def test_a_cluster_of_this_machine_has_no_autoscaler_and_works() -> None:
    with connected(LocalCluster()) as capacity:
        words = [word for child in psutil.Process().children() for word in words_of(child)]
        assert any("/raylet/raylet" in word for word in words)
        assert not any("/autoscaler/" in word for word in words)
        assert ray.get(ray.remote(lambda: 2).remote()) == 2
    assert capacity.cpus > 0


@pytest.mark.cluster
def test_a_cluster_begun_earlier_is_the_one_that_is_used() -> None:
    with LocalCluster() as local:
        local.begin()
        with connected(local):
            assert len(raylets_of(psutil.Process())) == 1
        assert not ray.is_initialized()


@pytest.mark.cluster
def test_a_cluster_begun_in_vain_ends_with_its_block() -> None:
    with LocalCluster() as local:
        local.begin()
        deadline = time.monotonic() + 60
        while not raylets_of(psutil.Process()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not ray.is_initialized()
    assert not raylets_of(psutil.Process())


def test_a_cluster_that_never_began_brings_no_ray() -> None:
    code = (
        "import sys; from cluster.local_cluster import LocalCluster\n"
        "with LocalCluster(): assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
