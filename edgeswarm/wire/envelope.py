"""The frame round every message: version, kind, body; and everything that can be wrong with bytes from a peer.

[wire_version, kind, body] or [wire_version, kind, body, seal] in msgpack. The first three bytes are fixed (array of 3
or 4, version, kind, each one byte), so a version nobody here reads is told from noise without parsing the rest. `seal`
is room for a signature: up to 256 bytes that this version skips.

Why nothing is allocated on a peer's word: msgpack is told the longest array, map, string and bin before it starts,
maps are off unless a kind needs them, extension types always, and it copies a bin only once all its bytes are there.
What is left to a hostile message is about a thousand nested arrays of twenty slots, and its own length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack

from edgeswarm.errors import WireError

WIRE_VERSION = 1
READABLE_VERSIONS = (1,)
"""Versions this code reads: its own and the one before, so that a fleet can be updated node by node."""

KIND_PROTOTYPES = 1
KIND_DIGEST = 2
KIND_PULL = 3
KIND_PRESENCE = 4
KIND_REPORT = 5
KIND_WEIGHTS = 6
KIND_PREDICTIONS = 7
KIND_BIDS = 8
KIND_CHUNK = 9

REASONS = (
    "too_large",
    "truncated",
    "malformed",
    "wrong_version",
    "unknown_kind",
    "limits",
    "bad_name",
    "bad_shape",
    "bad_value",
    "non_finite",
)
"""Every `WireError.reason`; `docs/wire.md` says what each means. A counter of refusals needs no other labels."""

SEAL_LIMIT_BYTES = 256
MOST_SCHEMA = 2**64 - 1
MOST_EPOCH = 2**23 - 1
MOST_VERSION = 2**40 - 1
"""Epoch and version together make one ordered 63-bit key at the receiver (`maths.replica`)."""
MOST_SAMPLES = 2**53 - 1
"""Whole numbers above this are not exact in a double, which is all some languages have."""
MOST_FLOAT32 = float.fromhex("0x1.fffffep+127")

_THREE = 0x93
_FOUR = 0x94


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver is ready to hold. Checked before arrays are made.

    max_bytes: whole message.  max_prototypes: ids in one message, and likewise removed ids.  max_dimensions: features.
    max_classes: class names.  max_name_bytes: one class name in UTF-8.  max_parts: messages one set is cut into, and
    chunks of a long message.
    max_long_bytes: whole message of the kinds that may be long: weights, predictions, bids.  max_numbers: in a vector.
    max_public: samples of a public set.  max_heads: whose predictions come in one message.
    """

    max_bytes: int = 262_144
    max_prototypes: int = 4096
    max_dimensions: int = 4096
    max_classes: int = 256
    max_name_bytes: int = 64
    max_parts: int = 256
    max_long_bytes: int = 2**24 + 2**16
    max_numbers: int = 2**22
    max_public: int = 65_536
    max_heads: int = 32


DEFAULT_LIMITS = Limits()


def refuse(reason: str, text: str) -> NoReturn:
    """Raise WireError(reason, text)."""
    raise WireError(reason, text)


def frame(kind: int, body: list[Any], float_bytes: int) -> bytes:
    """Message bytes of a kind and its body, whose floats take `float_bytes` each, 4 or 8."""
    packed: bytes = msgpack.packb([WIRE_VERSION, kind, body], use_single_float=float_bytes == 4)
    return packed


def unframe(
    data: bytes, kinds: tuple[int, ...], fields: int, max_bytes: int, max_text: int, max_map: int = 0
) -> tuple[int, list[Any]]:
    """Kind and body array of a message.

    Args:    kinds: those the caller understands.  fields: most elements of a body.  max_bytes: of the message.
             max_text: bytes of the longest string.  max_map: entries of the largest map (0: none expected).
    Raises:  WireError: too_large, truncated, malformed, wrong_version, unknown_kind or limits.
    """
    if len(data) > max_bytes:
        refuse("too_large", f"{len(data)} bytes, limit is {max_bytes}")
    if len(data) < 3:
        refuse("truncated", f"{len(data)} bytes are no message")
    if data[0] not in (_THREE, _FOUR):
        refuse("malformed", "a message is an array of 3 or 4 elements")
    if data[1] not in READABLE_VERSIONS:
        if data[1] > 0x7F:
            refuse("malformed", "the version is not a one-byte integer")
        refuse("wrong_version", f"version {data[1]}, this node reads {READABLE_VERSIONS}")
    if data[2] not in kinds:
        if data[2] > 0x7F:
            refuse("malformed", "the kind is not a one-byte integer")
        refuse("unknown_kind", f"kind {data[2]} is not one of {kinds}")
    try:
        elements = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=max_text,
            max_bin_len=max_bytes,
            max_array_len=fields,
            max_map_len=max_map,
            max_ext_len=0,
        )
    except UnicodeDecodeError as error:
        raise WireError("malformed", f"text is not UTF-8: {error}") from None
    except ValueError as error:  # msgpack's own errors are ValueErrors too
        text = str(error)
        reason = "truncated" if "incomplete" in text else "limits" if "exceeds" in text else "malformed"
        raise WireError(reason, text) from None
    if len(elements) == 4:
        if type(elements[3]) is not bytes:
            refuse("malformed", "the fourth element is not a bin")
        if len(elements[3]) > SEAL_LIMIT_BYTES:
            refuse("limits", f"a seal of {len(elements[3])} bytes, limit is {SEAL_LIMIT_BYTES}")
    body = elements[2]
    if type(body) is not list:
        refuse("malformed", "the body is not an array")
    return data[2], body


def whole(value: Any, most: int, name: str, least: int = 0) -> int:
    """`value` as an int in least..most. Raises WireError: malformed (no integer) or bad_value (out of range)."""
    if type(value) is not int:
        refuse("malformed", f"{name} is not an integer")
    if not least <= value <= most:
        refuse("bad_value", f"{name} is {value}, not in {least}..{most}")
    return value


def seconds(value: Any, name: str) -> float:
    """`value` as seconds >= 0 that fit a float32. An integer is taken too: some languages write 2.0 as 2."""
    if type(value) is not float and type(value) is not int:
        refuse("malformed", f"{name} is not a number")
    if type(value) is float and not math.isfinite(value):
        refuse("non_finite", f"{name} is {value}")
    if not 0 <= value <= MOST_FLOAT32:
        refuse("bad_value", f"{name} is {value}")
    return float(value)


def name_fault(name: Any, limit_bytes: int) -> str:
    """What is wrong with a name, or "". A name is 1..limit_bytes bytes of UTF-8 without control characters,
    line or paragraph separators, direction marks, or any space other than U+0020 (Python's `str.isprintable`)."""
    if type(name) is not str:
        return "a name is not text"
    if not name:
        return "a name is empty"
    if not name.isprintable():
        return f"the name {name!a} is not printable"
    if len(name) * 4 > limit_bytes and len(name.encode()) > limit_bytes:
        return f"a name takes {len(name.encode())} bytes, limit is {limit_bytes}"
    return ""
