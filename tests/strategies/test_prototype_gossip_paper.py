"""The published method: its sender, its queues and its clustering (sections 2 to 5 of the note on arXiv 2411.09267)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.agent import snapshot
from edgeswarm.backends.sets import answer
from edgeswarm.messages import SNAPSHOT, Packed, Prototypes
from edgeswarm.strategies.base import Action, Batch, Event, Note, Peers, Received, Send, Started, Wake, Woke, finish
from edgeswarm.strategies.prototype_gossip_paper import Heap, PrototypeGossipPaper, State


class Node:
    """A strategy with its state; wake-ups are delivered when time passes them."""

    def __init__(self, **settings: Any) -> None:
        self.strategy = PrototypeGossipPaper(**settings)
        self.state: State = self.strategy.init("a", 1)
        self.wake: float | None = None
        self.rng = np.random.default_rng(0)
        self.sent_at: list[float] = []
        self.notes: dict[str, float] = {}
        self.give(Started(0.0, 1))
        self.give(Peers(0.0, ("b", "c")))

    def give(self, event: Event) -> list[Action]:
        self.state, actions = finish(self.strategy.step(self.state, event), answer)
        for action in actions:
            if isinstance(action, Wake):
                self.wake = action.at
            elif isinstance(action, Send):
                self.sent_at.append(event.at)
            elif isinstance(action, Note):
                self.notes[action.name] = action.value
        return actions

    def sample(self, at: float, d: int = 2) -> list[Action]:
        self.until(at)
        x = self.rng.normal(size=(1, d)).astype(np.float32)
        return self.give(Batch(at, x, (str(int(x[0, 0] > 0)),)))

    def until(self, at: float) -> None:
        while self.wake is not None and self.wake <= at:
            due, self.wake = self.wake, None
            self.give(Woke(due, "share"))


def message(vectors: list[list[float]], labels: list[int], version: int = 1) -> Prototypes:
    k, d = np.shape(vectors)
    codes = np.array(vectors, np.float32)
    packed = Packed("float32", codes, np.ones(d, np.float32), np.zeros(d, np.float32))
    return Prototypes(
        schema=0,
        epoch=1,
        version=version,
        base=SNAPSHOT,
        classes=("0", "1"),
        ids=np.arange(k, dtype=np.uint32),
        vectors=packed,
        labels=np.array(labels, np.uint16),
        counts=np.ones(k, np.float32),
    )


def test_samples_between_two_looks_are_one_chance_to_send() -> None:
    node = Node(poll_s=0.05, fanout=1)
    for at in (0.01, 0.02, 0.04, 0.06, 0.20):
        node.sample(at)
    node.until(1.0)
    assert node.sent_at == pytest.approx([0.05, 0.10, 0.20])


def test_without_polling_each_sample_is_a_chance() -> None:
    node = Node(poll_s=0.0, fanout=1)
    for at in (0.01, 0.02, 0.04):
        node.sample(at)
    node.until(1.0)
    assert node.sent_at == [0.01, 0.02, 0.04]


def test_a_flag_raised_while_a_comparison_runs_is_seen_afterwards() -> None:
    node = Node(poll_s=0.0, fanout=1, filter_limit=0.5, kernel_ns=1e5)
    node.sample(0.1)
    node.give(Received(0.11, "b", message([[0.0, 1.0], [1.0, 0.0]], [0, 1])))
    node.give(Received(0.11, "c", message([[0.0, 1.0], [1.0, 0.0]], [0, 1])))
    node.sample(0.2)
    node.until(0.2)
    busy_until = node.state.looks_at
    assert busy_until > 0.21
    node.sample(0.21)
    assert node.state.flagged
    assert node.wake == busy_until


def test_the_sender_sees_the_set_as_it_was_after_the_newest_own_sample() -> None:
    node = Node(poll_s=0.5, fanout=1, learn_rate_per_s=1000.0)
    node.sample(0.1)
    node.give(Received(0.2, "b", message([[5.0, 5.0], [6.0, 6.0], [7.0, 7.0]], [0, 1, 0])))
    sizes = [action.message.ids.size for action in node.give(Woke(0.5, "share")) if isinstance(action, Send)]
    assert sizes == [1]


def test_nobody_is_sent_to_with_probability_zero_or_alone() -> None:
    for settings in ({"share_probability": 0.0}, {"fanout": 0}):
        node = Node(**settings)
        for at in (0.1, 0.3, 0.5):
            node.sample(at)
        node.until(1.0)
        assert node.sent_at == []


def test_a_heap_gives_the_newest_first_and_drops_the_oldest() -> None:
    heap = Heap()
    for first in (0, 10):
        heap = heap.pushed(np.array([[first], [first + 1], [first + 2]], np.float32), np.array([0, 1, 0], np.int32), 4)
    assert (len(heap), heap.dropped) == (4, 2)
    taken = []
    while len(heap):
        x, label, heap = heap.popped()
        taken.append((float(x[0]), label))
    assert taken == [(12, 0), (11, 1), (10, 0), (2, 0)]


def test_received_prototypes_are_learnt_at_the_device_s_rate() -> None:
    node = Node(fanout=0, learn_rate_per_s=10.0)
    node.sample(0.0)
    rng = np.random.default_rng(1)
    node.give(Received(0.0, "b", message(rng.normal(size=(100, 2)).tolist(), [0, 1] * 50)))
    node.sample(3.0)
    assert node.notes["trained"] == pytest.approx(29, abs=1)


def test_clustering_keeps_a_set_of_prototypes_that_never_won_below_its_limit() -> None:
    node = Node(fanout=0, cluster_limit=40)
    for i in range(300):
        node.sample(0.1 * i, d=6)
    assert node.state.learner is not None
    assert 20 < len(node.state.learner) <= 41


def test_a_saved_state_goes_on_where_it_was() -> None:
    node = Node(poll_s=0.05, fanout=1)
    for i in range(30):
        node.sample(0.1 * i)
    node.give(Received(3.0, "b", message([[0.0, 1.0], [1.0, 0.0]], [0, 1])))
    stored = snapshot.unpack(snapshot.pack(node.strategy.dump(node.state)))
    again = node.strategy.load("a", stored)
    assert again.queues["b"].size == node.state.queues["b"].size == 2
    x = np.random.default_rng(5).normal(size=(20, 2)).astype(np.float32)
    one, other = (finish(node.strategy.predict(state, x), answer) for state in (again, node.state))
    assert one[0] == other[0]
    batch = Batch(4.0, x[:1], ("1",))
    before, _ = finish(node.strategy.step(node.state, batch), answer)
    after, _ = finish(node.strategy.step(again, batch), answer)
    np.testing.assert_array_equal(before.learner.vectors, after.learner.vectors)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="another strategy"):
        node.strategy.load("a", {**stored, "schema": 5})
