"""What every model-sharing method has in common: what is heard, told, repaired and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from edgeswarm.agent.fields import settings_of
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.compress import compress
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import EVERYONE, SNAPSHOT, VECTOR_SCHEMES, Pull, Weights
from edgeswarm.strategies import STRATEGIES, checks
from edgeswarm.strategies.base import (
    Action,
    Batch,
    Decision,
    Event,
    Listen,
    Note,
    Peers,
    Received,
    Send,
    Started,
    Wake,
    Woke,
    equipped,
    finish,
)
from edgeswarm.strategies.exchange import GONE_LIMIT
from edgeswarm.strategies.refusals import STRANGERS_LIMIT
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.wire.status import decode_report, encode_report
from tests.tiny_model import tiny

SCHEMA = 7
MODEL = tiny((3,), ("no", "yes"))
BACKEND = ReferenceBackend()
BACKEND.load(MODEL)
RING = Topology("ring", ("ann", "bob", "cid", "dan"), weights="uniform")
KNOBS: dict[str, Any] = {"period_s": 1.0, "steps": 1, "batch": 8, "rate": 0.1, "optimiser": "sgd"}


class Node:
    """A node driven by hand."""

    def __init__(
        self, name: str, method: str = "d_psgd", topology: Topology = RING, rows: int = 16, **knobs: Any
    ) -> None:
        self.name = name
        self.strategy: Sharing = equipped(STRATEGIES[method](**{**KNOBS, **knobs}), SCHEMA, MODEL, topology=topology)
        self.state = self.strategy.init(name, 1)
        self.first = self(Started(0.0, 1))
        rng = np.random.default_rng(len(name) + ord(name[0]))
        self(Batch(0.0, rng.normal(size=(rows, 3)).astype(np.float32), ("no", "yes") * (rows // 2)))

    def __call__(self, event: Event) -> list[Action]:
        self.state, actions = finish(self.strategy.step(self.state, event), BACKEND.answer)
        return actions

    def round(self, at: float) -> Weights:
        """A wake-up; what it told everybody."""
        (send,) = [each for each in self(Woke(at, "train")) if isinstance(each, Send)]
        assert send.to == EVERYONE and isinstance(send.message, Weights)
        return send.message

    def hear(self, at: float, sender: str, message: Any) -> list[Action]:
        return self(Received(at, sender, message))


def test_it_listens_to_its_neighbours_alone() -> None:
    (listen,) = [each for each in Node("ann").first if isinstance(each, Listen)]
    assert listen.to == {("bob", "all"), ("dan", "all")}


def test_a_round_averages_with_what_was_heard_and_says_how_old_it_was() -> None:
    ann, bob = Node("ann"), Node("bob")
    told = bob.round(1.0)
    ann.hear(1.5, "bob", told)
    z, notes = ann.strategy.mixed(ann.state, "all", ann.state.params, 3.0)
    expected = ann.state.params + (bob.state.params - ann.state.params) / 3
    assert np.allclose(z, expected, atol=1e-7), "dan was not heard: its weight is ann's own"
    values = {(each.name, each.peer): each.value for each in notes if isinstance(each, Note)}
    assert values[("staleness_rounds", "bob")] == 1.5 == values[("staleness_rounds", "")]
    assert values[("neighbours_heard", "")] == 1 and values[("neighbours", "")] == 2


def test_of_nobody_that_is_heard_no_age_is_said() -> None:
    ann = Node("ann")
    _, notes = ann.strategy.mixed(ann.state, "all", ann.state.params, 3.0)
    values = {(each.name, each.peer): each.value for each in notes if isinstance(each, Note)}
    assert np.isnan(values[("staleness_rounds", "")]) and values[("neighbours_heard", "")] == 0
    report = {"notes": {name: value for (name, _), value in values.items()}}
    assert "staleness_rounds" not in decode_report(encode_report(report))["notes"], "no number for it"


def test_the_newest_wins_and_an_old_copy_is_forgotten() -> None:
    ann, bob = Node("ann", forget_s=10.0), Node("bob")
    first, second = bob.round(1.0), bob.round(2.0)
    ann.hear(2.0, "bob", second)
    assert ann.hear(2.1, "bob", first) == []
    assert ann.state.copies["bob/all"].version == 2
    assert set(ann.strategy.heard(ann.state, "all", 12.0)) == {"bob"}
    assert not ann.strategy.heard(ann.state, "all", 12.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"schema": 8}, "other_schema"), ({"model": 1}, "other_model")],
)
def test_what_does_not_fit_is_refused_once(change: dict[str, Any], reason: str) -> None:
    ann, bob = Node("ann"), Node("bob")
    message = replace(bob.round(1.0), **change)
    note, decision = ann.hear(1.0, "bob", message)
    assert isinstance(decision, Decision) and decision.reason == reason
    assert note == Note("refused_peers", 1.0)
    assert ann.hear(1.0, "bob", message) == [] and not ann.state.copies


def test_a_vector_of_another_length_is_refused() -> None:
    ann, bob = Node("ann"), Node("bob")
    message = replace(bob.round(1.0), values=compress(np.zeros(3, np.float32), "float32"))
    assert any(isinstance(each, Decision) and each.reason == "wrong_size" for each in ann.hear(1.0, "bob", message))


@pytest.mark.parametrize("scheme", ["int8", "int4", "top"])
def test_differences_keep_everybody_at_what_the_sender_believes(scheme: str) -> None:
    ann, bob = Node("ann"), Node("bob", scheme=scheme, snapshot_every=0)
    sizes = []
    for number in range(1, 8):
        message = bob.round(float(number))
        assert message.base == (SNAPSHOT if number == 1 else number - 1)
        sizes.append(message.values.codes.nbytes)
        ann.hear(float(number), "bob", message)
        assert np.array_equal(ann.state.copies["bob/all"].vector, bob.state.arrays["said/all"])
    assert max(sizes[1:]) <= sizes[0] / 4, "the first was whole"


def test_an_error_of_compression_is_made_up_for() -> None:
    bob = Node("bob", scheme="int4", snapshot_every=0, rate=1e-9)
    bob.round(1.0)
    bob.state = replace(bob.state, params=bob.state.params + np.float32(0.1))
    left = []
    for number in range(2, 12):
        bob.round(float(number))
        left.append(float(np.abs(bob.state.arrays["said/all"] - bob.state.params).max()))
    assert left[-1] < 1e-4 and left[0] > left[-1]


def test_a_missed_difference_is_pulled_once_a_round_and_repaired_exactly() -> None:
    ann, bob = Node("ann"), Node("bob", scheme="int8", snapshot_every=0)
    ann.hear(1.0, "bob", bob.round(1.0))
    bob.round(2.0)
    third = bob.round(3.0)
    (pull,) = ann.hear(3.0, "bob", third)
    assert isinstance(pull, Send) and pull.to == "bob" and isinstance(pull.message, Pull)
    assert ann.state.copies["bob/all"].version == 1, "a difference without its base changes nothing"
    assert ann.hear(3.1, "bob", bob.round(3.1)) == [], "asked once a round"
    (answer,) = bob.hear(3.2, "ann", pull.message)
    assert isinstance(answer, Send) and answer.to == "ann"
    assert bob.hear(3.2, "ann", pull.message) == [], "answered once a round"
    ann.hear(3.3, "bob", answer.message)
    assert np.array_equal(ann.state.copies["bob/all"].vector, bob.state.arrays["said/all"])
    ann.hear(4.0, "bob", bob.round(4.0))
    assert np.array_equal(ann.state.copies["bob/all"].vector, bob.state.arrays["said/all"])


def test_only_those_who_hear_a_node_may_pull() -> None:
    bob = Node("bob", scheme="int8", snapshot_every=0)
    bob.round(1.0)
    assert bob.hear(1.0, "dan", Pull(SCHEMA, 1, SNAPSHOT)) == [], "dan is no neighbour of bob's"
    assert bob.hear(1.0, "ann", Pull(SCHEMA ^ 1, 1, SNAPSHOT)) == []
    assert len(bob.hear(1.0, "ann", Pull(SCHEMA, 1, SNAPSHOT))) == 1


def test_a_whole_vector_comes_every_so_often() -> None:
    bob = Node("bob", scheme="int8", snapshot_every=3)
    bases = [bob.round(float(number)).base for number in range(1, 8)]
    assert [base == SNAPSHOT for base in bases] == [True, False, True, False, False, True, False]


def test_a_late_node_takes_steps_of_the_swarms_size() -> None:
    schedule = {"schedule": "step", "milestones": (50,), "rate": 0.1}
    ann, bob = Node("ann", **schedule), Node("bob", **schedule)
    message = replace(bob.round(1.0), version=60)
    ann.hear(1.0, "bob", message)
    ann.round(2.0)
    assert ann.state.rounds == 1 and ann.state.moments.step == 61


def test_a_vector_that_is_not_finite_is_never_told() -> None:
    bob = Node("bob")
    bob.state = replace(bob.state, params=bob.state.params * np.float32(np.nan))
    actions = bob(Woke(1.0, "train"))
    assert not any(isinstance(each, Send) for each in actions)
    assert any(isinstance(each, Decision) and each.reason == "not_finite" for each in actions)
    assert any(isinstance(each, Wake) for each in actions)


# ---- what a hostile or a broken peer may say -------------------------------------------------------------------------


def whole(node: Node, number: float = 0.0, version: int = 1, epoch: int = 1, **more: Any) -> Weights:
    """A word for `node`, as it comes off the wire: every number the same."""
    card, _ = node.strategy.model()
    part = more.pop("part", node.strategy.PARTS[0])
    size = {"body": card.body_size, "head": card.size - card.body_size}.get(part, card.size)
    values = compress(np.full(size, number, np.float32), "float32")
    message = Weights(SCHEMA, int(card.hash[:16], 16), part, epoch, version, values, **more)
    return cast(Weights, checks.sealed(message))


def reasons(actions: list[Action]) -> list[str]:
    return [each.reason for each in actions if isinstance(each, Decision)]


def test_differences_of_float32_are_added_to_what_is_known() -> None:
    ann, bob = Node("ann"), Node("bob", snapshot_every=4)
    for number in range(1, 4):
        ann.hear(float(number), "bob", checks.sealed(bob.round(float(number))))
    assert ann.state.copies["bob/all"].version == 3
    assert np.array_equal(ann.state.copies["bob/all"].vector, bob.state.arrays["said/all"])


def test_gossip_refuses_differences_once() -> None:
    ann = Node("ann", "gossip_learning")
    ann.hear(0.5, "bob", whole(ann))
    ann(Woke(1.0, "train"))
    assert ann.state.copies["bob/all"].vector.size == 0, "merged"
    assert reasons(ann.hear(1.5, "bob", whole(ann, version=2, base=1))) == ["difference"]
    assert ann.hear(1.6, "bob", whole(ann, version=3, base=2)) == []


@pytest.mark.parametrize("method", ["d_psgd", "gossip_learning", "body_average", "gatta", "global_update_tracking"])
def test_words_of_those_who_are_no_neighbours_are_refused_once(method: str) -> None:
    ann = Node("ann", method)
    assert reasons(ann.hear(1.0, "cid", whole(ann))) == ["no_neighbour"]
    assert ann.hear(1.1, "cid", whole(ann, version=2)) == []
    for number in range(300):
        actions = ann.hear(1.0, f"eve{number}", whole(ann, version=9, base=8))
        assert not any(isinstance(each, Send) for each in actions)
        assert ann.hear(1.0, f"eve{number}", Pull(SCHEMA, 1, SNAPSHOT)) == []
    assert not ann.state.copies and not ann.state.numbers and len(ann.state.strange) == STRANGERS_LIMIT


def test_what_is_known_of_those_who_left_is_forgotten_but_for_a_few() -> None:
    ann = Node("ann", topology=Topology(), forget_s=100.0)
    names = tuple(f"n{number:03d}" for number in range(60))
    ann(Peers(0.0, names))
    for number, name in enumerate(names):
        ann.hear(1.0 + number, name, whole(ann))
        ann.hear(1.0 + number, name, whole(ann, version=9, base=8))
    assert len(ann.state.copies) == 60 == sum(name.startswith("asked/") for name in ann.state.numbers)
    ann(Peers(61.0, names[:2]))
    assert set(ann.state.copies) == {f"{name}/all" for name in (*names[:2], *names[-GONE_LIMIT:])}
    assert sum(name.startswith("asked/") for name in ann.state.numbers) == 2 + GONE_LIMIT
    ann(Peers(161.0, names[:2]))
    assert set(ann.state.copies) == {f"{name}/all" for name in names[:2]}, "and those not for ever"
    assert ann.hear(162.0, "n007", whole(ann, version=5)) != [] and "n007/all" not in ann.state.copies


@pytest.mark.parametrize("method", ["d_psgd", "gossip_learning", "body_average", "gatta", "gradient_tracking"])
@pytest.mark.parametrize("number", [2e6, 1e30, 3e38])
def test_numbers_beyond_reason_are_refused(method: str, number: float) -> None:
    ann = Node("ann", method)
    found = [reasons(ann.hear(1.0, "bob", whole(ann, number, part=part))) for part in ann.strategy.PARTS]
    assert found[0] == ["too_large"] and not ann.state.copies
    ann.hear(1.1, "dan", whole(ann, 1e6, part=ann.strategy.PARTS[0]))
    assert list(ann.state.copies) == [f"dan/{ann.strategy.PARTS[0]}"]


def test_a_difference_that_leads_beyond_reason_is_refused() -> None:
    ann = Node("ann")
    ann.hear(1.0, "bob", whole(ann, 9e5))
    assert reasons(ann.hear(2.0, "bob", whole(ann, 9e5, version=2, base=1))) == ["too_large"]
    assert ann.state.copies["bob/all"].version == 1


SCHEDULE = {"schedule": "step", "milestones": (50,)}


def test_one_of_two_neighbours_cannot_end_the_schedule() -> None:
    ann = Node("ann", **SCHEDULE)
    ann.hear(0.5, "bob", whole(ann, version=2**32))
    ann.hear(0.6, "dan", whole(ann, version=1))
    ann.round(1.0)
    assert ann.state.moments.step == 2


def test_a_schedule_that_was_driven_ahead_comes_back() -> None:
    ann = Node("ann", **SCHEDULE)
    ann.hear(0.5, "bob", whole(ann, version=2**32))
    ann.round(1.0)
    assert ann.state.moments.step == 2**32 + 1, "the only one it has heard"
    ann.hear(1.5, "dan", whole(ann, version=2))
    ann.round(2.0)
    assert ann.state.moments.step == 3
    ann.hear(2.5, "bob", whole(ann, version=3, epoch=2))
    assert ann.state.copies["bob/all"].version == 3, "a new start is a new count"


def test_a_word_that_is_too_old_does_not_count_for_the_schedule() -> None:
    ann = Node("ann", **SCHEDULE, forget_s=10.0)
    ann.hear(0.5, "bob", whole(ann, version=60))
    ann.round(20.0)
    assert ann.state.moments.step == 1


@pytest.mark.parametrize("reading", ["class", "a", "b"])
def test_every_reading_of_gatta_follows_the_swarms_schedule(reading: str) -> None:
    ann = Node("ann", "gatta", **SCHEDULE, reading=reading)
    ann.hear(0.5, "bob", whole(ann, version=60))
    ann(Woke(1.0, "train"))
    assert ann.state.moments.step == 61


@pytest.mark.parametrize("knobs", [{}, {"restart": True}])
@pytest.mark.parametrize("method", ["d_psgd", "gatta"])
def test_adams_bias_correction_counts_its_own_steps(method: str, knobs: dict[str, Any]) -> None:
    """A first step of adam moves each number by the rate, however late in the swarm's schedule."""
    more = {"reading": "b"} if method == "gatta" else {}
    ann = Node("ann", method, optimiser="adam", decay=0.999, rate=0.01, clip=0.0, **SCHEDULE, **more, **knobs)
    ann.hear(0.5, "bob", whole(ann, version=60))
    rounds = 3 if knobs else 1
    for number in range(rounds):
        before = ann.state.params
        copies, ann.state = ann.state.copies, replace(ann.state, copies={})
        if not number:  # the schedule is known from the copies, the step is from its own model alone
            ann.state = ann.strategy.scheduled(replace(ann.state, copies=copies))
            ann.state = replace(ann.state, copies={})
        ann(Woke(1.0 + number, "train"))
        assert np.abs(ann.state.params - before).max() == pytest.approx(0.001, rel=1e-3), "a tenth of 0.01, by schedule"
    assert ann.state.moments.step == 60 + rounds


# ---- settings, clocks, schedules that end ----------------------------------------------------------------------------


def test_what_was_told_coarsely_is_dropped_when_it_is_told_whole() -> None:
    coarse = Node("ann", scheme="int8")
    coarse.round(1.0)
    fine = Node("ann")
    dumped = checks.unpacked(checks.packed(coarse.strategy.dump(coarse.state)))
    assert "said/all" in dumped["arrays"]
    fine.state = fine.strategy.load("ann", dumped)
    assert "said/all" not in fine.state.arrays
    for number in range(2, 12):
        own = fine.state.params
        for peer in ("bob", "dan"):
            fine.hear(number - 0.5, peer, replace(whole(fine, version=number), values=compress(own, "float32")))
        z, _ = fine.strategy.mixed(fine.state, "all", own, float(number))
        assert np.array_equal(z, own), "who agrees pulls nowhere"
        fine.round(float(number))


def test_differences_can_follow_coarse_whole_vectors() -> None:
    coarse, other = Node("ann", scheme="int8"), Node("ann", scheme="int8", snapshot_every=0)
    coarse.round(1.0)
    other.state = other.strategy.load("ann", checks.unpacked(checks.packed(coarse.strategy.dump(coarse.state))))
    assert [other.round(2.0).base, other.round(3.0).base] == [SNAPSHOT, 2]


def test_after_a_reboot_ages_go_on_from_what_they_were() -> None:
    ann = Node("ann", forget_s=100.0)
    ann.hear(500_000.0, "bob", whole(ann, age_s=30.0))
    ann.round(500_020.0)
    again = Node("ann", forget_s=100.0)
    again.state = ann.strategy.load("ann", checks.unpacked(checks.packed(ann.strategy.dump(ann.state))))
    again(Started(5.0, 2))
    _, notes = again.strategy.mixed(again.state, "all", again.state.params, 5.0)
    assert Note("staleness_rounds", 50.0, "bob") in notes
    assert set(again.strategy.heard(again.state, "all", 55.0)) == {"bob"}
    assert not again.strategy.heard(again.state, "all", 55.1)


def test_a_restart_under_the_same_clock_changes_no_age() -> None:
    ann = Node("ann", forget_s=100.0)
    ann.hear(10.0, "bob", whole(ann))
    ann(Started(60.0, 2))
    assert ann.state.copies["bob/all"].at == 10.0


@pytest.mark.parametrize("method", ["qg_dsgdm", "gradient_tracking", "d_psgd", "global_update_tracking"])
def test_a_schedule_that_has_come_to_its_end_refuses_nothing(method: str) -> None:
    ann = Node(
        "ann", method, schedule="cosine", horizon=4, **({"mu": 0.5} if method == "global_update_tracking" else {})
    )
    with np.errstate(all="raise", under="ignore"):
        for number in range(1, 10):
            assert not reasons(ann(Woke(float(number), "train")))
    assert ann.state.rounds == 9 and all(np.isfinite(held).all() for held in ann.state.arrays.values())


# ---- a device without rows of its own --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["d_psgd", "gatta", "gossip_learning", "gradient_tracking", "qg_dsgdm"])
def test_without_rows_it_answers_with_its_neighbours_mean(method: str) -> None:
    ann = Node("ann", method, rows=0)
    x = np.ones((2, 3), np.float32)
    parts = {"body", "head"} if method == "gatta" else {"all"}
    assert ann(Woke(1.0, "train")) == [Wake(2.0, "train")]
    assert finish(ann.strategy.predict(ann.state, x), BACKEND.answer)[0] == [None, None]
    for peer, number in (("bob", 1.0), ("dan", 3.0)):
        for part in parts:
            ann.hear(1.5, peer, whole(ann, number, part=part))
    actions = ann(Woke(2.0, "train"))
    assert not any(isinstance(each, Send) for each in actions) and ann.state.rounds == 0
    assert np.allclose(ann.state.params, 2.0, atol=1e-6)
    assert None not in finish(ann.strategy.predict(ann.state, x), BACKEND.answer)[0]
    again = ann.strategy.load("ann", checks.unpacked(checks.packed(ann.strategy.dump(ann.state))))
    assert None not in finish(ann.strategy.predict(again, x), BACKEND.answer)[0]


@pytest.mark.parametrize("method", ["body_average", "isolated"])
def test_where_part_of_the_model_is_private_there_is_no_answer_without_rows(method: str) -> None:
    ann = Node("ann", method, rows=0)
    for part in ann.strategy.PARTS:
        ann.hear(0.5, "bob", whole(ann, 1.0, part=part))
    ann(Woke(1.0, "train"))
    assert finish(ann.strategy.predict(ann.state, np.ones((1, 3), np.float32)), BACKEND.answer)[0] == [None]


def test_without_rows_a_missed_difference_is_asked_for_in_every_round() -> None:
    ann = Node("ann", rows=0)
    asked = []
    for number in range(1, 5):
        asked += ann.hear(number - 0.5, "bob", whole(ann, version=number + 1, base=number))
        ann(Woke(float(number), "train"))
    assert len(asked) == 4 and all(isinstance(each, Send) and isinstance(each.message, Pull) for each in asked)


# ---- settings that would do nothing, graphs of one way ---------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name, kind in STRATEGIES.items() if issubclass(kind, Sharing)])
def test_who_can_be_asked_answers_and_others_have_no_such_setting(method: str) -> None:
    if not STRATEGIES[method].TELLS:
        assert not {"ask", "snapshot_every"} & set(settings_of(STRATEGIES[method]))
        return
    ann = Node("ann", method, ask=True)
    ann(Woke(1.0, "train"))
    answers = ann.hear(1.5, "bob", Pull(SCHEMA, 0, SNAPSHOT))
    assert {each.message.part for each in answers if isinstance(each, Send)} == set(ann.strategy.PARTS)


@pytest.mark.parametrize(
    ("method", "schemes"),
    [
        ("d_psgd", ("float32", "float16", "int8", "int4")),
        ("global_update_tracking", ("float32", "float16")),
        ("gatta", ("float32", "float16", "int8", "int4", "entropy")),
    ],
)
def test_a_scheme_too_coarse_for_whole_vectors_tells_differences_or_is_refused(
    method: str, schemes: tuple[str, ...]
) -> None:
    kind: Any = STRATEGIES[method]
    knobs = {"snapshot_every": 1} if kind.TELLS else {}
    remedy = "set snapshot_every 0" if kind.TELLS else f"choose {', '.join(schemes)}"
    for scheme in VECTOR_SCHEMES:
        if kind.TELLS:
            assert kind(scheme=scheme).whole_every == (scheme in schemes)
        if scheme in schemes:
            assert kind(scheme=scheme, **knobs).whole_every == 1
            continue
        with pytest.raises(ValueError, match=f"^scheme {scheme} spoils the whole vectors of {method}: {remedy}"):
            kind(scheme=scheme, **knobs)


@pytest.mark.parametrize("method", ["body_average", "gatta"])
def test_who_tells_whole_vectors_alone_refuses_differences_once(method: str) -> None:
    ann = Node("ann", method)
    ann.hear(0.5, "bob", whole(ann))
    assert reasons(ann.hear(1.5, "bob", whole(ann, version=2, base=1))) == ["difference"]
    assert ann.hear(1.6, "bob", whole(ann, version=3, base=2)) == []


class Asking:
    """ann, who has not heard bob's third word, and has asked him for it; and his answer."""

    def __init__(self, method: str = "d_psgd") -> None:
        self.ann, bob = Node("ann", method, ask=True), Node("bob", method, ask=True)
        self.ann(Peers(0.0, ("bob", "dan")))
        for number in (1.0, 2.0, 3.0):
            self.word = checks.sealed(bob.round(number))
            self.ann.hear(number, "dan", whole(self.ann, version=int(number)))
            if number < 3:
                self.ann.hear(number, "bob", self.word)
            self.ann.round(number)
        (pull,) = [each for each in self.ann(Woke(3.5, "ask")) if isinstance(each, Send)]
        assert pull.to == "bob"
        (answer,) = [each for each in bob.hear(3.6, "ann", pull.message) if isinstance(each, Send)]
        self.answer: Weights = checks.sealed(answer.message)

    def asks_again(self, *heard: Weights) -> bool:
        for message in heard:
            self.ann.hear(3.7, "bob", message)
        self.ann.hear(3.8, "dan", whole(self.ann, version=4))
        self.ann.round(4.0)
        return any(isinstance(each, Send) and each.to == "bob" for each in self.ann(Woke(4.5, "ask")))


@pytest.mark.parametrize("method", ["d_psgd", "global_update_tracking"])
def test_a_neighbour_is_asked_less_often_where_what_was_asked_for_was_late_and_not_lost(method: str) -> None:
    case = Asking(method)
    word, answer = case.word, case.answer
    assert (answer.version, answer.age_s) == (word.version, pytest.approx(0.6))
    assert np.array_equal(answer.values.codes, word.values.codes)
    assert Asking(method).asks_again(answer) and Asking(method).asks_again(answer, answer)
    assert not Asking(method).asks_again(answer, word) and not Asking(method).asks_again(word, answer)


def test_gossip_sends_to_those_who_hear_it() -> None:
    ring = Topology("directed-ring", ("ann", "bob", "cid"))
    ann = Node("ann", "gossip_learning", ring)
    (heard,) = ann.strategy.neighbours(ann.state)
    (send,) = [each for each in ann(Woke(1.0, "train")) if isinstance(each, Send)]
    assert send.to != heard and ring.graph("ann", ()).neighbours(send.to) == ("ann",)
    assert Node(send.to, "gossip_learning", ring).hear(1.1, "ann", send.message) == [Note("age_s", 0.0, "ann")]


@pytest.mark.parametrize("epoch", [0, 1])
def test_who_only_tells_whole_vectors_has_no_answer_for_one_who_asks(epoch: int) -> None:
    """A neighbour set to ask may sit beside one that keeps nothing to answer with."""
    ann = Node("ann", scheme="int8")
    ann(Woke(1.0, "train"))
    assert ann.hear(1.5, "bob", Pull(SCHEMA, epoch, SNAPSHOT)) == []
    assert any(isinstance(action, Send) for action in ann(Woke(2.0, "train")))


def test_one_that_has_had_more_rounds_than_can_be_is_refused() -> None:
    ann = Node("ann")
    there, beyond = (whole(ann, version=version) for version in (1 << 32, (1 << 32) + 1))
    ann.hear(1.0, "bob", beyond)
    assert not ann.state.copies
    ann.hear(1.1, "bob", there)
    assert ann.state.copies["bob/all"].version == 1 << 32
