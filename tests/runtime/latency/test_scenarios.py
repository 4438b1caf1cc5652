"""The scenarios on a simulated clock, where every time is exact."""

from collections.abc import Iterable, Iterator
from itertools import chain, cycle, repeat

import numpy as np
import pytest

from sefa_runtime import InputError
from sefa_runtime.latency.scenarios import (
    LONGEST,
    WANTED_RUNS,
    Clock,
    on_schedule,
    one_after_another,
    poisson_schedule,
    warm_up,
)


class Simulation(Clock):
    """A clock that stands still but for what takes time by its own account."""

    def __init__(self, durations: Iterable[float]) -> None:
        self.time = 1000.0
        self.durations: Iterator[float] = iter(durations)

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)

    def run(self) -> None:
        """A run of the model: takes the next duration."""
        self.time += next(self.durations)


def ignore(share: float) -> None:
    """No progress to show."""


def test_requests_that_come_while_one_is_slow_are_late_by_their_waiting() -> None:
    # Every 20 ms a request that takes 10 ms; the eleventh takes a second.
    durations = np.full(200, 0.01)
    durations[10] = 1.0
    moments = np.arange(200) * 0.02
    clock = Simulation(durations)
    timing = on_schedule(clock.run, moments, 100.0, clock, ignore)
    latencies = np.array(timing.latencies)
    np.testing.assert_allclose(latencies[:10], 0.01)
    # Those scheduled meanwhile: the slow one ends at 1.2 s, they are served in turn, 10 ms each.
    queue = np.arange(1, 100)
    np.testing.assert_allclose(latencies[11:110], np.maximum(1.2 + queue * 0.01 - moments[11:110], 0.01))
    # A tester that waits for each answer before it asks again would have seen one slow request of 200.
    assert (latencies > 0.1).sum() == 90
    assert timing.busy == pytest.approx(durations.sum())


def test_waiting_is_that_of_queueing_theory() -> None:
    # Poisson arrivals, constant service: the mean wait is load · service / (2 (1 - load)) (Pollaczek and Khinchine).
    service, load = 0.001, 0.7
    moments = poisson_schedule(load / service, 300.0, seed=1)
    clock = Simulation(repeat(service))
    timing = on_schedule(clock.run, moments, 1e9, clock, ignore)
    wait = float(np.mean(timing.latencies)) - service
    # Waits of neighbours are correlated over some 20 requests: of 210 000, one standard error is about 1.2 %.
    assert wait == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


def test_requests_left_over_count_as_never_served() -> None:
    clock = Simulation(repeat(1.0))
    timing = on_schedule(clock.run, np.arange(100) * 0.1, 5.0, clock, ignore)
    assert timing.runs == 6  # begun at 0, 1, ... 5 s
    assert len(timing.latencies) == 100
    assert np.isinf(timing.latencies[6:]).all()
    assert timing.elapsed == pytest.approx(6.0)


def test_progress_is_not_shown_while_a_request_is_due() -> None:
    shown: list[float] = []
    clock = Simulation(repeat(0.5))
    on_schedule(clock.run, np.arange(20) * 0.5, 100.0, clock, shown.append)
    assert shown == []
    on_schedule(clock.run, np.arange(20) * 0.7, 100.0, Simulation(repeat(0.5)), shown.append)
    assert shown
    assert max(shown) < 1


def test_arrivals_are_a_poisson_process() -> None:
    moments = poisson_schedule(50.0, 1000.0, seed=3)
    gaps = np.diff(moments, prepend=0.0)
    assert (gaps > 0).all()
    assert moments[-1] <= 1000.0
    # Four standard deviations of a Poisson count; an exponential gap's mean and standard deviation are the same.
    assert len(moments) == pytest.approx(50_000, abs=4 * 50_000**0.5)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    # No memory: of the gaps longer than the mean, e⁻¹ are longer than twice the mean.
    mean = gaps.mean()
    assert (gaps > 2 * mean).sum() / (gaps > mean).sum() == pytest.approx(np.exp(-1), abs=0.02)


def test_a_seed_means_the_same_arrivals() -> None:
    np.testing.assert_array_equal(poisson_schedule(10.0, 20.0, seed=5), poisson_schedule(10.0, 20.0, seed=5))
    assert poisson_schedule(10.0, 20.0, seed=5)[0] != poisson_schedule(10.0, 20.0, seed=6)[0]


def test_arrivals_go_on_until_there_are_enough_but_not_for_ever() -> None:
    assert len(poisson_schedule(30.0, 1.0, seed=0)) == WANTED_RUNS
    few = poisson_schedule(2.0, 1.0, seed=0)
    assert 0 < len(few) < WANTED_RUNS
    assert few[-1] <= LONGEST * 1.0


@pytest.mark.parametrize(
    ("rate", "seconds", "message"), [(0.001, 0.1, "none comes within"), (1e6, 100, "are more than")]
)
def test_rates_that_make_no_sense_are_refused(rate: float, seconds: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        poisson_schedule(rate, seconds, seed=0)


def test_one_after_another_takes_the_time_asked_for() -> None:
    clock = Simulation(repeat(2**-7))
    timing = one_after_another(clock.run, 5.0, clock, ignore)
    assert timing.runs == 5 * 2**7
    assert timing.elapsed == 5.0
    assert set(timing.latencies) == {2**-7}


def test_one_after_another_goes_on_until_there_are_enough_runs() -> None:
    clock = Simulation(repeat(0.1))
    assert one_after_another(clock.run, 5.0, clock, ignore).runs == WANTED_RUNS


def test_one_after_another_does_not_go_on_for_ever() -> None:
    clock = Simulation(repeat(2.0))
    timing = one_after_another(clock.run, 5.0, clock, ignore)
    assert timing.elapsed == pytest.approx(LONGEST * 5.0)
    clock = Simulation(repeat(1000.0))
    assert one_after_another(clock.run, 5.0, clock, ignore).runs == 1


def test_warm_up_ends_when_the_time_of_a_run_is_stable() -> None:
    falling = np.linspace(0.2, 0.1, 30)  # each window of three runs is more than 5 % faster than the one before last
    clock = Simulation(chain(falling, repeat(0.1)))
    warmed = warm_up(clock.run, 100.0, clock)
    assert warmed.stable
    assert 30 <= warmed.runs <= 39
    assert warmed.seconds == pytest.approx(falling.sum() + (warmed.runs - 30) * 0.1)


def test_warm_up_ends_when_its_time_is_up() -> None:
    clock = Simulation(cycle([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    warmed = warm_up(clock.run, 10.0, clock)
    assert not warmed.stable
    assert 10.0 <= warmed.seconds < 10.2


def test_warm_up_of_a_slow_model_is_one_run() -> None:
    clock = Simulation(repeat(60.0))
    assert warm_up(clock.run, 10.0, clock).runs == 1


def test_the_clock_does_not_wake_early() -> None:
    clock = Clock()
    for wait in (-1.0, 0.0, 0.0003, 0.005):
        moment = clock.now() + wait
        clock.wait_until(moment)
        assert clock.now() >= moment
