import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from cluster.connect import connected
from cluster.local import LocalCluster
from tests.data.command import raylets_of, words_of


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
    code = "import sys; from cluster.local import LocalCluster\nwith LocalCluster(): assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
