"""A strict, bounded reader of the protobuf wire format, and the little that is needed to write it.

Only what ONNX files use: varints, 4 and 8 byte fields, and length-delimited ones; groups are refused. A field is a
tag (its number and wire type), then its value; see the Protocol Buffers documentation, "Encoding". Nothing is copied
before it is asked for, no length is believed before it is checked, and a budget bounds the number of fields, so that
the time and memory taken are bounded by the caller and not by the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of the format; 3 and 4 (groups) are refused."""

_MOST_FIELD = 2**29 - 1
_WORDS = {VARINT: "a varint", FIXED64: "8 bytes", BYTES: "a run of bytes", FIXED32: "4 bytes"}


class Malformed(ValueError):
    """The bytes are not what the format allows. The text is one line without a final stop."""


@dataclass(slots=True)
class Budget:
    """Fields and numbers that may still be read. `spend` raises Malformed when there are none left."""

    left: int

    def spend(self, count: int = 1) -> None:
        """Use `count` of them up."""
        self.left -= count
        if self.left < 0:
            raise Malformed("it has too many parts")


@dataclass(slots=True)  # frozen would take longer to make than to read
class Field:
    """One field. value: an int for VARINT (unsigned, 64 bits), otherwise the bytes.

    start, end: where tag and value lie in the message.
    """

    number: int
    wire: int
    value: int | memoryview
    start: int
    end: int

    def unsigned(self) -> int:
        """The value of a varint field, 0 to 2**64 - 1. Raises Malformed for another wire type."""
        if not isinstance(self.value, int):
            raise Malformed(f"field {self.number} is {_WORDS[self.wire]} where a varint belongs")
        return self.value

    def signed(self) -> int:
        """The value of an int32 or int64 field (two's complement in 64 bits)."""
        return _signed(self.unsigned())

    def run(self) -> memoryview:
        """The value of a length-delimited field. Raises Malformed for another wire type."""
        if not isinstance(self.value, memoryview) or self.wire != BYTES:
            raise Malformed(f"field {self.number} is {_WORDS[self.wire]} where a run of bytes belongs")
        return self.value

    def text(self, most_bytes: int) -> str:
        """The value of a string field, valid UTF-8 of at most `most_bytes`."""
        data = self.run()
        if len(data) > most_bytes:
            raise Malformed(f"a text of {len(data)} bytes in field {self.number}; at most {most_bytes} are allowed")
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"field {self.number} is not UTF-8 text") from None

    def float32(self) -> float:
        """The value of a float field."""
        if not isinstance(self.value, memoryview) or self.wire != FIXED32:
            raise Malformed(f"field {self.number} is {_WORDS[self.wire]} where 4 bytes belong")
        return float(struct.unpack("<f", self.value)[0])

    def integers(self, budget: Budget) -> list[int]:
        """Numbers of a repeated int32 or int64 field: one, or many packed into a run of bytes."""
        if self.wire == VARINT:
            return [self.signed()]
        data, at, numbers = self.run(), 0, []
        while at < len(data):
            budget.spend()
            number, at = _varint(data, at)
            numbers.append(_signed(number))
        return numbers

    def fixed(self, width: int) -> memoryview:
        """Bytes of a repeated float (width 4) or double (width 8) field: one number, or many packed."""
        if isinstance(self.value, int) or self.wire not in (BYTES, FIXED32 if width == 4 else FIXED64):
            raise Malformed(f"field {self.number} is {_WORDS[self.wire]} where numbers of {width} bytes belong")
        if len(self.value) % width:
            raise Malformed(f"field {self.number} has {len(self.value)} bytes, no whole count of {width}-byte numbers")
        return self.value


def fields(data: memoryview, budget: Budget) -> Iterator[Field]:
    """The fields of a message in their order.

    Raises Malformed: a field runs past the end, an unknown wire type, a field number out of range, budget used up.
    """
    at = 0
    while at < len(data):
        budget.spend()
        start = at
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MOST_FIELD:
            raise Malformed(f"field number {number} does not exist")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield Field(number, wire, value, start, at)
            continue
        if wire == BYTES:
            length, at = _varint(data, at)
        elif wire == FIXED32:
            length = 4
        elif wire == FIXED64:
            length = 8
        else:
            raise Malformed(f"field {number} has wire type {wire}, which is not read here")
        if length > len(data) - at:
            raise Malformed(f"cut short: field {number} says {length} bytes, {len(data) - at} are left")
        at += length
        yield Field(number, wire, data[at - length : at], start, at)


def write_varint(number: int) -> bytes:
    """A varint of a number from 0 to 2**64 - 1."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_integer(number: int, value: int) -> bytes:
    """A varint field `number`; negative values as 64 bits in two's complement."""
    return write_varint(number << 3 | VARINT) + write_varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def write_bytes(number: int, *parts: bytes | memoryview) -> bytes:
    """A length-delimited field `number` holding the parts one after another."""
    return b"".join((write_varint(number << 3 | BYTES), write_varint(sum(map(len, parts))), *parts))


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(number, where the next byte is). At most 10 bytes and 64 bits."""
    if at < len(data) and (first := data[at]) < 0x80:  # nearly all of them
        return first, at + 1
    number = shift = 0
    for byte in data[at : at + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if number >> 64:
                raise Malformed("a number of more than 64 bits")
            return number, at + shift // 7
    raise Malformed("cut short inside a number" if shift < 70 else "a number of more than 10 bytes")


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
