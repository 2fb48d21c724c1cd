"""Closed formulas of messages against the messages themselves, as the transport would send them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.agent.clock import VirtualClock
from edgeswarm.maths.compress import compress
from edgeswarm.messages import ENCODINGS, VECTOR_SCHEMES, Bids, Message, Packed, Predictions, Prototypes, Weights
from edgeswarm.sim.traffic import bids_bytes, predictions_bytes, prototypes_bytes, weights_bytes
from edgeswarm.transport.hub import MemoryHub

RNG = np.random.default_rng(0)


class Deaf:
    """A listener that nobody tells anything."""

    def on_message(self, *told: object) -> None: ...
    def on_refused(self, *told: object) -> None: ...
    def on_presence(self, *told: object) -> None: ...
    def on_link(self, *told: object) -> None: ...


def sent_bytes(message: Message) -> int:
    """What the transport counts."""
    import random

    clock = VirtualClock()
    hub = MemoryHub(clock, random.Random(0))
    transport = hub.join("node-1", Deaf())
    clock.run(1.0)
    before = transport.counters["bytes_sent"]
    transport.send("all", message)
    return transport.counters["bytes_sent"] - before


@pytest.mark.parametrize("scheme", VECTOR_SCHEMES)
@pytest.mark.parametrize("numbers", [650, 61_706, 400_000])
def test_weights(scheme: str, numbers: int) -> None:
    """The largest take several packets."""
    vector = RNG.standard_normal(numbers).astype(np.float32)
    message = Weights(2**63, 2**63, "all", 3, 1000, compress(vector, scheme), samples=1000, age_s=0.5)
    near = 0.05 if scheme == "entropy" else 0.01  # which depends on the numbers
    assert weights_bytes(numbers, scheme) == pytest.approx(sent_bytes(message), rel=near)


def test_differences() -> None:
    """They are not retained, which takes fewer bytes to say."""
    message = Weights(2**63, 2**63, "all", 3, 1000, compress(np.ones(650, np.float32), "int8"), base=999, samples=1000)
    assert weights_bytes(650, "int8", difference=True) == pytest.approx(sent_bytes(message), rel=0.01)
    assert weights_bytes(650, "int8") > 1.02 * weights_bytes(650, "int8", difference=True)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("rows", "heads", "classes"), [(500, 2, 10), (200, 1, 2), (2000, 4, 100)])
@pytest.mark.parametrize("trusted", [False, True])
def test_predictions(encoding: str, rows: int, heads: int, classes: int, trusted: bool) -> None:
    logits = RNG.random((rows, heads, classes))
    shares = (logits / logits.sum(axis=2, keepdims=True)).astype(np.float32)
    tops = np.zeros((0, 0, 0), np.uint8)
    said: np.ndarray = shares
    if encoding != "float32":
        said = np.round(255 * shares).astype(np.uint8)
    if encoding == "top2":
        order = np.argsort(-said.astype(int), axis=2, kind="stable")[:, :, :2]
        said, tops = np.take_along_axis(said, order, axis=2), order.astype(np.uint8)
    trust = RNG.integers(0, 255, rows).astype(np.uint8) if trusted else np.full(rows, 255, np.uint8)
    every = np.arange(rows, dtype=np.uint32)
    message = Predictions(2**63, 2**63, 3, 1000, classes, every, encoding, said, tops, trust, samples=100)
    assert predictions_bytes(rows, heads, classes, encoding, trusted) == pytest.approx(sent_bytes(message), rel=0.02)


def test_bids_take_no_more() -> None:
    """Random floors are what compresses least."""
    floors = RNG.integers(0, 16, 2000).astype(np.uint8) * 17
    taken = sent_bytes(Bids(2**63, 2**63, 3, 1000, floors.astype(np.uint8)))
    assert 0.9 * bids_bytes(2000) < taken <= 1.01 * bids_bytes(2000)


@pytest.mark.parametrize("vectors", ["int8", "float16", "float32"])
@pytest.mark.parametrize(("count", "features", "classes"), [(30, 8, 2), (250, 64, 10)])
def test_prototypes(vectors: str, count: int, features: int, classes: int) -> None:
    codes = RNG.integers(-100, 100, (count, features)).astype(vectors)
    packed = Packed(vectors, codes, np.ones(features, np.float32), np.zeros(features, np.float32))
    labels = RNG.integers(0, classes, count).astype(np.uint16)
    counts = (1 + RNG.random(count)).astype(np.float32)
    summary = np.ones((classes, 1 + 2 * features), np.float16)
    message = Prototypes(
        2**63, 3, 1000, -1, tuple(map(str, range(classes))), np.arange(count, dtype=np.uint32), packed, labels, counts,
        summary=summary,
    )  # fmt: skip
    assert prototypes_bytes(count, features, classes, vectors) == pytest.approx(sent_bytes(message), rel=0.04)
