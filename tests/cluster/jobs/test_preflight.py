import sys
from importlib.metadata import version

from cluster.jobs.preflight import problems

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_python_and_the_libraries_that_submitted_are_right() -> None:
    assert list(problems(HERE, [f"numpy=={version('numpy')}", "ray[tune,train]>=2.60.0"])) == []


def test_another_python_is_told_with_the_remedy() -> None:
    (told,) = problems("3.9", [])
    assert told == f"the cluster runs Python {HERE} and 3.9 submitted; allowed: the same; submit with python{HERE}"


def test_what_is_missing_or_too_old_is_told_in_one_line() -> None:
    (told,) = problems(HERE, ["no-such-library", "numpy>=99", "pandas"])
    assert told == (
        f"no-such-library is missing, numpy is {version('numpy')}, not >=99; allowed: requirements.lock on every node; "
        "install it, or name an --image with it"
    )
