"""What a model costs before anybody has run it: bytes per exchange, memory and time per step, in closed form.

# Theory. Arithmetic takes flops / F seconds and moving intermediate values takes bytes / B seconds on a machine of F
floating-point operations and B bytes of memory traffic a second; a small board overlaps the two badly, so they are
added (the roofline model of Williams, Waterman and Patterson, 2009, takes the larger, which is its best case). A
backward pass costs twice a forward pass: one product for the gradient of the input, one for that of the weights.
Estimates are for choosing a model and a board; `edgeswarm model check` on the board itself measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from edgeswarm.messages import VECTOR_SCHEMES, scale_count
from edgeswarm.models.card import ModelCard

PACKET_BYTES = 120_000
"""Largest MQTT packet unless [broker] packet_limit_bytes says otherwise."""
ENVELOPE_BYTES = 256
"""Taken by topic, properties and envelope in each packet, rounded up."""

TOP_SHARE = 0.1
"""Part of the numbers sent with scheme top, unless the method's setting says another."""
ENTROPY_BITS = 3.85
"""A number in scheme entropy where numbers are normal; fewer where most are small, as in differences of models."""

PARTS_OF_A_STEP = 3
"""Forward passes that a training step is worth."""


HELD = 1.5
"""Intermediate values that a training step holds at its peak, times those of the forward pass: all of these, and
gradients of some on their way back. Measured with onnxruntime 1.31 at batch 32: 1.0 (ResNet-20) to 1.8 (small CNN)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What sending the vector once takes. scheme: how numbers are packed."""

    scheme: str
    size_bytes: int
    messages: int


@dataclass(frozen=True, slots=True)
class Speed:
    """A machine with one thread. flops_per_s, bytes_per_s: reached in practice, not in the data sheet.

    call_s: of one call of the runtime however small.  base_bytes: of a Python process with NumPy and the runtime.
    """

    flops_per_s: float
    bytes_per_s: float
    call_s: float
    base_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimates. step_s: gradient and update of one batch.  inference_s: one sample.  memory_bytes: of the training
    process at its peak.  inference_bytes: of one that only serves."""

    step_s: float
    inference_s: float
    memory_bytes: int
    inference_bytes: int


def vector_bytes(size: int, scheme: str, share: float = TOP_SHARE) -> int:
    """What `size` numbers take as `messages.Compressed`: codes, a float16 scale for each SCALE_BLOCK of them, places.

    share: of the numbers that travel with scheme top; the gap between two of them takes one byte, or two where they are
    so rare that some gap is likely to be above 255.
    """
    kept = max(1, round(share * size)) if scheme == "top" else size
    bits = {"float32": 32, "float16": 16, "int4": 4, "entropy": ENTROPY_BITS}.get(scheme, 8)
    scales = 2 * scale_count(scheme, kept)
    gap_bytes = 1 if log(kept + 1) / share < 256 else 2
    return ceil(bits / 8 * kept) + scales + (5 + (kept - 1) * gap_bytes if scheme == "top" else 0)


def exchange(size: int, packet_bytes: int = PACKET_BYTES) -> list[Exchange]:
    """Bytes and MQTT packets that a vector of `size` numbers takes, by scheme. size 0: an empty list."""
    if size == 0:
        return []
    room = packet_bytes - ENVELOPE_BYTES
    sizes = {scheme: vector_bytes(size, scheme) for scheme in VECTOR_SCHEMES}
    named = {f"top {TOP_SHARE:.0%}" if scheme == "top" else scheme: found for scheme, found in sizes.items()}
    return [Exchange(scheme, found, ceil(found / room)) for scheme, found in named.items()]


def cost(card: ModelCard, speed: Speed, batch: int, slots: int = 1) -> Cost:
    """What one step with `batch` rows, and one answer, take on a machine. slots: vectors the optimiser remembers.

    Memory of training: the process itself; five vectors besides the optimiser's (parameters, gradient, update, and
    what the runtime holds of the first two); HELD times the intermediate values of the batch. Serving holds the
    weights twice (as read, and laid out for the kernels) and one sample's values, which fit a cache: moving them is
    not counted.
    """
    vector_bytes = 4 * card.size
    traffic_bytes = card.activation_bytes * 2  # each value is written and read once
    forward_s = card.flops / speed.flops_per_s + traffic_bytes / speed.bytes_per_s
    update_s = (3 + 2 * slots) * vector_bytes / speed.bytes_per_s
    step_s = speed.call_s + PARTS_OF_A_STEP * batch * forward_s + update_s
    inference_s = speed.call_s + card.flops / speed.flops_per_s + vector_bytes / speed.bytes_per_s
    training = speed.base_bytes + (5 + slots) * vector_bytes + int(HELD * batch * card.activation_bytes)
    serving = speed.base_bytes + 2 * vector_bytes + card.activation_bytes
    return Cost(step_s, inference_s, training, serving)
