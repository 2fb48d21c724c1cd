"""Closed estimates: they must follow from the card by hand, and order models and machines as they should."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths.compress import compress
from edgeswarm.messages import VECTOR_SCHEMES, Weights
from edgeswarm.models.card import BODY, InputSpec, ModelCard, Parameter
from edgeswarm.models.cost import ENVELOPE_BYTES, PACKET_BYTES, Speed, cost, exchange, vector_bytes
from edgeswarm.wire.codec import encode


def card(size: int, flops: int = 1_000_000, activation_bytes: int = 10_000) -> ModelCard:
    parameters = (Parameter("w", (size,), BODY),) if size else ()
    entry = InputSpec((4,), "vector", "")
    return ModelCard("m", "mlp", parameters, entry, ("a", "b"), 4, 0, {}, flops, activation_bytes, "MIT", {})


SPEED = Speed(flops_per_s=1e9, bytes_per_s=1e9, call_s=1e-4, base_bytes=50_000_000)


def test_bytes_of_an_exchange_by_hand() -> None:
    sizes = {each.scheme: each.size_bytes for each in exchange(61_706)}
    assert sizes["float32"] == 246_824
    assert sizes["float16"] == 123_412
    assert sizes["int8"] == 61_706 + 2 * 242
    assert sizes["int4"] == 30_853 + 2 * 242
    assert sizes["top 10%"] == 6_171 + 2 * 25 + 5 + 6_170
    assert sizes["entropy"] == round(3.85 / 8 * 61_706 + 0.5) + 2
    assert sorted(sizes, key=sizes.__getitem__) == ["top 10%", "entropy", "int4", "int8", "float16", "float32"]


@pytest.mark.parametrize("scheme", VECTOR_SCHEMES)
@pytest.mark.parametrize("size", [1, 255, 256, 257, 10_001])
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_a_vector_takes_so_many_bytes_on_the_wire(scheme: str, size: int, share: float) -> None:
    """Beside them there is a head of the message, the same for all."""
    vector = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    data = encode(Weights(2**63, 2**63, "all", 1, 1, compress(vector, scheme, share)))
    beside = len(data) - vector_bytes(size, scheme, share)
    assert 0 <= beside <= 80 if scheme != "entropy" else abs(beside) <= 0.02 * size + 100


@pytest.mark.parametrize("size", [1, 2, 256, 257, 1_000_000])
def test_messages_hold_what_they_must(size: int) -> None:
    room = PACKET_BYTES - ENVELOPE_BYTES
    for each in exchange(size):
        assert (each.messages - 1) * room < each.size_bytes <= each.messages * room


def test_a_packet_more_as_soon_as_one_is_full() -> None:
    room = PACKET_BYTES - ENVELOPE_BYTES
    assert exchange(room // 4)[0].messages == 1
    assert exchange(room // 4 + 1)[0].messages == 2
    assert exchange(room // 4, packet_bytes=2 * PACKET_BYTES)[0].messages == 1


def test_an_encoder_exchanges_nothing() -> None:
    assert exchange(0) == []


def test_time_by_hand() -> None:
    found = cost(card(0, flops=2_000_000, activation_bytes=500_000), SPEED, batch=10)
    assert found.inference_s == pytest.approx(1e-4 + 2e-3)
    assert found.step_s == pytest.approx(1e-4 + 3 * 10 * 3e-3)


def test_memory_by_hand() -> None:
    found = cost(card(1_000, activation_bytes=2_000), SPEED, batch=8, slots=2)
    assert found.memory_bytes == 50_000_000 + 7 * 4_000 + 1.5 * 8 * 2_000
    assert found.inference_bytes == 50_000_000 + 2 * 4_000 + 2_000


def test_more_work_and_a_slower_machine_take_longer() -> None:
    slow = Speed(SPEED.flops_per_s / 4, SPEED.bytes_per_s / 4, 4 * SPEED.call_s, SPEED.base_bytes)
    plain = cost(card(1_000), SPEED, 32)
    for other in (cost(card(1_000), SPEED, 64), cost(card(1_000), slow, 32), cost(card(1_000, 2_000_000), SPEED, 32)):
        assert other.step_s > plain.step_s
    assert cost(card(1_000), slow, 32).step_s == pytest.approx(4 * plain.step_s)
    assert cost(card(1_000), SPEED, 32, slots=2).memory_bytes == plain.memory_bytes + 4_000
