"""The wire format: what is read is what was written, and nothing is believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.models.protobuf import Budget, Malformed, fields, write_bytes, write_integer, write_varint


def read(data: bytes, budget: int = 1000) -> list:
    return list(fields(memoryview(data), Budget(budget)))


@given(st.integers(1, 2**29 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(number: int, value: int) -> None:
    (field,) = read(write_integer(number, value))
    assert (field.number, field.signed()) == (number, value)


@given(st.lists(st.tuples(st.integers(1, 100), st.binary(max_size=300)), max_size=20))
def test_runs_of_bytes_survive_in_order(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(write_bytes(number, part) for number, part in parts)
    found = read(data)
    assert [(field.number, bytes(field.run())) for field in found] == parts
    assert b"".join(data[field.start : field.end] for field in found) == data


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_packed_integers(numbers: list[int]) -> None:
    (field,) = read(write_bytes(8, *(write_varint(n & 2**64 - 1) for n in numbers)))
    assert field.integers(Budget(30)) == numbers


def test_fixed_numbers_alone_and_packed() -> None:
    alone, packed = read(b"\x15" + struct.pack("<f", 1.5) + write_bytes(2, struct.pack("<2f", 2.5, -1)))
    assert alone.float32() == 1.5
    assert struct.unpack("<f", alone.fixed(4)) == (1.5,)
    assert struct.unpack("<2f", packed.fixed(4)) == (2.5, -1)
    (double,) = read(b"\x11" + struct.pack("<d", 0.1))
    assert struct.unpack("<d", double.fixed(8)) == (0.1,)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x80", "cut short inside a number"),
        (b"\x08", "cut short inside a number"),
        (b"\x08" + b"\xff" * 10, "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x0a\x05abcd", "5 bytes, 4 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "are left"),
        (b"\x0dabc", "4 bytes, 3 are left"),
        (b"\x09abc", "8 bytes, 3 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x00", "field number 0"),
    ],
)
def test_malformed(data: bytes, text: str) -> None:
    with pytest.raises(Malformed, match=text):
        read(data)


def test_the_budget_ends() -> None:
    with pytest.raises(Malformed, match="too many"):
        read(b"\x08\x01" * 11, budget=10)
    (field,) = read(write_bytes(1, b"\x01" * 11))
    with pytest.raises(Malformed, match="too many"):
        field.integers(Budget(10))


def test_a_value_of_another_kind_is_refused() -> None:
    number, run = read(write_integer(1, 5) + write_bytes(2, b"\xff\xfe"))
    for wrong in (number.run, number.float32, run.unsigned, lambda: number.fixed(4), lambda: run.fixed(8)):
        with pytest.raises(Malformed):
            wrong()
    with pytest.raises(Malformed, match="UTF-8"):
        run.text(10)
    with pytest.raises(Malformed, match="at most 1"):
        run.text(1)


@given(st.binary(max_size=200))
def test_any_bytes_give_fields_or_one_error(data: bytes) -> None:
    try:
        found = read(data)
    except Malformed:
        return
    assert sum(field.end - field.start for field in found) == len(data)
