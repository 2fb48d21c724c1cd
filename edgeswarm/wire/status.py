"""What a node says about itself, as bytes: presence (retained at the broker) and health reports.

Unlike the messages of `codec`, these carry names the receiver does not know beforehand, so small maps are allowed, of
text to numbers or short text. Both are for people and gauges: no strategy decides on them. A number that is not finite
is left out when writing (nothing learnt yet has no accuracy) and refused when reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeswarm.errors import WireError
from edgeswarm.messages import PRESENCE_STATES, Presence
from edgeswarm.wire.envelope import KIND_PRESENCE, KIND_REPORT, MOST_EPOCH, frame, name_fault, refuse, unframe, whole

PRESENCE_LIMIT_BYTES = 4096
REPORT_LIMIT_BYTES = 120_000
NAME_LIMIT_BYTES = 64
TEXT_LIMIT_BYTES = 256
MOST_FACTS = 64
MOST_NOTES = 256
MOST_LINKS = 1024
MOST_NOTES_OF_A_LINK = 32


def encode_presence(presence: Presence) -> bytes:
    """Presence as bytes; its node is not among them, the topic says it.

    Raises:  ValueError: a state, name, text or number of facts that `decode_presence` would refuse.
    """
    facts = {name: v for name, v in ((n, _plain(v)) for n, v in presence.facts.items()) if _kept(v)}
    data = frame(KIND_PRESENCE, [presence.state, int(presence.epoch), presence.instance, facts], float_bytes=8)
    return _readable(data, decode_presence, presence.node)


def decode_presence(node: str, data: bytes) -> Presence:
    """Presence of `node` (the name its topic proved). Raises WireError, nothing else.

    An empty payload is not a presence: it is how a retained one is deleted, and the caller's to notice.
    """
    body = unframe(data, (KIND_PRESENCE,), 4, PRESENCE_LIMIT_BYTES, TEXT_LIMIT_BYTES, MOST_FACTS)[1]
    if len(body) != 4:
        refuse("malformed", f"presence has 4 fields, not {len(body)}")
    state, epoch, instance, facts = body
    if state not in PRESENCE_STATES:
        refuse("bad_value", f"state is not one of {', '.join(PRESENCE_STATES)}")
    whole(epoch, MOST_EPOCH, "epoch")
    _name(instance)
    for name, value in _map(facts, MOST_FACTS, "facts").items():
        _name(name)
        if type(value) is str:
            if not value.isprintable():  # its length was limited before it was read
                refuse("bad_value", f"the text of fact {name!a} is not printable")
        elif type(value) is not int:
            _number(value)
    return Presence(node, state, epoch, instance, facts)


def encode_report(report: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A health report as bytes: {"notes": {name: number}, "links": {peer: {name: number}}}, either may be missing.

    Raises:  ValueError: more or longer names than `decode_report` takes, or another key.
    """
    if not report.keys() <= {"notes", "links"}:
        raise ValueError(f"a report has notes and links, not {', '.join(sorted(report.keys()))}")
    notes = _numbers(report.get("notes", {}))
    links = {peer: _numbers(values) for peer, values in report.get("links", {}).items()}
    return _readable(frame(KIND_REPORT, [notes, links], float_bytes=8), decode_report)


def decode_report(data: bytes) -> dict[str, Any]:
    """{"notes": {name: float}, "links": {peer: {name: float}}}. Raises WireError, nothing else."""
    body = unframe(data, (KIND_REPORT,), 4, REPORT_LIMIT_BYTES, NAME_LIMIT_BYTES, MOST_LINKS)[1]
    if len(body) != 2:
        refuse("malformed", f"a report has 2 fields, not {len(body)}")
    notes = _read_numbers(body[0], MOST_NOTES, "notes")
    links = {
        _name(peer): _read_numbers(values, MOST_NOTES_OF_A_LINK, "notes of a link")
        for peer, values in _map(body[1], MOST_LINKS, "links").items()
    }
    return {"notes": notes, "links": links}


# ---- small parts ----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> float | int | str:
    """Text as it is, anything that counts as an integer as int, any other number as float."""
    if isinstance(value, str):
        return value
    return int(value) if hasattr(value, "__index__") else float(value)


def _kept(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _readable(data: bytes, reader: Any, *before: str) -> bytes:
    """`data`, once its own reader has taken it: what one node writes, every other can read."""
    try:
        reader(*before, data)
    except WireError as error:
        raise ValueError(f"no node would take this: {error}") from None
    return data


def _map(value: Any, most: int, what: str) -> dict[Any, Any]:
    if type(value) is not dict:
        refuse("malformed", f"{what} are not a map")
    if len(value) > most:
        refuse("limits", f"{len(value)} {what}, limit is {most}")
    return value


def _name(name: Any) -> str:
    fault = name_fault(name, NAME_LIMIT_BYTES)
    if fault:
        refuse("bad_name", fault)
    return str(name)


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        refuse("malformed", "a value is not a number")
    if not math.isfinite(value):
        refuse("non_finite", "a value is not finite")
    return float(value)


def _read_numbers(values: Any, most: int, what: str) -> dict[str, float]:
    return {_name(name): _number(value) for name, value in _map(values, most, what).items()}
