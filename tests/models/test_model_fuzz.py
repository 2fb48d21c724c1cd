"""Any bytes at all give a model or one line: never another exception, never much more memory than they have."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeswarm.errors import ModelError
from edgeswarm.models.content import CARD, pack
from edgeswarm.models.file import read, write
from edgeswarm.models.graph import Graph, bake, read_graph
from edgeswarm.models.limits import Limits
from edgeswarm.models.protobuf import write_bytes
from tests.models.file_world import folder_of, resealed, same, with_reference

MODEL = with_reference()
MEMBERS = pack(MODEL)
GRAPH = MODEL.graphs["ce.gradient"]
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def archive(place: Path) -> bytes:
    write(MODEL, place / "whole.esm")
    return (place / "whole.esm").read_bytes()


def damaged(data: bytes, flips: list[tuple[float, int]], cut: float) -> bytes:
    out = bytearray(data[: max(1, round(len(data) * cut))])
    for at, value in flips:
        out[min(len(out) - 1, int(at * len(out)))] ^= value
    return bytes(out)


def graph_or_line(data: bytes) -> Graph | None:
    try:
        return read_graph(data)
    except ModelError as error:
        assert "\n" not in str(error)
        return None


def model_or_line(path: Path) -> None:
    try:
        assert same(read(path), MODEL)
    except ModelError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4)
CUTS = st.one_of(st.just(1.0), st.floats(0, 1))


@MANY
@given(st.binary(max_size=400))
def test_any_bytes_as_a_graph(data: bytes) -> None:
    graph_or_line(data)
    graph_or_line(write_bytes(7, data) + GRAPH[-8:])


@MANY
@given(FLIPS, CUTS)
def test_a_damaged_graph(flips: list[tuple[float, int]], cut: float) -> None:
    data = damaged(GRAPH, flips, cut)
    graph_or_line(data)
    try:
        graph_or_line(bake(data, MODEL.initial))
    except ModelError as error:
        assert "\n" not in str(error)


def test_every_flipped_bit_of_the_first_graph() -> None:
    data = MODEL.graphs["forward"]
    for at in range(len(data)):
        graph_or_line(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])


@MANY
@given(st.binary(max_size=400))
def test_any_bytes_as_an_archive(place: Path, data: bytes) -> None:
    path = place / "any.esm"
    for start in (b"", b"PK\x03\x04"):
        path.write_bytes(start + data)
        model_or_line(path)
    path.write_bytes(b"PK\x03\x04" + data + b"PK\x05\x06\0\0\0\0\x01\0\x01\0" + data[:8].ljust(8, b"\0") + b"\0\0")
    model_or_line(path)


@MANY
@given(FLIPS, CUTS)
def test_a_damaged_archive(place: Path, archive: bytes, flips: list[tuple[float, int]], cut: float) -> None:
    path = place / "damaged.esm"
    path.write_bytes(damaged(archive, flips, cut))
    model_or_line(path)


def test_every_flipped_byte_of_the_directory_of_an_archive(place: Path, archive: bytes) -> None:
    path = place / "directory.esm"
    for at in range(archive.index(b"PK\x01\x02"), len(archive)):
        path.write_bytes(archive[:at] + bytes([archive[at] ^ (1 + at % 255)]) + archive[at + 1 :])
        model_or_line(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(MEMBERS)), FLIPS, CUTS)
def test_a_damaged_member_under_right_hashes(
    place: Path, name: str, flips: list[tuple[float, int]], cut: float
) -> None:
    """Somebody who changes a member and mends the hashes gets no further than what each reader lets through."""
    path = place / "member"
    shutil.rmtree(path, ignore_errors=True)
    wrong = {**MEMBERS, name: damaged(MEMBERS[name], flips, cut)}
    folder_of(wrong if name == CARD else resealed(wrong), path)
    try:
        read(path)
    except ModelError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


@pytest.mark.parametrize(
    "data",
    [
        write_bytes(7, b"\x0a\x00" * 500_000),  # empty nodes
        write_bytes(7, write_bytes(5, write_bytes(7, b"\x01" * 1_000_000))),  # a tensor number by number
        write_bytes(7, write_bytes(5, b"\x08\x01" * 500_000)),  # a tensor of many axes
        write_bytes(7, write_bytes(5, b"\x08\xff\xff\xff\xff\x07" * 3 + b"\x10\x01")),  # a huge tensor without data
        write_bytes(7, write_bytes(1, write_bytes(5, write_bytes(8, b"\x01" * 1_000_000)))),
        write_bytes(7, write_bytes(12, b"\x0a\x01a" * 300_000)),
    ],
)
def test_memory_is_bounded(data: bytes) -> None:
    """1 MB that promises much: refused within the number of parts that the limits allow."""
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_graph(data, limits=Limits(fields=20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
