"""Messages between peers as bytes, and back. The format, field by field, is in `docs/wire.md`.

What `encode` writes, `decode` with the default limits reads, and nothing is lost on the way: arrays are written in
the narrowest width that keeps every value. Rows travel in ascending order of id, so one set has one encoding. Any bytes
from a peer give a message or one `WireError`; any other exception out of `decode` is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import WireError
from edgeswarm.messages import (
    SCHEMES,
    SNAPSHOT,
    Array,
    Bids,
    Digest,
    Message,
    Packed,
    Predictions,
    Prototypes,
    Pull,
    Weights,
)
from edgeswarm.wire import columns, sharing
from edgeswarm.wire.envelope import (
    DEFAULT_LIMITS,
    KIND_BIDS,
    KIND_DIGEST,
    KIND_PREDICTIONS,
    KIND_PROTOTYPES,
    KIND_PULL,
    KIND_WEIGHTS,
    MOST_EPOCH,
    MOST_FLOAT32,
    MOST_SAMPLES,
    MOST_SCHEMA,
    MOST_VERSION,
    Limits,
    frame,
    name_fault,
    refuse,
    seconds,
    unframe,
    whole,
)

_FIELDS = {
    KIND_PROTOTYPES: 18,
    KIND_DIGEST: 6,
    KIND_PULL: 3,
    KIND_WEIGHTS: sharing.WEIGHTS_FIELDS,
    KIND_PREDICTIONS: sharing.PREDICTIONS_FIELDS,
    KIND_BIDS: sharing.BIDS_FIELDS,
}
KINDS = tuple(_FIELDS)
LONG_KINDS = (KIND_WEIGHTS, KIND_PREDICTIONS, KIND_BIDS)
"""Kinds that may have `Limits.max_long_bytes`, and travel in chunks where a packet is too small for them."""
_CODE = (columns.F32, columns.F16, np.dtype("i1"))
"""Element of `codes` for each of SCHEMES; its place there is the number on the wire."""
_INT8 = SCHEMES.index("int8")
_SAFE = 2.0**120
"""|offset| + 128 |scale| stays in float32 when neither is above this."""


def encode(message: Message) -> bytes:
    """Message as bytes.

    Raises:  ValueError: a peer with the default limits would refuse it whatever its size (a number out of range or not
             finite, an unusable class name, more prototypes, features or classes than the limits).
    """
    kind, body = _BODIES[type(message)]
    try:
        data = frame(kind, body(message), float_bytes=4)
        if kind in LONG_KINDS and len(data) > DEFAULT_LIMITS.max_long_bytes:
            refuse("too_large", f"{len(data)} bytes, limit is {DEFAULT_LIMITS.max_long_bytes}")
        return data
    except WireError as error:
        raise ValueError(f"no peer would take this message: {error}") from None


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Message:
    """Bytes from a peer as a Message. Raises WireError for any bytes we refuse, nothing else.

    Arrays of the answer may be read-only views of the received bytes; ids and removed ids are ascending.
    """
    long = len(data) > 2 and data[2] in LONG_KINDS
    most = limits.max_long_bytes if long else limits.max_bytes
    text = 0 if long else limits.max_classes * (limits.max_name_bytes + 1)
    kind, body = unframe(data, KINDS, _FIELDS[KIND_PROTOTYPES], most, text)
    if len(body) != _FIELDS[kind]:
        refuse("malformed", f"kind {kind} has {_FIELDS[kind]} fields, not {len(body)}")
    try:
        return _READERS[kind](body, limits)
    except ValueError as error:  # what remains of the checks in messages.py
        raise WireError("bad_value", str(error)) from None


def size_bytes(message: Message) -> int:
    """What `message` takes on the wire, without the MQTT packet round it (`transport.packet` counts that)."""
    return len(encode(message))


def in_id_order(message: Prototypes) -> Prototypes:
    """The same set with its rows and removed ids ascending by id; `message` itself when they are."""
    ids, removed = message.ids, message.removed
    if _ascending(ids) and _ascending(removed):
        return message
    return take(message, np.argsort(ids), np.unique(removed))


def _ascending(ids: NDArray[np.uint32]) -> bool:
    return ids.size < 2 or bool(np.count_nonzero(ids[1:] > ids[:-1]) == ids.size - 1)


def take(message: Prototypes, rows: NDArray[np.intp] | slice, removed: NDArray[np.uint32], **other: Any) -> Prototypes:
    """`message` with only these rows and removed ids; `other` replaces further fields."""
    packed = message.vectors
    fields = {name: getattr(message, name) for name in _PLAIN} | other
    return Prototypes(
        ids=message.ids[rows],
        vectors=Packed(packed.scheme, packed.codes[rows], packed.scale, packed.offset),
        labels=message.labels[rows],
        counts=message.counts[rows],
        removed=removed,
        **fields,
    )


_PLAIN = ("schema", "epoch", "version", "base", "classes", "samples", "age_s", "part", "parts", "summary")


# ---- prototypes -----------------------------------------------------------------------------------------------------


def _prototypes_body(message: Prototypes) -> list[Any]:
    message = in_id_order(message)
    packed = message.vectors
    k, d = packed.codes.shape
    scheme = SCHEMES.index(packed.scheme)
    _check_sizes(k, message.removed.size, d, DEFAULT_LIMITS)
    if message.base == SNAPSHOT and message.removed.size:
        refuse("bad_value", "a snapshot removes nothing")
    if scheme != _INT8:
        _check_finite(packed.codes, "a vector")
    scales = b""
    if scheme == _INT8 and (k or message.summary.size):
        table = np.concatenate((packed.scale, packed.offset), dtype=columns.F32)
        _check_scales(table, d)
        scales = table.tobytes()
    _check_finite(message.summary, "the summary")
    return [
        whole(int(message.schema), MOST_SCHEMA, "schema"),
        whole(int(message.epoch), MOST_EPOCH, "epoch"),
        whole(int(message.version), MOST_VERSION, "version"),
        0 if message.base == SNAPSHOT else int(message.version - message.base),
        int(message.part),
        whole(int(message.parts), DEFAULT_LIMITS.max_parts, "parts"),
        whole(int(message.samples), MOST_SAMPLES, "samples"),
        seconds(float(message.age_s), "age_s"),
        scheme,
        d,
        _class_text(message.classes),
        columns.pack_ids(message.ids),
        columns.pack_labels(message.labels, len(message.classes)),
        columns.pack_counts(message.counts),
        packed.codes.astype(_CODE[scheme], copy=False).tobytes(),
        scales,
        message.summary.astype(columns.F16, copy=False).tobytes(),
        columns.pack_ids(message.removed),
    ]


def _prototypes(body: list[Any], limits: Limits) -> Prototypes:
    schema, epoch, version, span, part, parts, samples, age_s, scheme, d, names, *bins = body
    for data in bins:
        if type(data) is not bytes:
            refuse("malformed", "an array is not a bin")
    ids, labels, counts, codes, scales, summary, removed = bins
    whole(schema, MOST_SCHEMA, "schema")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version")
    whole(span, version, "span")
    whole(parts, MOST_SAMPLES, "parts", least=1)
    if parts > limits.max_parts:
        refuse("limits", f"{parts} parts, limit is {limits.max_parts}")
    whole(part, parts - 1, "part")
    whole(samples, MOST_SAMPLES, "samples")
    age_s = seconds(age_s, "age_s")
    whole(scheme, len(SCHEMES) - 1, "scheme")
    whole(d, MOST_SAMPLES, "dimension")
    k = columns.count_ids(ids, "ids")
    _check_sizes(k, columns.count_ids(removed, "removed"), d, limits)
    classes = _classes(names, limits)
    if span == 0 and removed:
        refuse("bad_value", "a snapshot removes nothing")
    return Prototypes(
        schema=schema,
        epoch=epoch,
        version=version,
        base=version - span if span else SNAPSHOT,
        classes=classes,
        ids=columns.unpack_ids(ids, "ids"),
        vectors=_vectors(scheme, k, d, codes, scales, bool(k or summary)),
        labels=columns.unpack_labels(labels, k),
        counts=columns.unpack_counts(counts, k),
        removed=columns.unpack_ids(removed, "removed"),
        samples=samples,
        age_s=age_s,
        part=part,
        parts=parts,
        summary=columns.unpack_summary(summary, len(classes), d),
    )


def _vectors(scheme: int, k: int, d: int, codes: bytes, scales: bytes, scaled: bool) -> Packed:
    """scaled: something in the message is in units of scale and offset, so int8 vectors must come with them."""
    dtype = _CODE[scheme]
    if len(codes) != k * d * dtype.itemsize:
        refuse("bad_shape", f"{len(codes)} bytes for {k} vectors of {d} {SCHEMES[scheme]}")
    values = columns.read(codes, dtype).reshape(k, d)
    if scheme == _INT8 and scaled:
        if len(scales) != 8 * d:
            refuse("bad_shape", f"{len(scales)} bytes for scale and offset of {d} features")
        table: Any = columns.read(scales, columns.F32)
        _check_scales(table, d)
        return Packed("int8", values, table[:d], table[d:])
    if scales:
        refuse("bad_shape", "scale and offset belong to int8 vectors alone")
    if scheme != _INT8:
        _check_finite(values, "a vector")
    return Packed(SCHEMES[scheme], values, np.ones(d, np.float32), np.zeros(d, np.float32))


def _check_sizes(k: int, r: int, d: int, limits: Limits) -> None:
    if k > limits.max_prototypes or r > limits.max_prototypes:
        refuse("limits", f"{k} prototypes and {r} removed, limit is {limits.max_prototypes}")
    if d > limits.max_dimensions:
        refuse("limits", f"{d} dimensions, limit is {limits.max_dimensions}")
    if k and not d:
        refuse("bad_shape", "prototypes without dimensions")


def _check_finite(values: NDArray[np.generic], name: str) -> None:
    if values.size and np.count_nonzero(np.isfinite(values)) < values.size:
        refuse("non_finite", f"{name} is not finite")


def _check_scales(table: Array, d: int) -> None:
    """Scale and offset, one after the other in `table` (2 d,): finite, as is offset + scale * code for any code."""
    sizes = np.abs(table)
    if np.count_nonzero(sizes <= _SAFE) == sizes.size:  # false for NaN
        return
    if not (128.0 * sizes[:d].astype(np.float64) + sizes[d:] <= MOST_FLOAT32).all():
        refuse("non_finite", "scale and offset give values that are not finite")


# ---- class names ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _class_text(classes: tuple[str, ...]) -> str:
    """Class names as one text, a line each. Cached: a node sends the same few tuples again and again."""
    text = "\n".join(classes)
    if _classes(text, DEFAULT_LIMITS) != classes:
        refuse("bad_name", "a class name is empty or has more than one line")
    return text


def _classes(text: Any, limits: Limits) -> tuple[str, ...]:
    """Class names, one a line. Raises WireError: malformed, limits or bad_name."""
    if type(text) is not str:
        refuse("malformed", "the class names are not text")
    return _names(text, limits.max_classes, limits.max_name_bytes)


@lru_cache(maxsize=64)
def _names(text: str, most: int, limit_bytes: int) -> tuple[str, ...]:
    """Cached: a peer sends the same few texts again and again."""
    names = tuple(text.split("\n")) if text else ()
    if len(names) > most:
        refuse("limits", f"{len(names)} classes, limit is {most}")
    for name in names:
        fault = name_fault(name, limit_bytes)
        if fault:
            refuse("bad_name", fault)
    if len(set(names)) != len(names):
        refuse("bad_name", "a class name comes twice")
    return names


# ---- digest and pull ------------------------------------------------------------------------------------------------


def _digest_body(message: Digest) -> list[Any]:
    body = [message.schema, message.epoch, message.version, message.size, message.samples]
    return _checked_digest([*map(int, body), float(message.age_s)])


def _checked_digest(body: list[Any]) -> list[Any]:
    schema, epoch, version, size, samples, age_s = body
    whole(schema, MOST_SCHEMA, "schema")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version")
    whole(size, MOST_SAMPLES, "size")
    whole(samples, MOST_SAMPLES, "samples")
    body[5] = seconds(age_s, "age_s")
    return body


def _digest(body: list[Any], limits: Limits) -> Digest:
    return Digest(*_checked_digest(body))


def _pull_body(message: Pull) -> list[Any]:
    return _checked_pull([int(message.schema), int(message.epoch), int(message.version)])


def _checked_pull(body: list[Any]) -> list[Any]:
    schema, epoch, version = body
    whole(schema, MOST_SCHEMA, "schema")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version", least=SNAPSHOT)
    return body


def _pull(body: list[Any], limits: Limits) -> Pull:
    return Pull(*_checked_pull(body))


_BODIES: dict[type, tuple[int, Callable[[Any], list[Any]]]] = {
    Prototypes: (KIND_PROTOTYPES, _prototypes_body),
    Digest: (KIND_DIGEST, _digest_body),
    Pull: (KIND_PULL, _pull_body),
    Weights: (KIND_WEIGHTS, sharing.weights_body),
    Predictions: (KIND_PREDICTIONS, sharing.predictions_body),
    Bids: (KIND_BIDS, sharing.bids_body),
}
_READERS: dict[int, Callable[[list[Any], Limits], Message]] = {
    KIND_PROTOTYPES: _prototypes,
    KIND_DIGEST: _digest,
    KIND_PULL: _pull,
    KIND_WEIGHTS: sharing.weights,
    KIND_PREDICTIONS: sharing.predictions,
    KIND_BIDS: sharing.bids,
}
