"""Updates and images a second of running stages; time is that of a clock that the tests set."""

import pytest

from study.monitoring.rates import Rate, StageRates, rate_text


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def rates(clock: list[float]) -> StageRates:
    return StageRates(clock=lambda: clock[0])


def report(rates: StageRates, clock: list[float], *, at: float, epoch: int, updates: int) -> Rate | None:
    """Report the end of an epoch of a stage with 10 epochs of 80 images; return its rate."""
    clock[0] = at
    rates.progressed("a", epoch=epoch, updates=updates)
    return rates.rate("a", epochs=10, image_epochs=800)


def test_the_rate_is_measured_from_the_first_report_on(rates: StageRates, clock: list[float]) -> None:
    rates.started("a")
    report(rates, clock, at=30.0, epoch=1, updates=20)
    report(rates, clock, at=32.0, epoch=2, updates=40)
    assert report(rates, clock, at=38.0, epoch=5, updates=100) == Rate(updates=10.0, images=40.0)


def test_after_one_epoch_it_is_measured_from_the_start(rates: StageRates, clock: list[float]) -> None:
    rates.started("a")
    assert report(rates, clock, at=16.0, epoch=1, updates=20) == Rate(updates=1.25, images=5.0)


def test_a_resumed_stage_has_a_rate_from_its_second_report_on(rates: StageRates, clock: list[float]) -> None:
    rates.started("a")
    assert report(rates, clock, at=10.0, epoch=7, updates=140) is None
    assert report(rates, clock, at=12.0, epoch=8, updates=160) == Rate(updates=10.0, images=40.0)


def test_a_stage_without_reports_or_that_has_ended_has_no_rate(rates: StageRates, clock: list[float]) -> None:
    rates.started("a")
    assert rates.rate("a", epochs=10, image_epochs=800) is None
    report(rates, clock, at=10.0, epoch=1, updates=20)
    rates.ended("a")
    assert rates.rate("a", epochs=10, image_epochs=800) is None


def test_rates_are_shown_with_three_digits() -> None:
    assert rate_text(12.3456, 98.765) == "12.3 updates/s, 98.8 images/s"
    assert rate_text(None, None) == ""
