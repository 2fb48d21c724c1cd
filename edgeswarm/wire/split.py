"""A set too large for one packet, as several messages that each fit.

Every part is a message like any other (`messages.Prototypes`): ids are disjoint, the union of the parts is the whole,
and the order in which they arrive does not matter. Removed ids come first, then rows in order of id; class statistics
travel in the first part only. Size grows with every row and id taken, so the longest stretch that fits is found by
bisection over real encodings rather than by an estimate that could be wrong by a byte.
"""

from __future__ import annotations

from dataclasses import replace

from edgeswarm.messages import Prototypes
from edgeswarm.wire.codec import encode, in_id_order, take
from edgeswarm.wire.columns import NO_SUMMARY
from edgeswarm.wire.envelope import DEFAULT_LIMITS


def split(message: Prototypes, packet_limit_bytes: int) -> list[Prototypes]:
    """Parts of `message`, each at most `packet_limit_bytes` once encoded; [message] when it fits as it is.

    Raises:  ValueError: one prototype (or the class statistics) alone does not fit, more than Limits.max_parts parts
             would be needed, `message` is itself a part, or `encode` refuses it.
    """
    return [part for part, _ in split_encoded(message, packet_limit_bytes)]


def split_encoded(message: Prototypes, packet_limit_bytes: int) -> list[tuple[Prototypes, bytes]]:
    """As `split`, each part with its bytes, so that a sender encodes a message that fits only once."""
    most = DEFAULT_LIMITS.max_prototypes
    if message.ids.size <= most and message.removed.size <= most:
        data = encode(message)
        if len(data) <= packet_limit_bytes:
            return [(message, data)]
    if message.parts > 1:
        raise ValueError("a part cannot be cut again")
    message = in_id_order(message)
    items = message.removed.size + message.ids.size
    parts: list[Prototypes] = []
    start = 0
    while start < items or not parts:
        stop = _furthest(message, start, packet_limit_bytes)
        parts.append(_stretch(message, start, stop))
        if len(parts) > DEFAULT_LIMITS.max_parts:
            raise ValueError(f"more than {DEFAULT_LIMITS.max_parts} parts of {packet_limit_bytes} bytes")
        message = replace(message, summary=NO_SUMMARY)
        start = stop
    numbered = [replace(part, part=i, parts=len(parts)) for i, part in enumerate(parts)]
    return [(part, encode(part)) for part in numbered]


def _stretch(message: Prototypes, start: int, stop: int) -> Prototypes:
    """Items start..stop of removed ids followed by rows, with the longest part numbers there can be."""
    gone = message.removed.size
    return take(
        message,
        slice(max(start - gone, 0), max(stop - gone, 0)),
        message.removed[start:stop],
        part=DEFAULT_LIMITS.max_parts - 1,
        parts=DEFAULT_LIMITS.max_parts,
    )


def _furthest(message: Prototypes, start: int, limit_bytes: int) -> int:
    """Largest stop such that the items start..stop fit into `limit_bytes`."""
    gone, most = message.removed.size, DEFAULT_LIMITS.max_prototypes
    # A removed id takes at least a byte and a row at least its codes: keeps the first guesses of a set of many
    # megabytes from being encoded whole.
    row_bytes = max(message.vectors.codes.itemsize * message.vectors.codes.shape[1], 1)
    ids = min(max(gone - start, 0), limit_bytes, most)
    high = start + ids
    if high >= gone:
        high = min(high + min(limit_bytes // row_bytes, most), gone + message.ids.size)
    low = start if message.summary.size else start + 1  # class statistics alone are worth a part
    if high < low or len(encode(_stretch(message, start, low))) > limit_bytes:
        raise ValueError(f"{limit_bytes} bytes do not hold the class statistics or even one prototype")
    while low < high:
        middle = (low + high + 1) // 2
        if len(encode(_stretch(message, start, middle))) <= limit_bytes:
            low = middle
        else:
            high = middle - 1
    return low
