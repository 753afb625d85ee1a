"""Checks of Python and the libraries on the cluster before a job runs."""

import sys
from importlib.metadata import version

from cluster.jobs.preflight import problems

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_equal_python_and_libraries_have_no_problems() -> None:
    assert list(problems(PYTHON, [f"numpy=={version('numpy')}", "ray[tune,train]>=2.60.0"])) == []


def test_different_python_is_reported_with_the_remedy() -> None:
    (message,) = problems("3.9", [])
    assert (
        message == f"the cluster runs Python {PYTHON} and 3.9 submitted; allowed: the same; submit with python{PYTHON}"
    )


def test_missing_and_outdated_libraries_are_reported_in_one_line() -> None:
    (message,) = problems(PYTHON, ["no-such-library", "numpy>=99", "pandas"])
    assert message == (
        f"no-such-library is missing, numpy is {version('numpy')}, not >=99; allowed: requirements.lock on every node; "
        "install it, or name an --image with it"
    )
