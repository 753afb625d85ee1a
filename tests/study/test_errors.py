"""Errors of study files."""

import pickle

from study.errors import ConfigError, Problem


def test_an_error_crosses_processes_with_its_problems() -> None:
    error = ConfigError([Problem(path="image.size", message="is 0; allowed: at least 1; raise it")], "study.yaml")
    received = pickle.loads(pickle.dumps(error))
    assert (str(received), received.problems) == (str(error), error.problems)
