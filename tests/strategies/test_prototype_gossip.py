"""Prototype gossip, decision by decision, with one or two nodes driven by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from device import SCHEMA, Device, clouds, decisions, sent

from edgeswarm.maths.quantise import pack
from edgeswarm.messages import EVERYONE, SNAPSHOT, Array, Digest, Prototypes, Pull
from edgeswarm.strategies.base import Linked, Note, Send, Sent, Started, Wake, Woke
from edgeswarm.strategies.base import Tested as Scored
from edgeswarm.strategies.gossip_state import Knobs, State, Trial, follows
from edgeswarm.strategies.prototype_gossip import GROWTH, PrototypeGossip

THREE = [[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]


def taught(n: int = 60, seed: int = 0, **knobs: Any) -> Device:
    """A node that has learnt and has told its whole set."""
    device = Device(**{"period_s": 10.0, **knobs})
    x, y = clouds(seed, n)
    device.learn(1.0, x, *y)
    assert device.share(2.0).reason == "first"
    return device


def message(
    version: int = 1, ids: tuple[int, ...] = (1, 2), classes: tuple[str, ...] = ("c0", "c1"), d: int = 2, **other: Any
) -> Prototypes:
    """A peer's whole set: prototype i lies at (4 i, ...)."""
    x: Array = np.array([[4.0 * i] * d for i in ids], np.float32).reshape(-1, d)
    labels = np.arange(len(ids)) % max(1, len(classes))
    plain: dict[str, Any] = {"schema": SCHEMA, "epoch": 1, "version": version, "base": SNAPSHOT, "classes": classes}
    plain |= {"ids": np.array(ids, np.uint32), "vectors": pack(x, "float32"), "labels": labels.astype(np.uint16)}
    return Prototypes(**{**plain, "counts": np.ones(len(ids), np.float32), **other})


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_two_devices_three_points() -> None:
    """Ann's first three samples become her prototypes as they are. She tells them; Bob, who has nothing, answers with
    them. A fourth sample at (0.4, 0) is within reach of nothing (no links yet, so infinitely far reaches): it wins for
    (0, 0) and moves it by 1/2 to (0.2, 0). Only that one is news."""
    ann, bob = Device("ann", filter="off", rate_floor=0.0), Device("bob")
    ann.learn(1.0, THREE, "low", "right", "up")
    (whole,) = ann.spoken(2.0)
    assert isinstance(whole, Prototypes) and (whole.version, whole.base) == (1, SNAPSHOT)
    assert (
        whole.ids.tolist() == [0, 1, 2] and whole.vectors.codes.tolist() == THREE and whole.counts.tolist() == [1] * 3
    )
    bob.hear(2.0, "ann", whole)
    assert bob.says([[0.1, 0.1], [3.9, 0.2], [0.3, 4.2]]) == ["low", "right", "up"]
    assert bob.says([[0.1, 0.1]], alone=True) == [None]

    ann.learn(3.0, [[0.4, 0.0]], "low")
    (difference,) = ann.spoken(12.0)
    assert isinstance(difference, Prototypes) and (difference.version, difference.base) == (2, 1)
    assert difference.ids.tolist() == [0] and difference.counts.tolist() == [2.0]
    np.testing.assert_allclose(difference.vectors.codes, [[0.2, 0.0]], atol=1e-6)
    bob.hear(12.0, "ann", difference)
    np.testing.assert_allclose(bob.state.replicas["ann"].vectors, [[0.2, 0.0], [4.0, 0.0], [0.0, 4.0]], atol=1e-6)


def test_the_first_sample_is_answered_with_what_peers_told() -> None:
    bob = Device("bob")
    bob.hear(1.0, "ann", message())
    tested = [action for action in bob.learn(2.0, [[8.1, 8.0]], "c1") if isinstance(action, Scored)]
    assert tested == [Scored("c1", "c1", None)]


def test_every_knob_has_bounds_that_hold_its_default() -> None:
    for each in fields(Knobs):
        if each.name != "schema":
            low, high, choices = (each.metadata[name] for name in ("low", "high", "choices"))
            assert each.default in choices if choices else low <= each.default <= high, each.name


# ---- why it shares, and why not --------------------------------------------------------------------------------------


def test_nothing_learnt_then_first() -> None:
    device = Device()
    assert device.share(1.0).reason == "nothing_learnt"
    device.learn(2.0, THREE, "a", "b", "a")
    decision = device.share(3.0)
    assert (decision.outcome, decision.reason) == ("sent", "first")


def test_nothing_new_without_samples() -> None:
    device = taught()
    decision = device.share(12.0)
    assert (decision.outcome, decision.reason, decision.facts["changed"]) == ("held", "nothing_new", 0.0)


def test_no_news_from_the_same_distribution() -> None:
    device = taught(200)
    x, y = clouds(1, 20)
    device.learn(3.0, x, *y)
    decision = device.share(12.0)
    assert (decision.outcome, decision.reason) == ("held", "no_news") and decision.facts["bytes_saved"] > 0
    assert decision.facts["distance"] <= decision.facts["floor"] + decision.facts["margin"]


def test_growth_when_it_learnt_from_twice_the_samples() -> None:
    device = taught(100)
    x, y = clouds(1, 100)
    device.learn(3.0, x[:80], *y[:80])
    assert GROWTH == 2.0 and device.share(12.0).reason == "no_news"
    device.learn(13.0, x[80:], *y[80:])
    assert device.share(22.0).reason == "growth"
    assert device.state.told_samples == 200


def test_news_when_the_set_became_another() -> None:
    device = taught(100, drift_limit=1000.0)
    x, y = clouds(1, 90)
    device.learn(3.0, x + np.float32(9), *y)
    decision = device.share(12.0)
    assert (decision.outcome, decision.reason) == ("sent", "news")
    assert decision.facts["distance"] > decision.facts["floor"] + decision.facts["margin"]


def test_drift_when_class_means_moved() -> None:
    device = taught(100, margin_spreads=100.0)
    x, y = clouds(1, 30)
    device.learn(3.0, x + np.float32(6), *y)
    decision = device.share(12.0)
    assert decision.reason == "drift" and decision.facts["drift"] > decision.facts["drift_limit"]


def test_a_new_class_is_drift() -> None:
    device = taught(100, margin_spreads=100.0)
    device.learn(3.0, [[9.0, -9.0]], "new")
    assert device.share(12.0).reason == "drift"


def test_max_age_ends_silence_if_anything_is_new() -> None:
    device = taught(200, silence_limit_s=50.0)
    x, y = clouds(1, 20)
    device.learn(3.0, x, *y)
    reasons = [device.share(at).reason for at in (12.0, 32.0, 51.0, 52.0, 62.0)]
    assert reasons == ["no_news", "no_news", "no_news", "max_age", "nothing_new"]


def test_filter_off_always_sends_what_is_new() -> None:
    device = taught(filter="off")
    device.learn(3.0, [[1.0, 1.0]], "c0")
    assert device.share(12.0).reason == "always" and device.share(22.0).reason == "nothing_new"


def test_over_budget_holds_back_until_it_is_paid_for() -> None:
    device = taught(filter="off", budget_bytes_per_s=10.0)
    assert device.state.purse.held_bytes == pytest.approx(10 * 2.0 - 300), "the first message may be owed"
    x, y = clouds(1, 100)
    outcomes = []
    for turn in range(30):
        device.learn(12.0 + 10 * turn, x[turn][None], y[turn])
        outcomes.append(device.share(12.0 + 10 * turn).reason)
    assert outcomes[:3] == ["over_budget"] * 3 and 4 <= outcomes.count("always") <= 12


def test_a_message_larger_than_the_purse_is_sent_once_the_purse_is_full() -> None:
    """Else a small budget would silence a node with many features for ever, whatever the silence limit says."""
    device = taught(filter="off", budget_bytes_per_s=1.0, bytes_each=500)
    device.learn(3.0, [[1.0, 1.0]], "c0")
    assert device.state.header_bytes > 100
    reasons = [device.share(10.0 * turn).reason for turn in range(1, 100)]
    assert reasons.count("always") == 1 and reasons.index("always") > 50


def test_a_budget_switched_on_later_does_not_pay_for_the_past() -> None:
    device = taught(filter="off")
    for turn in range(50):
        device.learn(3.0 + 10 * turn, [[turn, 1.0]], "c0")
        device.share(12.0 + 10 * turn)
    frugal = PrototypeGossip(schema=SCHEMA, budget_bytes_per_s=100.0)
    state = frugal.load("ann", device.strategy.dump(device.state))
    assert state.purse.held_bytes >= 0


def test_linked_tells_everything_anew_but_not_more_often_than_once_a_period() -> None:
    device = taught()
    actions = device(Linked(20.0))
    assert [d.reason for d in decisions(actions)] == ["linked"]
    (whole,) = sent(actions)
    assert (
        isinstance(whole, Prototypes) and whole.base == SNAPSHOT and whole.ids.size == device.state.published.ids.size
    )
    assert not sent(device(Linked(21.0))) and device.share(30.0).reason == "first"
    assert not sent(Device()(Linked(1.0))), "nothing to tell"


def test_a_new_start_says_everything_under_its_new_epoch() -> None:
    device = taught()
    device(Started(100.0, 5))
    (whole,) = device.spoken(device.wakes["share"])
    assert isinstance(whole, Prototypes) and (whole.epoch, whole.version, whole.base) == (5, 2, SNAPSHOT)


def test_every_nth_message_is_a_snapshot() -> None:
    device = taught(200, filter="off", snapshot_every=4)
    bases = []
    for turn in range(8):
        device.learn(3.0 + 10 * turn, [[20.0 + 5 * turn, 1.0]], "c0")
        (said,) = device.spoken(12.0 + 10 * turn)
        assert isinstance(said, Prototypes)
        bases.append(said.base == SNAPSHOT)
    assert bases == [False, False, False, True, False, False, False, True]


def test_a_quiet_node_shows_now_and_then_that_it_is_there() -> None:
    device = taught()
    said = [message for turn in range(1, 20) for message in device.spoken(2.0 + 10 * turn)]
    assert len(said) == 3 and all(isinstance(each, Digest) and each.version == 1 for each in said)


# ---- repair ----------------------------------------------------------------------------------------------------------


def test_a_gap_is_pulled_once_per_period_and_answered_with_what_is_missing() -> None:
    ann, bob = taught(filter="off"), Device("bob", period_s=10.0)
    (whole,) = sent(ann(Linked(20.0)))
    bob.hear(20.0, "ann", whole)
    lost = []
    for at in (30.0, 40.0):
        ann.learn(at - 1, [[at, 0.0]], "c0")
        lost += ann.spoken(at)
    asked = bob.hear(40.0, "ann", lost[-1])
    pulls = [a for a in asked if isinstance(a, Send)]
    assert [a.to for a in pulls] == ["ann"] and pulls[0].message == Pull(SCHEMA, 1, 2)
    assert not sent(bob.hear(45.0, "ann", Digest(SCHEMA, 1, 4, 9, 9))), "asked less than a period ago"
    ann.meet(41.0, "bob")
    answers = sent(ann.hear(41.0, "bob", pulls[0].message))
    assert len(answers) == 1 and isinstance(answers[0], Prototypes) and answers[0].base == 2
    bob.hear(42.0, "ann", answers[0])
    np.testing.assert_array_equal(bob.state.replicas["ann"].ids, ann.state.published.ids)
    np.testing.assert_array_equal(bob.state.replicas["ann"].vectors, ann.state.published.vectors)
    assert not bob.state.replicas["ann"].behind(1, 4)


def test_an_answer_brings_class_summaries_too() -> None:
    ann, bob = taught(), Device("bob")
    ann.meet(3.0, "bob")
    (answer,) = sent(ann.hear(3.0, "bob", Pull(SCHEMA, 0, SNAPSHOT)))
    bob.hear(3.0, "ann", answer)
    table = bob.state.replicas["ann"].summary
    assert table is not None and (table.weight > 0).all() and isinstance(answer, Prototypes) and answer.age_s == 1.0


def test_pulls_are_answered_once_a_period_each_and_never_on_credit() -> None:
    """A peer that only asks must neither drown the network nor silence this node."""
    device = taught(filter="off", budget_bytes_per_s=1000.0)
    device.meet(3.0, "bob", "eve")
    pull = Pull(SCHEMA, 0, SNAPSHOT)
    answers = [len(sent(device.hear(100.0 + at, "eve", pull))) for at in range(25)]
    assert sum(answers) == 3
    assert sent(device.hear(125.0, "bob", pull)), "bob is not eve"
    device.state = replace(device.state, purse=replace(device.state.purse, held_bytes=-1e6, at=126.0))
    assert not sent(device.hear(140.0, "bob", pull))


def test_pulls_are_answered_although_one_does_not_follow_who_asks() -> None:
    device = taught(peers_limit=1)
    device.meet(3.0, "bob", "cid")
    asked = [len(sent(device.hear(4.0, peer, Pull(SCHEMA, 0, SNAPSHOT)))) for peer in ("bob", "cid", "unknown")]
    assert asked == [1, 1, 0]


def test_parts_on_their_way_are_not_pulled() -> None:
    bob = Device("bob")
    for part in range(3):
        piece = message(5, (part,), classes=("c0",), part=part, parts=3)
        assert not sent(bob.hear(1.0, "ann", piece))
    assert not bob.state.replicas["ann"].behind(1, 5)
    assert sent(bob.hear(2.0, "cid", message(5, (2,), classes=("c0",), part=2, parts=3))), "the last of them: now ask"


# ---- who is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strange", "reason"),
    [
        (message(schema=SCHEMA + 1), "other_schema"),
        (message(d=5), "wrong_dimension"),
        (message(classes=tuple(f"k{i}" for i in range(9))), "too_many_classes"),
    ],
)
def test_who_cannot_be_understood_is_ignored_and_that_is_said_once(strange: Prototypes, reason: str) -> None:
    device = taught(classes_limit=8)
    assert [d.reason for d in decisions(device.hear(3.0, "eve", strange))] == [reason]
    assert not device.hear(4.0, "eve", strange) and "eve" not in device.state.replicas


def test_a_peer_cannot_take_the_names_this_node_needs_for_its_own_classes() -> None:
    device = Device(classes_limit=4)
    device.hear(1.0, "eve", message(classes=("k0", "k1", "k2", "k3"), ids=(1, 2, 3, 4)))
    device.hear(1.0, "bob", message(classes=("k4",), ids=(1,)))
    assert set(device.state.replicas) == {"eve"}
    actions = device.learn(2.0, [[i, 0.0] for i in range(5)], "a", "b", "c", "d", "e")
    assert [d.reason for d in decisions(actions)] == ["too_many_classes"]
    assert device.state.samples == 4 and device.says([[2.0, 0.0]], alone=True) == ["c"]


def test_samples_and_questions_of_another_dimension() -> None:
    device = taught()
    assert [d.reason for d in decisions(device.learn(3.0, [[1.0, 2.0, 3.0]], "c0"))] == ["wrong_dimension"]
    with pytest.raises(ValueError, match="2 features, not 3"):
        device.says([[1.0, 2.0, 3.0]])
    bob = Device("bob")
    bob.hear(1.0, "ann", message())
    assert bob.says([[1.0, 2.0, 3.0]]) == [None] and bob.says([[8.0, 8.0]]) == ["c1"], "no memory of the wrong question"


def test_summaries_of_another_version_do_not_break_anything() -> None:
    """Two half-lives, or four, or of another number of features than the prototypes before."""
    for halves in (2, 4):
        bob = Device("bob")
        odd = message(summary=np.ones((halves * 2, 5), np.float16))
        bob.hear(1.0, "ann", odd)
        bob.hear(2.0, "cid", message(summary=np.ones((2, 5), np.float16)))
        bob.learn(3.0, *[[[1.0, 1.0]], "c0"])
        assert bob.says([[8.0, 8.0]]) == ["c1"] and bob.state.replicas["ann"].summary is None
    only = message(ids=(), summary=np.ones((2, 5), np.float16))
    other = message(2, ids=(), d=3, base=1, summary=np.ones((2, 7), np.float16))
    bob = Device("bob")
    bob.hear(1.0, "ann", only)
    assert [d.reason for d in decisions(bob.hear(2.0, "ann", other))] == ["wrong_dimension"]


def test_forty_peers_with_room_for_eight() -> None:
    peers = [f"p{i:02d}" for i in range(40)]
    heard = dict.fromkeys(peers, 0)
    for name in peers[:20]:
        device = Device(name, peers_limit=8)
        device.meet(0.0, *(p for p in peers if p != name))
        for peer in peers:
            device.hear(1.0, peer, message())
            assert len(device.state.replicas) <= 8
        assert len(device.state.replicas) == 8 and name not in device.state.replicas
        for peer in device.state.replicas:
            heard[peer] += 1
    assert max(heard.values()) <= 12, "everybody is heard by about equally many: 4 expected"


def test_a_flood_of_invented_names_takes_bounded_memory_and_displaces_nobody_present() -> None:
    device = Device(peers_limit=4)
    device.meet(0.0, "bob", "cid")
    for name in ("bob", "cid", *(f"ghost{i}" for i in range(200))):
        device.hear(1.0, name, message())
        assert len(device.state.replicas) <= 4
    assert {"bob", "cid"} < set(device.state.replicas)
    device.meet(2.0, "bob", "cid", "dan", "eve")
    for name in ("dan", "eve"):
        device.hear(3.0, name, message())
    assert set(device.state.replicas) == {"bob", "cid", "dan", "eve"}


def test_a_peer_long_gone_is_forgotten_and_one_that_returns_is_not() -> None:
    device = Device(forget_s=100.0)
    device.meet(0.0, "bob", "cid")
    for name in ("bob", "cid"):
        device.hear(1.0, name, message())
    device.meet(10.0)
    device.meet(50.0, "cid")
    device.share(109.0)
    assert set(device.state.replicas) == {"bob", "cid"}
    device.share(111.0)
    assert set(device.state.replicas) == {"cid"} and device.says([[8.0, 8.0]]) == ["c1"]


def test_a_clock_that_jumps_a_day_ahead_does_no_harm() -> None:
    device = taught(filter="off", budget_bytes_per_s=100.0, forget_s=3600.0)
    device.meet(3.0, "bob")
    device.hear(4.0, "bob", message())
    device.learn(5.0, [[1.0, 1.0]], "c0")
    day = 86_400.0
    assert device.share(day).outcome == "sent" and device.state.purse.held_bytes <= 100 * 100
    assert set(device.state.replicas) == {"bob"}, "it is present"
    assert day < device.wakes["share"] <= day + 12.0


# ---- whom to believe -------------------------------------------------------------------------------------------------


def test_a_trial_by_hand() -> None:
    """The mean of the first thirty, then forgetting by 0.97. Muted above the limit, heard again below half of it."""
    trial = Trial()
    for _ in range(29):
        trial = trial.after(0.2, 0.0, 0.05)
        assert not trial.muted and trial.excess == pytest.approx(0.2)
    trial = trial.after(0.2, 0.0, 0.05)
    assert trial.muted and trial.trials == 30
    trial = trial.after(0.0, 0.0, 0.05)
    assert trial.excess == pytest.approx(0.2 * 30 / 31)
    for _ in range(3):
        trial = trial.after(0.0, 0.0, 0.05)
    assert trial.excess == pytest.approx(0.2 * 30 / 31 * 31 / 32 * 32 / 33 * 0.97)
    while trial.muted:
        assert trial.excess > 0.025
        trial = trial.after(0.0, 0.0, 0.05)
    assert 0.97 * 0.025 < trial.excess <= 0.025


@pytest.mark.parametrize(("leak", "muted"), [(0.3, False), (0.45, True)])
def test_a_trial_of_leaks(leak: float, muted: bool) -> None:
    """What counts is the mean: certain but rare confusions of honest neighbours are no reason to mute."""
    trial = Trial()
    for i in range(100):
        trial = trial.after(0.0, float(i % 20 < 20 * leak), 0.05)
    assert trial.muted is muted
    for _ in range(40):
        trial = trial.after(0.0, 0.0, 0.05)
    assert not trial.muted


def test_a_peer_that_flips_labels_is_muted_and_heard_again_after_it_recovers() -> None:
    x, y = clouds(3, 400, gap=2.0)
    mine, liar = Device("ann"), Device("eve", filter="off")
    mine.meet(0.0, "eve")
    liar.learn(1.0, x[:100], *("c1" if label == "c0" else "c0" for label in y[:100]))
    mine.hear(2.0, "eve", liar.spoken(2.0)[0])
    said = decisions(mine.learn(3.0, x[100:200], *y[100:200]))
    assert [(d.outcome, d.reason, d.peer) for d in said] == [("muted", "hurts", "eve")]
    honest = Device("eve", start=False, filter="off")
    honest(Started(0.0, 2))
    honest.learn(4.0, x[:100], *y[:100])
    mine.hear(5.0, "eve", honest.spoken(5.0)[0])
    said = decisions(mine.learn(6.0, x[200:], *y[200:]))
    assert [(d.outcome, d.reason) for d in said] == [("heard", "helps_again")]


def test_a_peer_with_other_classes_is_neither_muted_nor_unheard() -> None:
    """The case of the demo: its own samples never show a node that others' classes exist."""
    devices = [Device(f"d{i}", filter="off", period_s=1.0) for i in range(3)]
    for turn in range(1, 12):
        for i, device in enumerate(devices):
            x, y = clouds(10 * turn + i, 12, labels=(2 * i, 2 * i + 1), d=3, gap=5.0)
            device.meet(turn, *(other.name for other in devices if other is not device))
            said = device.learn(float(turn), x, *y)
            assert not decisions(said), "nobody is muted"
            for message in device.spoken(turn + 0.5):
                for other in devices:
                    if other is not device:
                        other.hear(turn + 0.5, device.name, message)
    x, y = clouds(999, 300, labels=(0, 1, 2, 3, 4, 5), d=3, gap=5.0)
    for device in devices:
        swarm, alone = (np.mean([a == t for a, t in zip(device.says(x, how), y, strict=True)]) for how in (False, True))
        assert alone < 0.4 and swarm > 0.93


def test_one_who_puts_new_names_on_what_a_node_knows_does_not_take_its_classes_away() -> None:
    x, y = clouds(3, 600)
    mine, eve = Device("ann"), Device("eve")
    mine.meet(0.0, "eve")
    eve.learn(1.0, x[:200], *(f"fake-{label}" for label in y[:200]))
    mine.hear(2.0, "eve", eve.spoken(2.0)[0])
    said = decisions(mine.learn(3.0, x[200:400], *y[200:400]))
    assert [(d.outcome, d.reason, d.peer) for d in said] == [("muted", "misleads", "eve")]
    assert said[0].facts["leak"] > 0.35
    right = [a == t for a, t in zip(mine.says(x[400:]), y[400:], strict=True)]
    alone = [a == t for a, t in zip(mine.says(x[400:], alone=True), y[400:], strict=True)]
    assert np.mean(right) >= np.mean(alone) - 0.02


def test_a_class_that_vanished_stays_known_and_its_prototypes_are_told_as_gone() -> None:
    device, bob = taught(100, keep_limit=40, filter="off"), Device("bob")
    bob.hear(2.0, "ann", sent(device(Linked(20.0)))[0])
    for turn in range(8):
        x, _ = clouds(turn, 60, labels=(1,))
        device.learn(21.0 + turn, x, *["c1"] * 60)
        for said in device.spoken(30.0 + 10 * turn):
            bob.hear(30.0 + 10 * turn, "ann", said)
    published, replica = device.state.published, bob.state.replicas["ann"]
    np.testing.assert_array_equal(replica.ids, published.ids)
    assert device.says([[4.0, 4.0]]) == ["c1"] and device.state.own_classes() == 2


def test_a_label_seen_late_is_learnt_and_told() -> None:
    device, bob = taught(), Device("bob")
    bob.hear(2.0, "ann", sent(device(Linked(20.0)))[0])
    device.learn(21.0, [[-20.0, 20.0]], "late")
    (said,) = device.spoken(30.0)
    bob.hear(30.0, "ann", said)
    assert device.says([[-20.0, 20.0]]) == ["late"] == bob.says([[-20.0, 20.0]])


# ---- turns -----------------------------------------------------------------------------------------------------------


def test_turns_are_jittered_within_their_bounds() -> None:
    device = Device(period_s=10.0, jitter=0.2)
    gaps, at = [], device.wakes["share"]
    assert 2.0 <= at <= 10.0
    for _ in range(100):
        device(Woke(at, "share"))
        gaps.append(device.wakes["share"] - at)
        at = device.wakes["share"]
    assert 8.0 <= min(gaps) < 8.6 and 11.4 < max(gaps) <= 12.0


def test_in_turns_the_next_in_the_ring_follows_after_its_part_of_a_period() -> None:
    bob = Device("bob", period_s=9.0, schedule="sequential")
    bob.meet(0.0, "ann", "cid")
    bob.share(1.0)
    assert 1.0 + 18.0 * 0.8 <= bob.wakes["share"] <= 1.0 + 18.0 * 1.2

    def wakes(at: float, sender: str, word: Any) -> list[float]:
        return [action.at for action in bob.hear(at, sender, word) if isinstance(action, Wake)]

    assert wakes(10.0, "cid", Digest(SCHEMA, 1, 0, 0, 0)) == []
    assert wakes(10.0, "ann", Digest(SCHEMA, 1, 0, 0, 0)) == [13.0]
    assert wakes(11.0, "ann", message()) == [], "a talkative predecessor cannot put a turn off"
    bob.share(13.0)
    assert wakes(14.0, "ann", message(2)) == [17.5], "nor ask for more than two a period"


def test_in_turns_the_first_in_the_ring_sets_the_pace() -> None:
    ann = Device("ann", period_s=9.0, schedule="sequential", jitter=0.0)
    ann.meet(0.0, "bob", "cid")
    ann.share(1.0)
    assert ann.wakes["share"] == 10.0
    assert not any(isinstance(action, Wake) for action in ann.hear(2.0, "cid", message()))


def test_in_turns_a_node_that_holds_back_passes_the_turn_on() -> None:
    device = taught(schedule="sequential")
    assert [type(each) for each in device.spoken(30.0)] == [Digest]


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_bytes_reported_correct_the_guess_of_a_header() -> None:
    device = taught()
    for _ in range(40):
        device(Sent(3.0, EVERYONE, message(), 1000))
    assert device.state.header_bytes == pytest.approx(1000 - 2 * (2 * 4 + 4), rel=0.01)


def test_notes_name_what_an_operator_watches() -> None:
    device = taught()
    device.meet(3.0, "bob")
    named = {(a.name, bool(a.peer)) for a in device.hear(4.0, "bob", message()) if isinstance(a, Note)}
    named |= {(a.name, bool(a.peer)) for a in device.learn(5.0, [[1.0, 1.0]], "c0") if isinstance(a, Note)}
    assert named == {
        ("prototypes", True), ("age_s", True), ("weight", True), ("muted", True),
        ("samples", False), ("prototypes", False),
    }  # fmt: skip


def test_the_set_stays_within_its_limit() -> None:
    device = Device(keep_limit=30, keep_share=0.5)
    x, y = clouds(0, 400, gap=1.0)
    for i in range(400):
        device.learn(float(i), x[i][None], y[i])
        assert device.state.learner is not None and len(device.state.learner.points) <= 30


def test_following_does_not_depend_on_order_and_changes_little() -> None:
    def followed(names: list[str]) -> set[str]:
        state = replace(State("ann", 1), peers=tuple(names))
        return {name for name in names if follows(state, name, 5)}

    names = [f"p{i}" for i in range(30)]
    assert followed(names) == followed(names[::-1]) and len(followed(names)) == 5
    assert len(followed(names) - followed([*names, "new"])) <= 1


def test_other_events_are_let_pass() -> None:
    device = taught()
    assert device(Woke(50.0, "somebody else's")) == []
