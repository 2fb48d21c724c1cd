"""Optimisers step as torch.optim does, alone and in batches, and go on bit for bit after a checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeswarm.agent.snapshot import pack, unpack
from edgeswarm.maths.optimisers import (
    KINDS,
    SCHEDULES,
    SLOTS,
    Moments,
    Optimiser,
    clipped,
    dump,
    init,
    load,
    rate_at,
    update,
)  # fmt: skip

STEPS = 50
CASES = [
    Optimiser("sgd", 0.05),
    Optimiser("sgd", 0.05, weight_decay=0.1, clip=0.5),
    Optimiser("momentum", 0.02, 0.9),
    Optimiser("momentum", 0.02, 0.8, weight_decay=0.05),
    Optimiser("nesterov", 0.02, 0.9, clip=1.0),
    Optimiser("nesterov", 0.02, 0.7, weight_decay=0.01),
    Optimiser("rmsprop", 0.01, decay=0.95, epsilon=1e-6),
    Optimiser("rmsprop", 0.01, decay=0.99, weight_decay=0.1, clip=2.0),
    Optimiser("adam", 0.01, 0.9, 0.999),
    Optimiser("adam", 0.03, 0.8, 0.95, epsilon=1e-4, weight_decay=0.1, clip=0.7),
]


def name(optimiser: Optimiser) -> str:
    return f"{optimiser.kind}-{optimiser.weight_decay}-{optimiser.clip}"


def slope(p, step):
    """Of a bent bowl that turns with the step: gradients change sign, length and direction."""
    curve = np.linspace(0.2, 3.0, p.shape[-1])
    return p * 2.0 / (p * p + 1.0) + p * _like(curve, p) - math.sin(step / 3.0)


def _like(a, p):
    if isinstance(p, np.ndarray):
        return a.astype(p.dtype)
    import torch

    return torch.from_numpy(a).to(p.dtype)


def start(seed, n=23, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=n).astype(dtype)


def steps(optimiser, p, number=STEPS):
    moments = init(optimiser, p)
    for step in range(number):
        p, moments = update(optimiser, p, slope(p, step), moments)
    return p, moments


def of_torch(optimiser, p):
    """The same steps by torch.optim, in float64."""
    torch = pytest.importorskip("torch", reason="compares with torch.optim")
    p = torch.nn.Parameter(torch.from_numpy(p.copy()))
    o = optimiser
    make = {
        "sgd": lambda: torch.optim.SGD([p], o.rate, weight_decay=o.weight_decay),
        "momentum": lambda: torch.optim.SGD([p], o.rate, o.momentum, weight_decay=o.weight_decay),
        "nesterov": lambda: torch.optim.SGD([p], o.rate, o.momentum, weight_decay=o.weight_decay, nesterov=True),
        "rmsprop": lambda: torch.optim.RMSprop([p], o.rate, o.decay, o.epsilon, o.weight_decay),
        "adam": lambda: torch.optim.Adam([p], o.rate, (o.momentum, o.decay), o.epsilon, o.weight_decay),
    }
    theirs = make[o.kind]()
    for step in range(STEPS):
        p.grad = slope(p.detach(), step).clone()
        if o.clip:
            torch.nn.utils.clip_grad_norm_([p], o.clip)
        theirs.step()
    return p.detach().numpy()


@pytest.mark.parametrize("optimiser", CASES, ids=name)
def test_steps_are_those_of_torch(optimiser):
    got, moments = steps(optimiser, start(1))
    np.testing.assert_allclose(got, of_torch(optimiser, start(1)), rtol=1e-10, atol=1e-12)
    assert moments.step == STEPS and len(moments.slots) == SLOTS[optimiser.kind]


@pytest.mark.parametrize("optimiser", CASES, ids=name)
def test_float32_stays_float32_and_near(optimiser):
    got, moments = steps(optimiser, start(1, dtype=np.float32))
    assert {a.dtype for a in (got, *moments.slots)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(got, steps(optimiser, start(1))[0], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("optimiser", CASES, ids=name)
def test_a_batch_steps_as_its_rows_alone(optimiser):
    rows = [start(seed) * 3.0**seed for seed in range(4)]
    together, moments = steps(optimiser, np.stack(rows))
    for row, one in zip(together, rows, strict=True):
        np.testing.assert_allclose(row, steps(optimiser, one)[0], rtol=1e-12, atol=1e-14)
    assert all(slot.shape == together.shape for slot in moments.slots)


@pytest.mark.parametrize("optimiser", CASES, ids=name)
def test_tensors_step_as_arrays(optimiser):
    torch = pytest.importorskip("torch", reason="the same lines on tensors")
    rows = np.stack([start(seed) * 2.0**seed for seed in range(3)])
    for p in (rows[0], rows):
        got, moments = steps(optimiser, torch.from_numpy(p.copy()))
        assert got.dtype == torch.float64 and all(slot.shape == got.shape for slot in moments.slots)
        np.testing.assert_allclose(got.numpy(), steps(optimiser, p)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimiser", CASES, ids=name)
def test_nothing_given_is_changed(optimiser):
    p, moments = steps(optimiser, start(2), 3)
    g = slope(p, 3)
    before = [a.copy() for a in (p, g, *moments.slots)]
    new, later = update(optimiser, p, g, moments)
    assert all(np.array_equal(a, b) for a, b in zip(before, (p, g, *moments.slots), strict=True))
    assert not any(np.shares_memory(a, b) for a in (new, *later.slots) for b in (p, g, *moments.slots))


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_bit_for_bit(kind):
    optimiser = Optimiser(kind, 0.01, schedule="inverse_sqrt", warmup=5)
    p, moments = steps(optimiser, start(3, dtype=np.float32), 11)
    saved = unpack(pack({"params": p, "moments": dump(moments)}))
    q, again = saved["params"], load(optimiser, saved["moments"], saved["params"])
    for step in range(11, 20):
        p, moments = update(optimiser, p, slope(p, step), moments)
        q, again = update(optimiser, q, slope(q, step), again)
    assert p.tobytes() == q.tobytes() and moments.step == again.step
    assert all(a.tobytes() == b.tobytes() for a, b in zip(moments.slots, again.slots, strict=True))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "damaged"),
        ({"step": True, "slots": []}, "damaged"),
        ({"step": -1, "slots": [np.zeros(4, np.float32)]}, "damaged"),
        ({"step": 1, "slots": 7}, "damaged"),
        ({"step": 1, "slots": []}, "another kind of optimiser"),
        ({"step": 1, "slots": [np.zeros(5, np.float32)]}, "another model"),
        ({"step": 1, "slots": [np.zeros(4)]}, "another model"),
        ({"step": 1, "slots": [[0.0] * 4]}, "another model"),
        ({"step": 1, "slots": [np.full(4, np.nan, np.float32)]}, "not finite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_one_line(state, text):
    with pytest.raises(ValueError, match=text) as error:
        load(Optimiser("momentum"), state, np.zeros(4, np.float32))
    assert "\n" not in str(error.value)


def test_first_slots_are_plain_zeros():
    slot = init(Optimiser("momentum"), np.array([-1.0, 0.0, 2.0], np.float32)).slots[0]
    assert slot.tobytes() == np.zeros(3, np.float32).tobytes()


def test_clipping_by_hand():
    np.testing.assert_allclose(clipped(np.array([3.0, 4.0]), 1.0), [0.6, 0.8], rtol=1e-6)
    assert clipped(np.array([3.0, 4.0]), 10.0).tolist() == [3.0, 4.0]
    assert clipped(np.zeros(2), 1.0).tolist() == [0.0, 0.0]
    rows = clipped(np.array([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)


def test_rates_by_hand():
    warm = Optimiser(rate=1.0, warmup=4)
    assert [rate_at(warm, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    falls = Optimiser(rate=1.0, schedule="step", milestones=(2, 4), drop=2.0)
    assert [rate_at(falls, step) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    wave = Optimiser(rate=2.0, schedule="cosine", horizon=4)
    np.testing.assert_allclose([rate_at(wave, step) for step in (0, 2, 4, 9)], [2.0, 1.0, 0.0, 0.0], atol=1e-15)
    root = Optimiser(rate=1.0, schedule="inverse_sqrt", warmup=4)
    np.testing.assert_allclose([rate_at(root, step) for step in (1, 3, 15)], [0.5, 1.0, 0.5])


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_rates_are_those_of_torch(schedule):
    torch = pytest.importorskip("torch", reason="compares with torch.optim.lr_scheduler")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    ours = Optimiser("sgd", 0.3, schedule=schedule, milestones=(5, 12), drop=10.0, horizon=20)
    plans = {
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(theirs, [5, 12], 0.1),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 20),
    }
    plan = plans[schedule]()
    for step in range(20):
        assert rate_at(ours, step) == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        theirs.step()
        plan.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_are_positive_before_the_horizon_and_never_above_the_rate(schedule):
    optimiser = Optimiser(rate=0.1, schedule=schedule, warmup=3, milestones=(7,), horizon=30)
    rates = [rate_at(optimiser, step) for step in range(30)]
    assert all(0 < rate <= 0.1 for rate in rates) and rates[3:] == sorted(rates[3:], reverse=True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kind", "lion"), ("schedule", "linear"), ("rate", 0.0), ("rate", math.nan), ("rate", math.inf),
        ("momentum", 1.0), ("momentum", -0.1), ("decay", 1.0), ("epsilon", 0.0), ("weight_decay", -1.0),
        ("clip", -1.0), ("clip", math.nan), ("warmup", -1), ("drop", 0.0), ("milestones", (4, 2)), ("milestones", (0,)),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(setting, value):
    with pytest.raises(ValueError, match=f"optimiser {setting} is") as error:
        Optimiser(**{setting: value})
    assert "\n" not in str(error.value)


def test_schedules_need_their_settings():
    with pytest.raises(ValueError, match="milestones"):
        Optimiser(schedule="step")
    with pytest.raises(ValueError, match="horizon"):
        Optimiser(schedule="cosine", warmup=9, horizon=9)


def test_the_step_count_drives_rate_and_bias_correction():
    """Adam's first step has the length of the rate whatever the gradient; replaying from a count does not."""
    adam = Optimiser("adam", 0.1)
    p, g = np.zeros(1), np.full(1, 1e-3)
    first, moments = update(adam, p, g, init(adam, p))
    np.testing.assert_allclose(first, [-0.1], rtol=1e-4)
    late, _ = update(adam, p, g, Moments(1000, init(adam, p).slots))
    assert not np.allclose(late, first) and moments.step == 1
    assert update(replace(adam, warmup=10), p, g, init(adam, p))[0] == pytest.approx(-0.01, rel=1e-4)
