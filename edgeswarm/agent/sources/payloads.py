"""Bytes of a sensor as a reading, or one countable reason why not. Sensors are strangers: nothing of theirs may harm.

A payload is a list of numbers, or an object with "features" (a list, or an object of names to numbers) and perhaps a
label and an id; an object with an id and a label alone is a label that comes later. JSON or msgpack.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]

from edgeswarm.agent.sources.base import MOST_FEATURES, usable_label

FEATURES = "features"
ID_LIMIT = 128


class Refused(Exception):
    """A payload that is not used. reason: one of a fixed set of words, for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reading:
    """What a payload says. features: numbers in the sender's order or by name, None when it brings none."""

    features: list[float] | dict[str, float] | None
    label: str | None
    id: str | int | None


def parse(payload: bytes, form: str, limit_bytes: int, id_key: str = "id", label_key: str = "label") -> Reading:
    """The reading in `payload`. form: "json" or "msgpack".

    Raises Refused and nothing else: too_large, bad_json, bad_msgpack, wrong_shape, not_a_number, missing_value,
    bad_label, bad_id.
    """
    if len(payload) > limit_bytes:
        raise Refused("too_large")
    tree = _json(payload) if form == "json" else _msgpack(payload)
    if isinstance(tree, list):
        return Reading(_numbers(tree), None, None)
    if not isinstance(tree, dict):
        raise Refused("wrong_shape")
    features = tree.get(FEATURES)
    return Reading(
        None if features is None else _features(features),
        _label(tree.get(label_key)),
        _identity(tree.get(id_key)),
    )


def prediction(form: str, fields: dict[str, Any]) -> bytes:
    """`fields` in the sensors' own format."""
    if form == "json":
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    packed: bytes = msgpack.packb(fields, unicode_errors="replace")
    return packed


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):  # ValueError: bad text, bad JSON, a number of thousands of digits
        raise Refused("bad_json") from None


def _msgpack(payload: bytes) -> Any:
    size = len(payload)
    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException):
        raise Refused("bad_msgpack") from None


def _features(features: object) -> list[float] | dict[str, float]:
    if isinstance(features, list):
        return _numbers(features)
    if isinstance(features, dict) and all(isinstance(name, str) for name in features):
        return dict(zip(features, _numbers(list(features.values())), strict=True))
    raise Refused("wrong_shape")


def _numbers(values: list[Any]) -> list[float]:
    if not 0 < len(values) <= MOST_FEATURES:
        raise Refused("wrong_shape")
    numbers = []
    for value in values:
        if value is None:
            raise Refused("missing_value")
        if not isinstance(value, (int, float)):  # True and False are numbers here: a door is open or not
            raise Refused("not_a_number")
        try:
            numbers.append(float(value))
        except OverflowError:
            numbers.append(float("inf"))
    return numbers


def _label(value: object) -> str | None:
    label = _word(value, "bad_label")
    if label is not None and not usable_label(label):
        raise Refused("bad_label")
    return label


def _identity(value: object) -> str | int | None:
    """An id as it was given, so that the answer bears the same: 17 is not "17" to who compares them."""
    return value if isinstance(value, int) and _word(value, "bad_id") else _word(value, "bad_id")


def _word(value: object, reason: str) -> str | None:
    """A label or id as text: text or a whole number."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise Refused(reason)
    if isinstance(value, int) and value.bit_length() > 64:  # turning thousands of digits into text takes long
        raise Refused(reason)
    word = str(value)
    if len(word) > ID_LIMIT:
        raise Refused(reason)
    return word
