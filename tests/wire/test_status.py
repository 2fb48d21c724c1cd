"""Presence and reports: bounded, readable, and nothing but WireError for whatever a peer sends."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.errors import WireError
from edgeswarm.messages import PRESENCE_STATES, Presence
from edgeswarm.wire.codec import decode
from edgeswarm.wire.envelope import REASONS
from edgeswarm.wire.status import decode_presence, decode_report, encode_presence, encode_report

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16).filter(str.isprintable)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=64).filter(str.isprintable)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NOTES = st.dictionaries(NAMES, NUMBERS, max_size=8)
RELAXED = settings(deadline=None)


@RELAXED
@given(
    st.builds(
        Presence,
        st.just("pi-1"),
        st.sampled_from(PRESENCE_STATES),
        st.integers(0, 2**23 - 1),
        NAMES,
        st.dictionaries(NAMES, NUMBERS | TEXTS | st.integers(-(2**63), 2**64 - 1), max_size=8),
    )
)
def test_presence_round_trip(presence: Presence) -> None:
    assert decode_presence("pi-1", encode_presence(presence)) == presence


@RELAXED
@given(NOTES, st.dictionaries(NAMES, NOTES, max_size=5))
def test_report_round_trip(notes: dict[str, float], links: dict[str, dict[str, float]]) -> None:
    assert decode_report(encode_report({"notes": notes, "links": links})) == {"notes": notes, "links": links}


def test_numbers_that_are_not_finite_are_left_out() -> None:
    presence = Presence(
        "pi-1", "ready", 1, "x", {"accuracy": math.nan, "loss": np.float32("inf"), "n": np.int64(3), "on": True}
    )
    assert decode_presence("pi-1", encode_presence(presence)).facts == {"n": 3, "on": 1}
    report = {"notes": {"a": math.inf, "b": 1}, "links": {"p": {"c": math.nan}}}
    assert decode_report(encode_report(report)) == {"notes": {"b": 1.0}, "links": {"p": {}}}


def test_a_report_may_lack_a_half() -> None:
    assert decode_report(encode_report({})) == {"notes": {}, "links": {}}


@pytest.mark.parametrize(
    "presence",
    [
        Presence("pi-1", "gone", 1, "x"),
        Presence("pi-1", "ready", -1, "x"),
        Presence("pi-1", "ready", 1, ""),
        Presence("pi-1", "ready", 1, "x", {"": 1}),
        Presence("pi-1", "ready", 1, "x", {"a\x00": 1}),
        Presence("pi-1", "ready", 1, "x", {"x" * 65: 1}),
        Presence("pi-1", "ready", 1, "x", {"a": "x" * 257}),
        Presence("pi-1", "ready", 1, "x", {"a": "\x1b[2J"}),
        Presence("pi-1", "ready", 1, "x", {str(i): i for i in range(65)}),
        Presence("pi-1", "ready", 1, "x", {str(i): "x" * 200 for i in range(40)}),
    ],
)
def test_presence_that_would_be_refused_is_not_written(presence: Presence) -> None:
    with pytest.raises(ValueError, match="no node would take this"):
        encode_presence(presence)


@pytest.mark.parametrize(
    "report",
    [
        {"notes": {str(i): 1.0 for i in range(257)}},
        {"links": {str(i): {} for i in range(1025)}},
        {"links": {"p": {str(i): 1.0 for i in range(33)}}},
        {"notes": {"x" * 65: 1.0}},
        {"notes": {"": 1.0}},
        {"other": {"a": 1.0}},
    ],
)
def test_reports_that_would_be_refused_are_not_written(report: Any) -> None:
    with pytest.raises(ValueError, match=r"no node would take this|notes and links"):
        encode_report(report)


REFUSED = [
    ([1, 4, ["ready", 1, "x", {"a": [1]}]], "malformed"),
    ([1, 4, ["ready", 1, "x", {"a": None}]], "malformed"),
    ([1, 4, ["ready", 1, "x", {"a": True}]], "malformed"),
    ([1, 4, ["ready", 1, "x", {"a": math.nan}]], "non_finite"),
    ([1, 4, ["ready", 1, "x", {b"a": 1}]], "bad_name"),
    ([1, 4, ["ready", 1, "x", {1: 1}]], "malformed"),
    ([1, 4, ["ready", 1, "x", []]], "malformed"),
    ([1, 4, ["ready", 1, "x"]], "malformed"),
    ([1, 4, [["ready"], 1, "x", {}]], "bad_value"),
    ([1, 4, ["ready", 1, 7, {}]], "bad_name"),
    ([1, 4, ["ready", 1, "x", {str(i): i for i in range(65)}]], "limits"),
    ([2, 4, ["ready", 1, "x", {}]], "wrong_version"),
    ([1, 5, [{}, {}]], "unknown_kind"),
    ([1, 1, []], "unknown_kind"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED)
def test_refused_presence(value: Any, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_presence("pi-1", msgpack.packb(value))
    assert caught.value.reason == reason


def test_each_kind_has_its_own_reader() -> None:
    presence = encode_presence(Presence("pi-1", "lost", 1, "x"))
    for reader in (decode, decode_report):
        with pytest.raises(WireError, match="unknown_kind"):
            reader(presence)
    with pytest.raises(WireError, match="truncated"):
        decode_presence("pi-1", b"")
    with pytest.raises(WireError, match="too_large"):
        decode_presence("pi-1", presence + bytes(4096))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@RELAXED
@given(st.integers(4, 5), st.lists(VALUES, max_size=4))
def test_any_values_give_a_result_or_one_error(kind: int, body: list[Any]) -> None:
    read_both(msgpack.packb([1, kind, body]))


@RELAXED
@given(st.sampled_from(PRESENCE_STATES), VALUES, VALUES, VALUES)
def test_any_values_in_place_give_a_result_or_one_error(state: str, epoch: Any, instance: Any, facts: Any) -> None:
    read_both(msgpack.packb([1, 4, [state, epoch, instance, facts]]))
    read_both(msgpack.packb([1, 5, [epoch, facts]]))


@RELAXED
@given(st.integers(4, 5), st.binary(max_size=100))
def test_noise_gives_a_result_or_one_error(kind: int, data: bytes) -> None:
    read_both(data)
    read_both(bytes((0x93, 1, kind)) + data)


def read_both(data: bytes) -> None:
    for read in (lambda d: decode_presence("pi-1", d), decode_report):
        try:
            read(data)
        except WireError as error:
            assert error.reason in REASONS
