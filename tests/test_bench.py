"""The benchmark is not run by tests, but it must start, and respect its time limits."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from datasets.augment_settings import PRESETS, AugmentSettings
from tests.bench import augmentation, figure


def test_the_help_of_the_bench_lists_its_parts() -> None:
    result = subprocess.run([sys.executable, "-m", "tests.bench", "--help"], check=True, capture_output=True, text=True)
    for part in ("whole_study", "one_stage", "input", "augmentation", "core_use", "overheads", "coverage"):
        assert part in result.stdout


class Clock:
    """Calls that take the given time on a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def lasting(self, seconds: float) -> Callable[[], float]:
        def call() -> float:
            self.now += seconds
            return seconds

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(figure, "time", clock)
    return clock


@pytest.mark.parametrize(("within", "rounds"), [(5.0, 1), (59.0, 1), (60.0, 2), (95.0, 3), (1000.0, 5)])
def test_all_rounds_but_the_first_end_within_the_time(within: float, rounds: int, clock: Clock) -> None:
    results = figure.interleaved({"a": clock.lasting(10.0), "b": clock.lasting(20.0)}, 5, within=within)
    assert {name: len(values) for name, values in results.items()} == {"a": rounds, "b": rounds}


@pytest.mark.parametrize(("within", "rounds"), [(5.0, 1), (89.0, 1), (90.0, 2), (1000.0, 3)])
def test_only_the_best_of_the_others_is_measured_again(within: float, rounds: int, clock: Clock) -> None:
    sides = {"own": clock.lasting(10.0), "slow": clock.lasting(30.0), "fast": clock.lasting(20.0)}
    best, results = figure.against_best("own", sides, 3, within=within, length=float)
    assert best == "fast"
    assert {name: len(values) for name, values in results.items()} == {"own": rounds, "slow": 1, "fast": rounds}


def test_the_bench_measures_every_setting_of_augmentation() -> None:
    others = {"preset", "border"}
    assert augmentation.ALONE.keys() == AugmentSettings.model_fields.keys() - others
    assert augmentation.SETS.keys() == {"off", *PRESETS, *augmentation.ALONE}
