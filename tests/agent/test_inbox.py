"""The inbox keeps the order, is bounded, and lets nobody crowd out anybody else."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from edgeswarm.agent.inbox import Inbox
from edgeswarm.agent.sources import Sample
from edgeswarm.messages import Digest
from edgeswarm.strategies.base import Linked, Peers, Received, Started, Woke


def message(sender="p", version=1):
    return Received(0.0, sender, Digest(1, 1, version, 1, 1))


def sample(label="on"):
    return Sample(np.zeros(1, np.float32), label)


def drain(inbox, limit=64):
    return [inbox.take(limit) for _ in iter(lambda: len(inbox), 0)]


def test_order_is_kept_and_the_start_goes_first():
    inbox = Inbox()
    events = [message(), Woke(1.0, "share"), message("q")]
    for event in events:
        assert inbox.put(event)
    inbox.put_first(Started(0.0, 1))
    assert drain(inbox) == [Started(0.0, 1), *events]
    with pytest.raises(IndexError):
        inbox.take(1)


def test_labelled_samples_in_a_row_are_taken_together():
    inbox = Inbox()
    labels = ["a", "b", "c", None, None, "d"]
    samples = [sample(label) for label in labels]
    for one in samples[:5]:
        inbox.put(one)
    inbox.put(message())
    inbox.put(samples[5])
    taken = drain(inbox, limit=2)
    assert [[s.label for s in item] if isinstance(item, list) else "message" for item in taken] == [
        ["a", "b"], ["c"], [None], [None], "message", ["d"],
    ]  # fmt: skip


def test_one_sender_cannot_fill_it():
    inbox = Inbox(messages_limit=10, sender_limit=4)
    assert [inbox.put(message("noisy", n)) for n in range(6)] == [True] * 4 + [False] * 2
    assert [inbox.put(message(f"p{n}")) for n in range(8)] == [True] * 6 + [False] * 2
    assert inbox.put(sample()) and inbox.put(Woke(1.0, "share"))
    inbox.take(1)
    assert inbox.put(message("noisy")) and not inbox.put(message("noisy"))
    drain(inbox)
    assert all(inbox.put(message("noisy", n)) for n in range(4))


def test_it_is_bounded_in_bytes():
    inbox = Inbox(bytes_limit=1000)
    assert inbox.put(message("a"), 600) and not inbox.put(message("b"), 600) and inbox.put(message("b"), 400)
    drain(inbox)
    assert inbox.put(message("b"), 1000)


def test_only_the_newest_of_how_things_are_waits():
    inbox = Inbox()
    inbox.put(message())
    for n in range(10_000):
        inbox.put(Peers(n, (f"p{n}",)))
        inbox.put(Linked(n))
    assert len(inbox) == 3
    assert drain(inbox)[1:] == [Peers(9999, ("p9999",)), Linked(9999)]
    inbox.put(Linked(3.0))
    assert drain(inbox) == [Linked(3.0)]


def test_a_source_waits_until_the_learning_has_caught_up():
    async def run():
        inbox = Inbox(samples_ahead=3)
        put = []

        async def feed():
            for n in range(10):
                inbox.put(sample(str(n)))
                put.append(n)
                await inbox.room()

        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0)
        seen = []
        while len(seen) < 10:
            assert len(put) - len(seen) <= 3
            await inbox.filled()
            seen += [s.label for s in inbox.take(2)]
            await asyncio.sleep(0)
        await feeding
        return seen

    assert asyncio.run(run()) == [str(n) for n in range(10)]
