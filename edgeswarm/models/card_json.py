"""A model's card as JSON and back: strict, bounded, one text for one card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from typing import Any

from edgeswarm.models.card import (
    BODY,
    FORMAT,
    HEAD,
    PRIVATE,
    PUBLIC,
    FileEntry,
    InputSpec,
    LossSpec,
    ModelCard,
    Parameter,
    TensorSpec,
)
from edgeswarm.models.json_text import Bad, Reader, canonical, parse, write
from edgeswarm.models.limits import Limits

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of models: they stand in file names, logs and tables."""

LOSS_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Names of losses: they stand in the names of members."""

_HEX = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset({
    "format", "name", "architecture", "parameters", "input", "labels", "embedding", "heads", "losses", "flops",
    "activation_bytes", "licence", "producer", "files", "hash", "normalised",
})  # fmt: skip
_MOST_PARAMETERS, _MOST_LABELS, _MOST_LOSSES, _MOST_INPUTS, _MOST_HEADS = 4096, 10_000, 16, 32, 64
_MOST_AXES, _MOST_COUNT = 8, 2**53


def read_card(data: bytes, limits: Limits | None = None) -> ModelCard:
    """The card in the text of model.json, every value checked; its hash is checked too.

    Raises Bad, one line without the file's name: another format, not JSON, a key missing or unknown, a value of the
    wrong type or out of range, more parameters than the limits allow, a hash that does not hold.
    """
    limits = limits or Limits()
    value = parse(data, limits.card_bytes)
    form = value.get("format") if type(value) is dict else None
    if type(form) is not int:
        raise Bad("it is no model card: it has no format number")
    if form != FORMAT:
        remedy = "update edgeswarm or build the model again"
        raise Bad(f"model file of format {form}; this edgeswarm reads {FORMAT}: {remedy}", complete=True)
    top = Reader.of(value, "", _KEYS)
    card = ModelCard(
        name=top.text("name", 64),
        architecture=top.text("architecture", 200),
        parameters=tuple(
            Parameter(
                entry.text("name", 200),
                entry.shape("shape", _MOST_AXES, limits.dimension, 1),
                entry.one_of("part", (BODY, HEAD)),
            )
            for entry in top.entries("parameters", {"name", "shape", "part"}, _MOST_PARAMETERS)
        ),
        input=_input(Reader.of(value["input"], "input", {"shape", "kind", "units"}), limits),
        labels=top.texts("labels", _MOST_LABELS, 200),
        embedding=top.integer("embedding", 1, limits.dimension),
        heads=top.integer("heads", 0, _MOST_HEADS),
        losses={name: _loss(entry, f"losses.{name}", limits) for name, entry in _losses(top).items()},
        flops=top.integer("flops", 0, _MOST_COUNT),
        activation_bytes=top.integer("activation_bytes", 0, _MOST_COUNT),
        licence=top.text("licence", 100),
        producer=_producer(value["producer"]),
        files=_files(top, limits),
        hash=top.text("hash", 64, 0),
        normalised=top.truth("normalised"),
    )
    check_card(card, limits)
    if (found := hash_of(card)) != card.hash:
        raise Bad(f"its hash is {card.hash[:12]}..., its content gives {found[:12]}...: it was changed or is damaged")
    return card


def write_card(card: ModelCard) -> bytes:
    """The text of model.json. The same card gives the same bytes, whatever order its tables were made in."""
    return write(_plain(card))


def hash_of(card: ModelCard) -> str:
    """sha256, in hexadecimal, over the canonical JSON of the card without its own "hash"."""
    plain = _plain(card)
    del plain["hash"]
    return sha256(canonical(plain)).hexdigest()


def check_card(card: ModelCard, limits: Limits) -> None:
    """What types and ranges alone do not say. Raises Bad."""
    if not NAME.fullmatch(card.name):
        raise Bad(f"the name {card.name!r:.80} must be letters, digits and . _ - only, at most 64")
    names = [parameter.name for parameter in card.parameters]
    if len(set(names)) < len(names):
        raise Bad("two parameters have one name")
    sides = [parameter.part for parameter in card.parameters]
    if sides != sorted(sides):  # "body" < "head"
        raise Bad("a parameter of the body comes after one of a head; the body is first in the vector")
    if card.size > limits.parameters:
        raise Bad(f"the model has {card.size} parameters; the profile allows {limits.parameters} (max_params): "
                  "choose a smaller model, or raise the limit if the board has the memory", complete=True)  # fmt: skip
    if card.input.kind == "image" and len(card.input.shape) != 3:
        raise Bad(f"an image has the shape [channels, rows, columns], not {list(card.input.shape)}")
    if prod(card.input.shape) > limits.dimension:
        raise Bad(f"one sample has {prod(card.input.shape)} numbers, which is too many")
    if card.heads and not card.labels:
        raise Bad("heads need labels, and there are none")
    if card.losses and not card.parameters:
        raise Bad("losses need parameters to train, and there are none")
    for name, loss in card.losses.items():
        inputs = [spec.name for spec in loss.inputs]
        if len(set(inputs)) < len(inputs) or "params" in inputs or not inputs:
            raise Bad(f"losses.{name}: inputs must have different names, and none the name params")
        if {"loss", "gradient"} & set(loss.outputs):
            raise Bad(f"losses.{name}: loss and gradient are outputs anyway, and not listed")
        if any(spec.weight and spec.dtype != "float32" for spec in loss.inputs):
            raise Bad(f"losses.{name}: a weight is float32")


def _input(reader: Reader, limits: Limits) -> InputSpec:
    return InputSpec(
        reader.shape("shape", _MOST_AXES, limits.dimension, 1),
        reader.one_of("kind", ("image", "vector")),
        reader.text("units", 200, 0),
    )


def _losses(top: Reader) -> dict[str, Any]:
    losses = top.table("losses", _MOST_LOSSES)
    for name in losses:
        if not LOSS_NAME.fullmatch(name) or name == "forward":
            raise Bad(f"the loss {name!r:.80} must be named in small letters, digits and _, and not forward")
    return losses


def _loss(value: Any, path: str, limits: Limits) -> LossSpec:
    reader = Reader.of(value, path, {"inputs", "outputs"})
    keys = {"name", "shape", "dtype", "group", "weight"}
    return LossSpec(
        tuple(
            TensorSpec(
                entry.text("name", 200),
                entry.shape("shape", _MOST_AXES, limits.dimension, 1),
                entry.one_of("dtype", ("float32", "int64")),
                entry.one_of("group", (PRIVATE, PUBLIC)),
                entry.truth("weight"),
            )
            for entry in reader.entries("inputs", keys, _MOST_INPUTS)
        ),
        reader.texts("outputs", _MOST_INPUTS, 200),
    )


def _producer(value: Any) -> Mapping[str, str]:
    top = Reader({"producer": value}, "")
    table = top.table("producer", _MOST_INPUTS)
    reader = Reader(table, "producer")
    if not all(0 < len(key) <= 64 and key.isprintable() for key in table):
        raise Bad("producer: a key must be a text of 1 to 64 printable characters")
    return {key: reader.text(key, 200, 0) for key in table}


def _files(top: Reader, limits: Limits) -> Mapping[str, FileEntry]:
    entries = {}
    for name, value in top.table("files", limits.members).items():
        path = f"files[{name!r:.80}]"
        entry = Reader.of(value, path, {"sha256", "size_bytes"})
        digest = entry.text("sha256", 64)
        if not _HEX.fullmatch(digest):
            raise Bad(f"{path}.sha256 must be 64 hexadecimal digits")
        entries[name] = FileEntry(digest, entry.integer("size_bytes", 0, _MOST_COUNT))
    return entries


def _plain(card: ModelCard) -> dict[str, Any]:
    """The card as JSON values."""
    return {
        "format": FORMAT,
        "name": card.name,
        "architecture": card.architecture,
        "parameters": [{"name": p.name, "shape": list(p.shape), "part": p.part} for p in card.parameters],
        "input": {"shape": list(card.input.shape), "kind": card.input.kind, "units": card.input.units},
        "labels": list(card.labels),
        "embedding": card.embedding,
        "heads": card.heads,
        "losses": {
            name: {
                "inputs": [
                    {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "group": t.group, "weight": t.weight}
                    for t in loss.inputs
                ],
                "outputs": list(loss.outputs),
            }
            for name, loss in card.losses.items()
        },
        "flops": card.flops,
        "activation_bytes": card.activation_bytes,
        "licence": card.licence,
        "producer": dict(card.producer),
        "files": {name: {"sha256": f.sha256, "size_bytes": f.size_bytes} for name, f in card.files.items()},
        "hash": card.hash,
        "normalised": card.normalised,
    }
