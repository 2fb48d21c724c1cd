"""The inbox keeps the order, is bounded, and lets nobody crowd out anybody else."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from edgeswarm.agent.inbox import Inbox
from edgeswarm.agent.sources import Sample
from edgeswarm.messages import SNAPSHOT, Bids, Compressed, Digest, Packed, Prototypes, Weights, array_bytes
from edgeswarm.strategies.base import Linked, Peers, Received, Started, Woke
from edgeswarm.wire.codec import encode


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


def test_one_sender_has_a_part_of_the_bytes_but_one_message_may_be_larger():
    inbox = Inbox(bytes_limit=1000)
    assert inbox.put(message("noisy", 1), 600) and not inbox.put(message("noisy", 2), 1)
    assert [inbox.put(message("quiet", n), 100) for n in range(4)] == [True, True, False, False]
    assert inbox.put(message("third"), 200) and not inbox.put(message("fourth"), 1)
    drain(inbox)
    assert inbox.put(message("noisy", 3), 1000) and not inbox.put(message("quiet"), 1)


def model(version, sender="p", part="all", base=SNAPSHOT, epoch=1):
    values = Compressed("float32", 3, np.ones(3, np.float32))
    return Received(0.0, sender, Weights(1, 2, part, epoch, version, values, base))


def test_only_the_newest_of_a_model_waits():
    inbox = Inbox(messages_limit=6, bytes_limit=1000)
    for version in (3, 5, 4, 5):
        assert inbox.put(model(version), 200)
    assert inbox.put(model(6), 900) and not inbox.put(model(7), 1001), "what does not fit leaves what waits"
    assert inbox.put(model(7), 100) and inbox.put(model(1, epoch=2), 100)
    others = [model(1, "q"), model(1, part="body"), model(8, base=7), model(9, base=7)]
    assert all(inbox.put(each, 50) for each in others)
    assert inbox.put(Received(0.0, "q", Bids(1, 2, 1, 1, np.zeros(4, np.uint8))), 50)
    newer = Received(1.0, "q", Bids(1, 2, 1, 2, np.zeros(4, np.uint8)))
    assert inbox.put(newer, 60)
    assert not inbox.put(message("late"), 1), "six wait"
    taken = drain(inbox)
    assert [(each.message.epoch, each.message.version) for each in taken[:1]] == [(2, 1)]
    assert taken[1:] == [*others, newer]
    assert all(inbox.put(message(f"p{n}"), 166) for n in range(6)), "nothing is left of what was counted"


def bids(sender, public=2, size=65_536):
    return Received(0.0, sender, Bids(1, public, 1, 1, np.zeros(size, np.uint8)))


def test_what_is_short_on_the_wire_counts_what_it_takes_in_memory():
    assert len(encode(bids("p").message)) < 100
    inbox = Inbox(bytes_limit=10 * 65_536)
    assert sum(inbox.put(bids(f"p{n}"), 24) for n in range(4096)) == 10
    drain(inbox)
    assert inbox.put(model(1), 10 * 65_536), "the wire counts where it is the larger, and nothing is left over"
    zeros = np.zeros((100, 4), np.int8)
    packed = Packed("int8", zeros, np.ones(4, np.float32), np.zeros(4, np.float32))
    points = Prototypes(
        schema=1, epoch=1, version=1, base=SNAPSHOT, classes=("on",), ids=np.arange(100, dtype=np.uint32),
        labels=np.zeros(100, np.uint16), vectors=packed, counts=np.ones(100, np.float32),
        removed=np.zeros(0, np.uint32), samples=100, age_s=0.0,
    )  # fmt: skip
    assert array_bytes(points) == 100 * (4 + 2 + 4 + 4) + 2 * 16
    assert array_bytes(model(1).message) == 12 and array_bytes(message().message) == 0


def test_names_of_models_and_public_sets_that_a_sender_invents_share_its_place():
    inbox = Inbox()
    assert all(inbox.put(bids("p", public=n, size=4)) for n in range(1000))
    values = Compressed("float32", 3, np.ones(3, np.float32))
    assert all(inbox.put(Received(0.0, "p", Weights(1, n, "all", 1, n, values))) for n in range(1000))
    assert len(inbox) == 2
    assert drain(inbox)[1].message.version == 999


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
