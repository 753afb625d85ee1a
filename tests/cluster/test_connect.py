import socket

import psutil
import pytest
import ray

from cluster.connect import connected


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
    with connected(None) as capacity:
        words = [word for child in psutil.Process().children() for word in _words(child)]
        assert any("/raylet/raylet" in word for word in words)
        assert not any("/autoscaler/" in word for word in words)
        assert ray.get(ray.remote(lambda: 2).remote()) == 2
    assert capacity.cpus > 0


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []
