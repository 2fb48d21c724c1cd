"""GATTA and its control, the averaged body with a private head: what is told, mixed, trained and skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import Gradient, LocalEpoch
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.compress import compress, restore
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import Weights
from edgeswarm.models.card import BODY, HEAD, Parameter
from edgeswarm.models.perceptron import perceptron
from edgeswarm.strategies import checks
from edgeswarm.strategies.base import (
    Batch,
    Decision,
    Listen,
    Note,
    Peers,
    Received,
    Send,
    Started,
    Woke,
    equipped,
    finish,
)
from edgeswarm.strategies.body_average import BodyAverage
from edgeswarm.strategies.exchange import model_number
from edgeswarm.strategies.gatta import GATTA, places_of
from tests import zoo
from tests.tiny_model import tiny

SCHEMA = 7
MODEL = tiny((checks.D,), ("no", "yes"))
BODY_SIZE = MODEL.card.body_size
BACKEND = ReferenceBackend()
BACKEND.load(MODEL)
KNOBS: dict[str, Any] = {"period_s": 3.0, "window": 40, "steps": 3, "batch": 8, "scheme": "float32"}
PLAIN: dict[str, Any] = {**KNOBS, "head_scheme": "float32"}


def made(method: Any, **settings: Any) -> Any:
    return equipped(method(**settings), SCHEMA, MODEL, topology=Topology(weights="uniform"))


class Device:
    """One node, driven by hand: events in, actions out."""

    def __init__(self, strategy: Any, peers: tuple[str, ...] = ("bob", "cid"), rows: int = 20) -> None:
        self.strategy, self.at, self.asked = strategy, 0.0, list[Any]()
        self.state = strategy.init("ann", 1)
        self.step(Started(0.0, 1))
        self.step(Peers(0.0, peers))
        rng = np.random.default_rng(3)
        x = rng.normal(size=(rows, checks.D)).astype(np.float32)
        self.step(Batch(0.0, x, tuple("yes" if row[0] > 0 else "no" for row in x)))

    def step(self, event: Any) -> list[Any]:
        def answer(request: Any) -> Any:
            self.asked.append(request)
            return BACKEND.answer(request)

        self.state, actions = finish(self.strategy.step(self.state, event), answer)
        return actions

    def round(self) -> list[Any]:
        self.at += self.strategy.period_s
        return self.step(Woke(self.at, "train"))

    def hear(self, peer: str, part: str, vector: Any, version: int = 1, age_s: float = 0.0) -> list[Any]:
        values = compress(np.asarray(vector, np.float32), "float32")
        number = model_number(MODEL.card.hash)
        return self.step(
            Received(self.at, peer, Weights(SCHEMA, number, part, 1, version, values, samples=5, age_s=age_s))
        )


def told(actions: list[Any]) -> dict[str, Any]:
    """What was said, by part."""
    return {
        action.message.part: restore(action.message.values)
        for action in actions
        if isinstance(action, Send) and isinstance(action.message, Weights)
    }


def notes(actions: list[Any]) -> dict[str, float]:
    return {action.name: action.value for action in actions if isinstance(action, Note) and not action.peer}


def listened(actions: list[Any]) -> set[tuple[str, str]]:
    (found,) = [set(action.to) for action in actions if isinstance(action, Listen)]
    return found


def head(seed: int) -> Any:
    start = MODEL.initial[BODY_SIZE:]
    return start + np.random.default_rng(seed).normal(size=start.size).astype(np.float32)


# ---- the control -----------------------------------------------------------------------------------------------------


def test_bodies_are_averaged_alike_and_the_head_never_leaves() -> None:
    """Worked by hand: three nodes, uniform weights, so a third each."""
    device = Device(made(BodyAverage, **KNOBS))
    first = device.round()
    assert set(told(first)) == {"body"}
    own = told(first)["body"]
    assert np.array_equal(own, device.state.params[:BODY_SIZE])
    device.hear("bob", "body", own + 3), device.hear("cid", "body", own - 1.5)
    np.testing.assert_allclose(device.strategy.served(device.state)[:BODY_SIZE], own + 0.5, rtol=1e-5)
    assert np.array_equal(device.strategy.served(device.state)[BODY_SIZE:], device.state.params[BODY_SIZE:])
    device.round()
    epoch = device.asked[-1]
    assert isinstance(epoch, LocalEpoch)
    np.testing.assert_allclose(epoch.params[:BODY_SIZE], own + 0.5, rtol=1e-5)


def test_a_head_that_somebody_tells_is_not_listened_to_by_the_control() -> None:
    device = Device(made(BodyAverage, **KNOBS))
    assert listened(device.step(Peers(0.0, ("bob",)))) == {("bob", "body")}
    before = device.state
    assert device.hear("bob", "head", head(1)) == [] and device.state is before


def test_on_a_slower_clock_the_body_is_told_and_averaged_every_third_round() -> None:
    device = Device(made(BodyAverage, **KNOBS, body_every=3))
    spoke = []
    for number in range(1, 8):
        before = device.state.params[:BODY_SIZE]
        actions = device.round()
        spoke.append("body" in told(actions))
        went_on = np.array_equal(device.asked[-1].params[:BODY_SIZE], before)
        assert went_on == (number not in (4, 7)), "only then does training begin at the average"
        device.hear("bob", "body", np.full(BODY_SIZE, 100.0), number)
        own = device.state.params[:BODY_SIZE]
        served = device.strategy.served(device.state)[:BODY_SIZE]
        np.testing.assert_allclose(served, own + (100 - own) / 3, rtol=1e-4, err_msg="answers are the average's")
    assert spoke == [False, False, True, False, False, True, False]


def test_alone_in_the_swarm_it_is_isolated_learning() -> None:
    device = Device(made(BodyAverage, **KNOBS), peers=())
    for _ in range(4):
        device.round()
    assert np.array_equal(device.strategy.served(device.state), device.state.params)


# ---- attention against the control -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"reading": "a", "mix": 1.0},
        {"reading": "b", "mix": 1.0},
        {"reading": "class", "least": 1.0},
    ],
    ids=["a", "b", "class"],
)
@pytest.mark.parametrize("rule", [
    {"optimiser": "rmsprop", "rate": 1e-3, "clip": 0.0, "restart": True},
    {"optimiser": "momentum", "clip": 0.05},
    {"optimiser": "adam", "weight_decay": 0.01},
], ids=["rmsprop", "clipped", "adam"])  # fmt: skip
def test_with_the_gate_closed_it_is_the_control_bit_for_bit(settings: dict[str, Any], rule: dict[str, Any]) -> None:
    def ends(method: Any, more: dict[str, Any]) -> Any:
        strategy, states = made(method, **KNOBS, **rule, **more), {}
        story = checks.play(
            strategy, BACKEND.answer, watch=lambda _, before, event, after: states.__setitem__(after.node, after)
        )
        bodies = [told(scene.actions).get("body") for scene in story if told(scene.actions)]
        return {node: strategy.served(state) for node, state in states.items()}, bodies

    (control, said), (ours, also) = ends(BodyAverage, {}), ends(GATTA, {"head_scheme": "float32", **settings})
    assert len(said) == len(also) >= 30
    for one, two in zip(said, also, strict=True):
        assert np.array_equal(one, two)
    for node in checks.NODES:
        assert np.array_equal(control[node], ours[node])


def test_an_open_gate_is_something_else() -> None:
    device, closed = Device(made(GATTA, **PLAIN, reading="b", mix=0.5)), Device(made(BodyAverage, **KNOBS))
    for each in (device, closed):
        each.round()
    assert not np.array_equal(device.state.params, closed.state.params)


@pytest.mark.parametrize("reading", ["a", "b", "class"])
def test_what_is_told_is_what_the_reading_says(reading: str) -> None:
    device = Device(made(GATTA, **PLAIN, reading=reading, mix=0.6, least=-1.0))
    device.round()
    device.hear("bob", "head", head(1)), device.hear("cid", "head", head(2))
    before = device.state
    said = told(device.round())
    phi = device.state.params[BODY_SIZE:]
    assert np.array_equal(said["body"], device.state.params[:BODY_SIZE])
    if reading == "class":
        assert np.array_equal(said["head"], phi)
        return
    found = device.strategy._blend(replace(device.state, arrays={**device.state.arrays, "h": before.arrays["h"]}),
                                   *device.strategy._others(device.state, device.at)[1:])  # fmt: skip
    assert np.array_equal(said["head"], found.aggregate if reading == "a" else found.head)
    np.testing.assert_allclose(found.head, 0.6 * phi + 0.4 * found.aggregate, rtol=1e-5)
    assert np.array_equal(device.state.arrays["h"], said["head"])


@pytest.mark.parametrize("reading", ["a", "b", "class"])
def test_nothing_that_is_trained_here_changes_by_hearing_and_no_gradient_reaches_a_peers_head(reading: str) -> None:
    device = Device(made(GATTA, **PLAIN, reading=reading))
    device.round()
    before = device.state
    bobs = head(1)
    device.hear("bob", "head", bobs), device.hear("bob", "body", np.ones(BODY_SIZE))
    assert device.state.params is before.params and device.state.arrays == before.arrays
    device.round()
    assert np.array_equal(device.state.copies["bob/head"].vector, bobs)
    asked = [request for request in device.asked if isinstance(request, Gradient)]
    assert len(asked) == (0 if reading == "class" else 6), "a gradient for each step, of the model alone"
    assert all(request.params.shape == (MODEL.card.size,) for request in asked)


def test_attention_and_gate_are_trained_and_uniform_leaves_the_scores_alone() -> None:
    for uniform in (False, True):
        device = Device(made(GATTA, **PLAIN, reading="b", mix=0.5, train_mix=True, uniform=uniform))
        device.round()
        device.hear("bob", "head", head(1)), device.hear("cid", "head", head(2))
        before = device.strategy._attention(device.state)
        actions = device.round()
        after = device.strategy._attention(device.state)
        assert np.array_equal(before.other, after.other) == uniform
        assert not np.array_equal(before.bias, after.bias) and before.gate != after.gate
        assert notes(actions)["mix"] == pytest.approx(1 / (1 + np.exp(-after.gate[0])), rel=1e-5)
        weights = device.strategy.weights(device.state)
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-6)
        assert (weights == {"bob": 0.5, "cid": 0.5}) == uniform


def test_the_normal_start_is_one_vector_for_everybody() -> None:
    strategy = made(GATTA, **PLAIN, reading="a", start_head="normal")
    ann, bob = (strategy._h(strategy.init(node, 1)) for node in ("ann", "bob"))
    assert np.array_equal(ann, bob) and not np.array_equal(ann, MODEL.initial[BODY_SIZE:])
    other = made(GATTA, **PLAIN, reading="a")
    assert np.array_equal(other._h(other.init("ann", 1)), MODEL.initial[BODY_SIZE:])


# ---- class by class --------------------------------------------------------------------------------------------------


def test_a_like_head_is_averaged_and_an_unlike_one_is_not() -> None:
    device = Device(made(GATTA, **PLAIN, sharpness=0.0, least=0.6))
    device.round()
    own, start = device.state.params[BODY_SIZE:], MODEL.initial[BODY_SIZE:]
    device.hear("bob", "head", start + 3 * (own - start)), device.hear("cid", "head", start - 5 * (own - start))
    served = device.strategy.served(device.state)[BODY_SIZE:]
    np.testing.assert_allclose(served, start + 2 * (own - start), rtol=1e-4, atol=1e-6)
    assert device.strategy.weights(device.state) == {"bob": 0.5, "cid": 0.0}
    device.round()
    np.testing.assert_allclose(device.asked[-1].params[BODY_SIZE:], served, rtol=1e-6)


def test_where_numbers_of_a_head_belong() -> None:
    places = places_of(MODEL.card)  # W (4, 2), then b (2,)
    assert places.classes.tolist() == [0, 1] * 5 and places.features.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    torch_like = replace(MODEL.card, labels=("a", "b", "c"), parameters=(
        Parameter("body", (5,), BODY), Parameter("weight", (3, 2), HEAD), Parameter("bias", (3,), HEAD),
        Parameter("auxiliary", (2, 4), HEAD),
    ))  # fmt: skip
    places = places_of(torch_like)
    assert places.classes.tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2, *[-1] * 8]
    assert places.features.tolist()[:9] == [0, 1, 0, 1, 0, 1, 2, 2, 2] and places.count == 3


@pytest.mark.parametrize("classes", [3, 4, 5])
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_a_perceptrons_main_head_is_found_whatever_its_embedding(classes: int, heads: int) -> None:
    held = perceptron([f"c{at}" for at in range(classes)], np.zeros(3), np.ones(3), 4, heads=heads)
    places = places_of(held.card)  # W (4, classes), b (classes,), then V and v
    assert places.classes[: 5 * classes].tolist() == list(range(classes)) * 5
    assert places.features[: 5 * classes].tolist() == np.repeat(np.arange(5), classes).tolist()
    assert (places.classes[5 * classes :] == -1).all() and places.classes.size == held.card.size - held.card.body_size


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_the_main_head_of_an_exported_network_is_found(classes: int, heads: int) -> None:
    held = zoo.built("mlp", classes, shape=(6,), options={"hidden": (4,)}, heads=heads)
    places = places_of(held.card)
    layout = held.card.layout()
    found = {
        name: places.classes[where.start - held.card.body_size : where.stop - held.card.body_size]
        for name, (where, _) in layout.items()
        if where.start >= held.card.body_size
    }
    main = {name for name, whose in found.items() if (whose >= 0).any()}
    assert len(main) == 2 and not any("auxiliary" in name for name in main)
    for name in main:
        each = layout[name][1][1] if len(layout[name][1]) > 1 else 1
        assert found[name].tolist() == np.repeat(np.arange(classes), each).tolist()


def test_a_head_that_could_be_read_in_two_ways_is_refused_in_one_line() -> None:
    square = replace(MODEL.card, labels=("a", "b"), parameters=(
        Parameter("A", (3,), BODY), Parameter("W", (2, 2), HEAD), Parameter("b", (2,), HEAD)))  # fmt: skip
    double = replace(square, parameters=(*square.parameters, Parameter("X", (2, 5), HEAD), Parameter("x", (2,), HEAD)))
    for card, text in ((square, "which axis of W counts classes"), (double, "has 2 weights that could be")):
        with pytest.raises(ValueError, match=text) as caught:
            places_of(card)
        assert "\n" not in str(caught.value)
    start = np.zeros(square.size, np.float32)
    with pytest.raises(ValueError, match="which axis"):
        GATTA(card=square, start=start)
    GATTA(card=square, start=start, reading="b")


def test_a_device_with_one_class_and_one_without_rows() -> None:
    device = Device(made(GATTA, **PLAIN), rows=0)
    assert told(device.round()) == {} and device.state.rounds == 0
    device.step(Batch(4.0, np.ones((3, checks.D), np.float32), ("yes",) * 3))
    device.hear("bob", "head", head(1))
    assert set(told(device.round())) == {"body", "head"}
    assert np.isfinite(device.strategy.served(device.state)).all()


# ---- old heads, and heads that are not wanted ------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["b", "class"])
def test_an_old_head_fades_and_then_counts_for_nothing(reading: str) -> None:
    weights = []
    for age_rounds in (0.0, 4.0, 9.0, 10.0):
        device = Device(made(GATTA, **PLAIN, reading=reading, least=-1.0, fading=0.5, age_limit=10.0))
        device.round()
        device.hear("bob", "head", head(1), age_s=3.0 * age_rounds), device.hear("cid", "head", head(2))
        device.round()
        weights.append(device.strategy.weights(device.state).get("bob"))
    assert weights[0] > weights[1] > weights[2] > 0 and weights[3] is None


@pytest.mark.parametrize("reading", ["a", "b", "class"])
def test_a_head_beyond_all_reason_counts_for_nothing(reading: str) -> None:
    device = Device(made(GATTA, **PLAIN, reading=reading, least=-1.0))
    device.round()
    device.hear("bob", "head", head(1)), device.hear("cid", "head", np.full(head(1).size, 3e38))
    said = told(device.round())
    assert np.abs(said["head"]).max() < 100 and set(device.strategy.weights(device.state)) == {"bob"}


def crowded(**settings: Any) -> Device:
    """After a round with four heads, one of which is liked much better than the others."""
    device = Device(made(GATTA, **PLAIN, reading="b", mix=0.5, **settings), peers=("bob", "cid", "dan", "eve"))
    device.round()
    liked = device.strategy._attention(device.state).other
    for number, peer in enumerate(("bob", "cid", "dan", "eve")):
        towards = {"bob": 40.0, "cid": 39.0}.get(peer, -40.0 - number)
        device.hear(peer, "head", towards * liked / (liked @ liked))
        device.hear(peer, "body", np.full(BODY_SIZE, float(number)))
    return device


@pytest.mark.parametrize("settings", [{"skip": "share"}, {"skip": "top", "top_share": 0.99}])
def test_a_head_of_little_weight_is_unsubscribed_and_its_body_is_not(settings: dict[str, Any]) -> None:
    device = crowded(warm_rounds=0, probe_every=5, **settings)
    everything = {(peer, part) for peer in ("bob", "cid", "dan", "eve") for part in ("body", "head")}
    actions = device.round()
    assert everything - listened(actions) == {("dan", "head"), ("eve", "head")}
    said = notes(actions)
    assert said["skipped"] == 2 and said["skipped_weight"] < 0.01 and said["skipped_bound"] >= 0
    skipped = [action for action in actions if isinstance(action, Decision) and action.outcome == "skipped"]
    assert [action.peer for action in skipped] == ["dan", "eve"]
    assert set(device.strategy.weights(device.state)) == {"bob", "cid"}, "weights are those of the rest, made anew"
    assert sum(device.strategy.weights(device.state).values()) == pytest.approx(1.0, abs=1e-6)
    for number in (3, 4):
        assert not [a for a in device.round() if isinstance(a, Listen)], f"round {number}: as it was"
    assert listened(device.round()) == everything, "the fifth round probes"
    assert listened(device.step(Peers(device.at, ("bob", "dan")))) == {
        (peer, part) for peer in ("bob", "dan") for part in ("body", "head")
    }


def test_nobody_is_skipped_while_it_warms_up() -> None:
    device = crowded(warm_rounds=3, skip="share", probe_every=100)
    assert not [action for action in device.round() if isinstance(action, Listen)]
    assert listened(device.round()) < {(p, part) for p in ("bob", "cid", "dan", "eve") for part in ("body", "head")}


def test_one_head_is_always_heard() -> None:
    device = crowded(warm_rounds=0, skip="share", skip_share=1.0, probe_every=100)
    left = []
    for _ in range(5):
        device.round()
        left.append(len(device.strategy.weights(device.state)))
    assert left == [2, 2, 2, 2, 2], "above their mean weight are two of four; nobody chooses anew before the next probe"


@pytest.mark.parametrize("settings", [{"skip": "share"}, {"skip": "top", "top_share": 0.6}])
def test_who_is_skipped_is_chosen_once_between_two_probes(settings: dict[str, Any]) -> None:
    device = Device(made(GATTA, **PLAIN, reading="b", uniform=True, warm_rounds=0, probe_every=9, **settings),
                    peers=tuple(f"p{at}" for at in range(10)))  # fmt: skip
    device.round()
    for at in range(10 if settings["skip"] == "top" else 4):
        device.hear(f"p{at}", "head", head(at))
    seen = [notes(device.round()) for _ in range(7)]
    if settings["skip"] == "share":
        assert {said["skipped"] for said in seen} == {0}, "of four that are heard each weighs more than half of 1 / 10"
        return
    assert {said["skipped"] for said in seen} == {4}
    assert all(said["skipped_weight"] == pytest.approx(0.4) and said["skipped_bound"] > 0 for said in seen)
    probed = notes(device.round())
    assert probed["skipped"] == 0 == probed["skipped_weight"]


def test_the_control_that_skips_whole_links_drops_bodies_too() -> None:
    device = crowded(warm_rounds=0, skip="link", probe_every=100)
    assert listened(device.round()) == {(peer, part) for peer in ("bob", "cid") for part in ("body", "head")}
    assert set(device.strategy.heard(device.state, "body", device.at)) == {"bob", "cid"}


def test_a_checkpoint_remembers_who_is_skipped_and_what_was_trained() -> None:
    device = crowded(warm_rounds=0, skip="share", probe_every=100, optimiser="adam", train_mix=True)
    device.round()
    kept = checks.unpacked(checks.packed(device.strategy.dump(device.state)))
    again = Device(device.strategy, peers=("bob", "cid", "dan", "eve"))
    again.state, again.at = device.strategy.load("ann", kept), device.at
    one, two = device.round(), again.round()
    assert checks.plain(one) == checks.plain(two)
    assert checks.plain(device.strategy.dump(device.state)) == checks.plain(device.strategy.dump(again.state))


def test_steps_that_leave_the_finite_numbers_are_given_up() -> None:
    device = Device(made(GATTA, **{**PLAIN, "steps": 60}, reading="b", rate=1e3, clip=0.0, weight_decay=10.0))
    (decision,) = [action for action in device.round() if isinstance(action, Decision)]
    assert (decision.outcome, decision.reason) == ("refused", "not_finite")
    assert device.state.params is MODEL.initial and device.state.rounds == 0 and not device.state.arrays


def test_another_optimiser_begins_anew_with_the_attention_kept() -> None:
    device = Device(made(GATTA, **PLAIN, reading="b", optimiser="adam"))
    for _ in range(3):
        device.round()
    kept = device.strategy.dump(device.state)
    other = Device(made(GATTA, **PLAIN, reading="b", optimiser="rmsprop"))
    other.state, other.at = other.strategy.load("ann", kept), device.at
    assert np.array_equal(other.strategy._attention(other.state).vector(), kept["arrays"]["attention"])
    other.round()
    assert other.state.rounds == 4 and np.isfinite(other.strategy.served(other.state)).all()
