"""The conformance set, as any other implementation would use it: from index.json and the files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import WireError
from edgeswarm.messages import Bids, Compressed, Digest, Packed, Predictions, Presence, Prototypes, Pull, Weights
from edgeswarm.wire import chunks, codec, status
from edgeswarm.wire.envelope import REASONS, WIRE_VERSION

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text("utf-8"))
ACCEPTED = [pytest.param(entry, id=entry["file"]) for entry in INDEX["accepted"]]
REFUSED = [pytest.param(entry, id=entry.get("file", "zeros")) for entry in INDEX["refused"]]


def meant(fields: dict[str, Any]) -> Any:
    """The message an entry of the index describes."""
    fields = dict(fields)
    kind = fields.pop("kind")
    if kind == "report":
        return fields
    if kind == "presence":
        return Presence(**fields)
    if kind == "chunk":
        fields["number"] = tuple(fields["number"])
        fields |= {name: bytes.fromhex(fields[name]) for name in ("digest", "data")}
        return chunks.Chunk(**fields)
    fields |= {name: int(fields[name]) for name in fields.keys() & {"schema", "model", "public"}}
    if kind in ("digest", "pull"):
        return {"digest": Digest, "pull": Pull}[kind](**fields)
    if kind == "bids":
        return Bids(**fields | {"floors": np.array(fields["floors"], np.uint8)})
    if kind == "weights":
        values = fields["values"]
        code = {"float32": "f4", "float16": "f2", "int4": "u1", "entropy": "i2"}.get(values["scheme"], "i1")
        types = {"codes": code, "scale": "f2", "places": "u4"}
        arrays = {name: np.array(values[name], dtype) for name, dtype in types.items()}
        return Weights(**fields | {"values": Compressed(**values | arrays)})
    if kind == "predictions":
        return _predictions(fields)
    packed = fields["vectors"]
    scale = np.array(packed["scale"], np.float32)
    codes = np.array(packed["codes"], packed["scheme"]).reshape(len(fields["ids"]), scale.size)
    types = {"ids": "u4", "labels": "u2", "counts": "f4", "removed": "u4"}
    arrays = {name: np.array(fields[name], dtype) for name, dtype in types.items()}
    summary = np.array(fields["summary"], np.float16).reshape(len(fields["summary"]), -1 if fields["summary"] else 0)
    vectors = Packed(packed["scheme"], codes, scale, np.array(packed["offset"], np.float32))
    fields["classes"] = tuple(fields["classes"])
    return Prototypes(**fields | arrays | {"vectors": vectors, "summary": summary})


def _predictions(fields: dict[str, Any]) -> Predictions:
    """Lists as arrays; an empty list has lost its shape."""
    n = len(fields["rows"])
    shape = (n, -1, 2 if fields["encoding"] == "top2" else fields["classes"])
    share = np.float32 if fields["encoding"] == "float32" else np.uint8
    shares = np.array(fields["shares"], share).reshape(shape if n else (0, 1, shape[2]))
    tops = np.array(fields["tops"], np.uint8).reshape(shares.shape if fields["encoding"] == "top2" else (0, 0, 0))
    embedding = np.array(fields["embedding"], np.int8)
    arrays = {
        "rows": np.array(fields["rows"], np.uint32),
        "trust": np.array(fields["trust"], np.uint8),
        "embedding": embedding if embedding.size else np.zeros((0, 0), np.int8),
    }
    return Predictions(**fields | arrays | {"shares": shares, "tops": tops})


def read(message: Any, data: bytes) -> Any:
    """`data` through the reader of its kind."""
    if isinstance(message, chunks.Chunk):
        return chunks.read(data)
    if isinstance(message, Presence):
        return status.decode_presence(message.node, data)
    return status.decode_report(data) if isinstance(message, dict) else codec.decode(data)


def write(message: Any) -> bytes:
    if isinstance(message, chunks.Chunk):
        return chunks.write(message)
    if isinstance(message, Presence):
        return status.encode_presence(message)
    return status.encode_report(message) if isinstance(message, dict) else codec.encode(message)


def test_index_is_of_this_version() -> None:
    assert INDEX["wire_version"] == WIRE_VERSION


@pytest.mark.parametrize("entry", ACCEPTED)
def test_both_ways(entry: dict[str, Any], same: Any) -> None:
    data, message = (GOLDEN / entry["file"]).read_bytes(), meant(entry["message"])
    assert write(message) == data
    assert same(read(message, data), message)


@pytest.mark.parametrize("entry", ACCEPTED)
def test_cut_at_every_length(entry: dict[str, Any]) -> None:
    data, message = (GOLDEN / entry["file"]).read_bytes(), meant(entry["message"])
    for length in range(len(data)):
        with pytest.raises(WireError) as caught:
            read(message, data[:length])
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("entry", ACCEPTED)
def test_every_byte_changed(entry: dict[str, Any]) -> None:
    """Each byte in turn set to values that mean something to msgpack: a message or one WireError."""
    data, message = (GOLDEN / entry["file"]).read_bytes(), meant(entry["message"])
    for place in range(len(data)):
        for value in (0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xC9, 0xCA, 0xCF, 0xD9, 0xDD, 0xDF, 0xFF):
            hurt = data[:place] + bytes((value,)) + data[place + 1 :]
            try:
                read(message, hurt)
            except WireError as error:
                assert error.reason in REASONS


@pytest.mark.parametrize("entry", REFUSED)
def test_refused_with_its_reason(entry: dict[str, Any]) -> None:
    data = bytes(entry["zeros"]) if "zeros" in entry else (GOLDEN / entry["file"]).read_bytes()
    with pytest.raises(WireError) as caught:
        (chunks.read if chunks.is_chunk(data) else codec.decode)(data)
    assert caught.value.reason == entry["reason"]


def test_every_reason_is_reached() -> None:
    assert {entry["reason"] for entry in INDEX["refused"]} == set(REASONS)


def test_a_signature_to_come_is_skipped(same: Any) -> None:
    for entry in INDEX["accepted"]:
        data, message = (GOLDEN / entry["file"]).read_bytes(), meant(entry["message"])
        sealed = b"\x94" + data[1:] + b"\xc5\x01\x00" + bytes(256)
        assert same(read(message, sealed), message)


def test_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "golden"), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
