"""The age formulas against event simulations, and the meter against a sawtooth worked by hand."""

import dataclasses
import math

import numpy as np
import pytest

from edgeswarm.agent.snapshot import pack, unpack
from edgeswarm.maths.age import (
    RECENT_UPDATES,
    AgeMeter,
    mean_age_fifo,
    mean_age_link,
    mean_age_paced,
    mean_age_preempting,
    mean_age_replacing,
    mean_age_turns,
)


def arrivals(seed, rate, sources, n):
    """Times and senders of n snapshots in all, Poisson."""
    rng = np.random.default_rng(seed)
    return rng.exponential(1 / (rate * sources), n).cumsum().tolist(), rng.integers(0, sources, n).tolist(), rng


def mean_served(*case):
    return np.mean([serve(*case, seed=seed) for seed in range(4)])


def serve(discipline, rate, service, sources, seed, n=100_000):
    """Mean age of source 0 at a receiver with one server and exponential service."""
    times, senders, rng = arrivals(seed, rate, sources, n)
    need = rng.exponential(1 / service, n).tolist()
    meter, done = AgeMeter(), []  # done: (finished, sent) of source 0
    if discipline == "preempt":
        for i in range(n - 1):
            if times[i] + need[i] <= times[i + 1] and senders[i] == 0:
                done.append((times[i] + need[i], times[i]))
    elif discipline == "fifo":
        free = 0.0
        for i in range(n):
            free = max(free, times[i]) + need[i]
            done.append((free, times[i]))
    else:
        busy_until, waiting = 0.0, None
        for i in range(n):
            if waiting is not None and busy_until <= times[i]:
                busy_until += need[waiting]
                if senders[waiting] == 0:
                    done.append((busy_until, times[waiting]))
                waiting = None
            if busy_until <= times[i]:
                busy_until = times[i] + need[i]
                if senders[i] == 0:
                    done.append((busy_until, times[i]))
            else:
                waiting = i
    for finished, sent in done:
        meter.update(finished, finished - sent)
    return meter.mean(meter.last_at)


@pytest.mark.parametrize("transport_s", [0.0, 2.0])
def test_link_only(transport_s):
    rate = 0.75
    times, _, _ = arrivals(0, rate, 1, 50_000)
    meter = AgeMeter()
    for at in times:
        meter.update(at + transport_s, transport_s)
    assert meter.mean(times[-1] + transport_s) == pytest.approx(mean_age_link(rate, transport_s), rel=0.03)


@pytest.mark.parametrize(("rate", "service", "sources"), [(1.0, 2.0, 1), (0.5, 1.0, 4), (4.0, 1.0, 3)])
def test_one_server(rate, service, sources):
    assert mean_served("preempt", rate, service, sources) == pytest.approx(
        mean_age_preempting(rate, service, sources), rel=0.04
    )
    assert mean_served("replace", rate, service, sources) == pytest.approx(
        mean_age_replacing(rate, service, sources), rel=0.04
    )


@pytest.mark.parametrize("rho", [0.2, 0.53, 0.8])
def test_fifo(rho):
    assert mean_served("fifo", 2 * rho, 2.0, 1) == pytest.approx(mean_age_fifo(2 * rho, 2.0), rel=0.05)


def test_fifo_is_best_near_half_load_and_explodes():
    ages = [mean_age_fifo(rho, 1.0) for rho in np.arange(0.05, 1.0, 0.01)]
    assert 0.05 + 0.01 * int(np.argmin(ages)) == pytest.approx(0.53, abs=0.011)
    assert mean_age_fifo(1.0, 1.0) == math.inf


def test_the_design_table_of_the_notes():
    """Formula 2, N = 5, 190 prototypes a second: three entries worked out there."""
    for rate, length, age in ((10, 160, 3.47), (1, 40, 1.84), (0.125, 10, 8.21)):
        assert mean_age_preempting(rate, 190 / length, 4) == pytest.approx(age, abs=0.006)
    fast, slow = (mean_age_preempting(rate, 190 / 160, 4) for rate in (10, 1))
    assert slow / fast == pytest.approx(1.26, abs=0.01)


@pytest.mark.parametrize(("jitter", "passed"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 0.3), (0.5, 0.3)])
def test_paced_sending(jitter, passed):
    rng = np.random.default_rng(0)
    times = (3.0 * (1 + rng.uniform(-jitter, jitter, 60_000))).cumsum()
    meter = AgeMeter()
    for at in times[rng.random(60_000) < passed].tolist():
        meter.update(at, 0.0)
    expected = mean_age_paced(3.0, jitter, passed)
    assert meter.mean(meter.last_at) == pytest.approx(expected, rel=0.03)
    assert mean_age_paced(3.0) == mean_age_link(1 / 3.0) / 2


def test_turns():
    assert mean_age_turns(0.1, 5, 1.0, sequential=False) == pytest.approx(0.05)
    assert mean_age_turns(0.1, 5, 0.2, sequential=True) == pytest.approx(5 * mean_age_turns(0.1, 5, 0.2, False))


# ---- the meter ------------------------------------------------------------------------------------------------------


def test_a_sawtooth_by_hand():
    """Age 1 at time 10, up to 5 at 14, down to 2, up to 4 at 16: areas 12 and 6 over 6 s."""
    meter = AgeMeter()
    assert meter.current(3.0) == meter.mean(3.0) == math.inf
    meter.update(10.0, 1.0)
    assert meter.mean(10.0) == 1.0 and meter.current(12.0) == 3.0 and meter.mean(12.0) == 2.0
    meter.update(14.0, 2.0)
    assert meter.current(16.0) == 4.0 and meter.mean(16.0) == 18 / 6
    assert meter.updates == 2


def test_the_recent_mean_by_hand():
    """What lay at the broker is 100 s old; from then on news every 2 s, or every 4 s, fresh each time."""
    meter = AgeMeter()
    assert meter.recent(1.0) == math.inf
    meter.update(0.0, 100.0)
    assert meter.recent(5.0) == 105.0
    meter.update(10.0, 0.0)
    assert meter.recent(10.0) == 0.0 and meter.recent(14.0) == 2.0, "the first stretch does not count"
    for at in range(12, 12 + 2 * 40, 2):
        meter.update(float(at), 0.0)
    assert meter.recent(90.0) == 1.0 and len(meter.teeth) == RECENT_UPDATES
    assert meter.recent(190.0) == pytest.approx((64 * 1 + 100 * 50) / 164), "a link that is silent grows old"
    for at in range(94, 94 + 4 * RECENT_UPDATES, 4):
        meter.update(float(at), 0.0)
    assert meter.recent(meter.last_at) == 2.0 and meter.mean(meter.last_at) > 5


@pytest.mark.parametrize("passed", [1.0, 0.3])
def test_the_recent_mean_of_a_steady_link_is_its_mean(passed):
    rng = np.random.default_rng(2)
    found = []
    meter = AgeMeter()
    for at in np.arange(1.0, 60_001.0)[rng.random(60_000) < passed].tolist():
        meter.update(at, 0.0)
        found.append(meter.recent(at))
    found = found[RECENT_UPDATES + 1 :]
    assert np.mean(found) == pytest.approx(mean_age_paced(1.0, 0.0, passed), rel=0.05)


def test_old_news_changes_nothing():
    meter = AgeMeter()
    meter.update(0.0, 0.0)
    before = meter.dump()
    meter.update(2.0, 2.0)
    meter.update(3.0, 9.0)
    assert meter.dump() == before


def test_copies_and_checkpoints():
    meter = AgeMeter()
    for at in (1.0, 2.5, 7.0):
        meter.update(at, 0.25)
    copy = dataclasses.replace(meter)
    dumped = meter.dump()
    assert copy == meter == AgeMeter.load(dumped) == AgeMeter.load(unpack(pack(dumped)))
    assert AgeMeter.load({**dumped, "peaks_s": 9.0}) == meter, "as meters once were"
    assert all(map(math.isfinite, [*dumped.pop("teeth")[0], *dumped.values()]))
    copy.update(9.0, 0.0)
    assert copy != meter
    with pytest.raises(ValueError, match="not an age meter"):
        AgeMeter.load({"updates": 1})


def test_bad_input_is_named():
    meter = AgeMeter()
    meter.update(5.0, 0.0)
    for at, age in ((4.0, 0.0), (6.0, -1.0), (math.nan, 0.0), (6.0, math.inf)):
        with pytest.raises(ValueError, match="update"):
            meter.update(at, age)
    with pytest.raises(ValueError, match="above zero"):
        mean_age_link(0.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_age_paced(1.0, jitter=2.0)
