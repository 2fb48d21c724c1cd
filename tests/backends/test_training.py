"""The loop of a LocalEpoch: what it calls, when it stops, and that it leaves the request as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeswarm.backends.base import LocalEpoch
from edgeswarm.backends.training import finite, run, train
from edgeswarm.errors import ModelError
from edgeswarm.maths.optimisers import KINDS, Moments, Optimiser, init, update
from edgeswarm.models.card import PRIVATE
from tests.backends.hand_made import CARD, SIZE, some_rows

CENTRE = np.linspace(-1, 1, SIZE).astype(np.float32)


def bowl(params, inputs):
    """Half the squared distance to a centre, times the batch's weight."""
    mass = inputs["w"].sum()
    return (params - CENTRE) * mass, ((params - CENTRE) ** 2).sum() / 2 * mass


def nothing():
    pass


def epoch(optimiser=None, picks=((0, 1), (2, 3), (4, -1)), **changes):
    optimiser = optimiser or Optimiser("sgd", 0.1)
    params = np.ones(SIZE, np.float32)
    made = LocalEpoch("m", "ce", params, some_rows("ce"), {PRIVATE: np.array(picks, np.int32)}, optimiser,
                      init(optimiser, params))  # fmt: skip
    return replace(made, **changes)


def arrays_of(request):
    reference = [] if request.proximal is None else [request.proximal[1]]
    return [request.params, *request.data.values(), *request.picks.values(), *request.moments.slots, *reference]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_optimisers_own(kind):
    request = epoch(Optimiser(kind, 0.05, clip=0.5, weight_decay=0.01))
    params, moments, losses = request.params, request.moments, []
    for pick in ([0, 1], [2, 3], [4]):
        gradient, loss = bowl(params, {"w": request.data["w"][pick]})
        losses.append(loss)
        params, moments = update(request.optimiser, params, gradient, moments)
    got = train(CARD, request, bowl, nothing)
    np.testing.assert_allclose(got.params, params, rtol=1e-6)
    np.testing.assert_allclose(got.losses, losses, rtol=1e-6)
    assert got.moments.step == 3 and got.params.dtype == got.losses.dtype == np.float32
    assert all(slot.dtype == np.float32 for slot in got.moments.slots)


def test_two_epochs_are_one_of_twice_the_steps():
    optimiser = Optimiser("adam", 0.01, schedule="cosine", horizon=20)
    picks = np.arange(6).reshape(3, 2)
    whole = train(CARD, epoch(optimiser, np.concatenate([picks, picks])), bowl, nothing)
    half = train(CARD, epoch(optimiser, picks), bowl, nothing)
    rest = train(CARD, epoch(optimiser, picks, params=half.params, moments=half.moments), bowl, nothing)
    assert rest.params.tobytes() == whole.params.tobytes() and rest.moments.step == 6
    assert np.concatenate([half.losses, rest.losses]).tobytes() == whole.losses.tobytes()


def test_the_proximal_term_pulls_to_the_reference():
    reference = np.full(SIZE, 0.25, np.float32)
    request = epoch(picks=[[0, 1]], proximal=(0.5, reference))
    got = train(CARD, request, bowl, nothing)
    plain, loss = bowl(request.params, {"w": request.data["w"][:2]})
    drift = request.params - reference
    np.testing.assert_allclose(got.params, request.params - 0.1 * (plain + 0.5 * drift), rtol=1e-6)
    np.testing.assert_allclose(got.losses, [loss + 0.25 * (drift**2).sum()], rtol=1e-6)


def test_float64_throughout():
    got = train(CARD, epoch(Optimiser("adam")), bowl, nothing, np.float64)
    assert {a.dtype for a in (got.params, got.losses, *got.moments.slots)} == {np.dtype(np.float64)}


def test_no_steps_change_nothing():
    request = epoch(picks=np.zeros((0, 2)))
    got = train(CARD, request, bowl, lambda: pytest.fail("between"))
    assert got.params.tobytes() == request.params.tobytes() and got.losses.shape == (0,) and got.moments.step == 0
    assert not np.shares_memory(got.params, request.params)


def test_between_comes_before_every_step_but_the_first():
    order = []

    def slope(params, inputs):
        order.append("step")
        return bowl(params, inputs)

    train(CARD, epoch(), slope, lambda: order.append("between"))
    assert order == ["step", "between", "step", "between", "step"]


class GiveUp(Exception):
    pass


def raising(error, at):
    """A gradient that raises at a step."""
    calls = []

    def slope(params, inputs):
        calls.append(0)
        if len(calls) > at:
            raise error
        return bowl(params, inputs)

    return slope


def give_up():
    raise GiveUp


@pytest.mark.parametrize("error", [GiveUp(), MemoryError()])
@pytest.mark.parametrize("at", [0, 2])
def test_whatever_is_raised_leaves_the_request_as_it_was(error, at):
    request = epoch(Optimiser("adam"), proximal=(0.1, np.zeros(SIZE, np.float32)))
    before = [a.copy() for a in arrays_of(request)]
    with pytest.raises(type(error)):
        train(CARD, request, raising(error, at), nothing)
    with pytest.raises(GiveUp):
        train(CARD, request, bowl, give_up)
    train(CARD, request, bowl, nothing)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays_of(request), before, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_ends_the_epoch_and_is_placed(bad):
    calls = []

    def slope(params, inputs):
        calls.append(0)
        gradient, loss = bowl(params, inputs)
        return gradient, np.float32(bad) if len(calls) == 2 else loss

    request = epoch()
    before = request.params.copy()
    with pytest.raises(ModelError, match=r"loss is not finite at step 2 of 3 \(learning rate 0.1\): lower the rate"):
        train(CARD, request, slope, nothing)
    assert len(calls) == 2 and request.params.tobytes() == before.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_gradient_that_is_not_finite_does_not_get_out(kind, bad):
    """1e30: its square is not, which would leave rmsprop and adam standing still for ever."""

    def slope(params, inputs):
        gradient, _ = bowl(params, inputs)
        gradient[3] = bad
        return gradient, np.float32(1)

    optimiser = Optimiser(kind)
    if bad == 1e30 and kind not in ("rmsprop", "adam"):
        assert np.isfinite(train(CARD, epoch(optimiser), slope, nothing).params).all()
        return
    with pytest.raises(ModelError, match="step is not finite at step 3 of 3"):
        train(CARD, epoch(optimiser), slope, nothing)


def test_divergence_is_noticed():
    with pytest.raises(ModelError, match="not finite at step"):
        train(CARD, epoch(Optimiser("sgd", 1e12), picks=np.zeros((9, 2))), bowl, nothing)


@pytest.mark.parametrize(
    "moments", [Moments(0, ()), Moments(0, (np.zeros(3, np.float32),)), Moments(0, (np.zeros(SIZE),) * 2)]
)
def test_moments_of_another_optimiser_are_refused(moments):
    with pytest.raises(ModelError, match="start the optimiser anew"):
        train(CARD, epoch(Optimiser("momentum"), moments=moments), bowl, nothing)


def test_vectors_of_another_model_are_refused():
    for changes in ({"params": np.zeros(3, np.float32)}, {"proximal": (0.1, np.zeros(3, np.float32))}):
        with pytest.raises(ModelError, match="another model"):
            train(CARD, epoch(**changes), bowl, nothing)


# ---- batches of agents -----------------------------------------------------------------------------------------------


def batched(as_library):
    """Three agents with bowls of their own, in one call and one by one."""
    optimiser = Optimiser("momentum", 0.05, clip=0.4)
    centres = np.random.default_rng(1).normal(size=(3, SIZE))
    starts, references = np.zeros((3, SIZE)), np.ones((3, SIZE))

    def epoch_of(start, centre, reference):
        start, centre, reference = (as_library(a) for a in (start, centre, reference))
        return run(
            optimiser, start, init(optimiser, start), 8,
            lambda step, p: (p - centre, ((p - centre) ** 2).sum(-1) / 2), (0.3, reference), wait=True,
        )  # fmt: skip

    together = epoch_of(starts, centres, references)
    alone = [epoch_of(*each) for each in zip(starts, centres, references, strict=True)]
    return together, alone


def same(together, alone):
    params, moments, losses = together
    for agent, (p, m, its) in enumerate(alone):
        np.testing.assert_allclose(np.asarray(params)[agent], np.asarray(p), rtol=1e-12)
        np.testing.assert_allclose(np.asarray(moments.slots[0])[agent], np.asarray(m.slots[0]), rtol=1e-12)
        np.testing.assert_allclose([float(loss[agent]) for loss in losses], [float(loss) for loss in its], rtol=1e-12)


def test_a_batch_of_agents_is_its_agents_alone():
    same(*batched(np.asarray))


def test_tensors_go_through_the_same_loop():
    torch = pytest.importorskip("torch", reason="the loop on tensors")
    together, alone = batched(torch.from_numpy)
    assert isinstance(together[0], torch.Tensor) and together[2][0].shape == (3,)
    same(together, alone)
    np.testing.assert_allclose(together[0].numpy(), batched(np.asarray)[0][0], rtol=1e-12)


def test_waiting_places_the_loss_as_well():
    optimiser, start = Optimiser("sgd"), np.zeros((2, 3))
    losses = [np.array([1.0, 2.0]), np.array([1.0, np.nan]), np.array([1.0, 1.0])]
    with pytest.raises(ModelError, match="loss is not finite at step 2 of 3"):
        run(optimiser, start, init(optimiser, start), 3, lambda step, p: (p * 0, losses[step]), wait=True)


def test_finite():
    torch = pytest.importorskip("torch", reason="tensors too")
    for good in (1.0, np.float32(3e38), np.full(9, -3e38, np.float32), torch.full((9,), 3e38)):
        assert finite(good)
    with np.errstate(invalid="ignore"):
        for bad in (np.nan, np.float32(np.inf), np.array([1.0, -np.inf]), torch.tensor([0.0, float("nan")])):
            assert not finite(bad)
