"""Tensors, attributes and typed values of an ONNX file, to and from plain NumPy, without the onnx package.

Field numbers are those of onnx.proto, IR version 9 (onnx 1.14 to 1.23). Whatever could mean something else to
another reader is refused: a field that is unknown, a single field given twice, a tensor with two kinds of data.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.models.limits import Limits
from edgeswarm.models.protobuf import Budget, Field, Malformed, fields, write_bytes, write_integer

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
}  # fmt: skip
"""TensorProto.DataType to NumPy's names; the others are refused."""

_CODES = {name: code for code, name in DTYPES.items()}
_MOST_AXES = 16

_TYPED = {"float32": 4, "uint8": 5, "int8": 5, "int32": 5, "bool": 5, "float16": 5, "int64": 7, "float64": 10}
"""TensorProto's field of typed data by dtype; raw_data (9) may stand in for each."""

_PLAIN_ATTRIBUTES = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}
"""AttributeProto.AttributeType to the field that holds the value: FLOAT, INT, STRING, TENSOR, FLOATS, INTS, STRINGS."""

_ATTRIBUTE_FIELDS = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 21, 22, 23})


def shown(text: str) -> str:
    """A name from a file, fit for one line of a message: quoted, control characters escaped, at most 80 characters."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def parts(
    data: memoryview, budget: Budget, what: str, single: Collection[int], many: Collection[int] = (),
    ignored: Collection[int] = (),
) -> dict[int, list[Field]]:  # fmt: skip
    """The fields of one message by number.

    what: the message, for errors.  single: fields that may be there once, many: any number of times, ignored: read
    past. Raises Malformed for another field, and for a single one given twice.
    """
    found: dict[int, list[Field]] = {}
    for field in fields(data, budget):
        if field.number in many:
            found.setdefault(field.number, []).append(field)
        elif field.number in single:
            if field.number in found:
                raise Malformed(f"{what} has its field {field.number} twice")
            found[field.number] = [field]
        elif field.number not in ignored:
            raise Malformed(f"{what} has a part that is not read here (field {field.number})")
    return found


def text(found: dict[int, list[Field]], number: int, limits: Limits) -> str:
    """The string field `number`, "" where it is absent."""
    return found[number][0].text(limits.text_bytes) if number in found else ""


def integer(found: dict[int, list[Field]], number: int, default: int = 0) -> int:
    """The integer field `number`, `default` where it is absent."""
    return found[number][0].signed() if number in found else default


def read_tensor(data: memoryview, budget: Budget, limits: Limits) -> tuple[str, NDArray[Any]]:
    """TensorProto: (name, array), the array read-only, aligned and in this machine's byte order.

    Raises Malformed: external data, a dtype that is not in `DTYPES`, an axis that is negative or longer than the
    limit, data that does not fit the shape, NaN.
    """
    found = parts(data, budget, "a tensor", {2, 8, 9, 12, 14}, {1, 4, 5, 7, 10, 13}, {16})
    name = text(found, 8, limits)
    place = f"tensor {shown(name)}"
    if 13 in found or integer(found, 14) != 0:
        raise Malformed(f"{place} has its data in another file, which is never followed")
    dtype = DTYPES.get(integer(found, 2))
    if dtype is None:
        raise Malformed(f"{place} has data type {integer(found, 2)}; only {', '.join(DTYPES.values())} are read")
    shape = tuple(length for field in found.get(1, []) for length in field.integers(budget))
    if len(shape) > _MOST_AXES:
        raise Malformed(f"{place} has {len(shape)} axes; at most {_MOST_AXES} are allowed")
    if any(not 0 <= length <= limits.dimension for length in shape):
        raise Malformed(f"{place} has the shape {list(shape)}; an axis goes from 0 to {limits.dimension}")
    if prod(max(length, 1) for length in shape) > limits.dimension:
        raise Malformed(f"{place} has the shape {list(shape)}, which is too large")
    typed, stored = _TYPED[dtype], np.dtype(dtype).newbyteorder("<")
    if found.keys() & {4, 5, 7, 10} - {typed} or (9 in found and typed in found):
        raise Malformed(f"{place} has data of two kinds, or of another kind than its type {dtype}")
    if 9 in found:
        raw = found[9][0].run()
        _fits(place, shape, len(raw), prod(shape) * stored.itemsize, "bytes")
        if dtype == "bool" and any(value > 1 for value in raw):
            raise Malformed(f"{place} has a truth value that is neither 0 nor 1")
        array = np.frombuffer(raw, stored).astype(dtype)
    elif typed in (4, 10):
        runs = [field.fixed(stored.itemsize) for field in found.get(typed, [])]
        _fits(place, shape, sum(map(len, runs)), prod(shape) * stored.itemsize, "bytes")
        array = np.frombuffer(b"".join(runs), stored).astype(dtype)
    else:
        numbers = [number for field in found.get(typed, []) for number in field.integers(budget)]
        _fits(place, shape, len(numbers), prod(shape), "numbers")
        array = _narrowed(place, numbers, dtype)
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        raise Malformed(f"{place} holds values that are not numbers (NaN)")
    array = array.reshape(shape)
    array.setflags(write=False)
    return name, array


def _fits(place: str, shape: tuple[int, ...], count: int, wanted: int, unit: str) -> None:
    if count != wanted:
        raise Malformed(f"{place} of shape {list(shape)} needs {wanted} {unit} of data and has {count}")


def _narrowed(place: str, numbers: list[int], dtype: str) -> NDArray[Any]:
    """Varints as the array they stand for; float16 comes as its 16 bits (onnx.proto, int32_data)."""
    carrier = np.dtype("uint16" if dtype == "float16" else dtype)
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(carrier).min, np.iinfo(carrier).max)
    if any(not low <= number <= high for number in numbers):
        raise Malformed(f"{place} has a number outside the range of {dtype}")
    array = np.array(numbers, carrier)
    return array.view(np.float16) if dtype == "float16" else array


def write_tensor(name: str, array: NDArray[Any]) -> bytes:
    """TensorProto with raw_data, of an array whose dtype is in `DTYPES`. Raises KeyError for another dtype."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return b"".join(
        (
            *(write_integer(1, length) for length in array.shape),
            write_integer(2, _CODES[array.dtype.name]),
            write_bytes(8, name.encode()),
            write_bytes(9, little.tobytes()),
        )
    )


def read_attribute(data: memoryview, budget: Budget, limits: Limits) -> tuple[str, Any]:
    """AttributeProto: (name, value); a float, an int, a str, an array, or a tuple of floats, ints or strs.

    Raises Malformed: a subgraph, a sparse tensor, a reference to a function's attribute, a value of another kind than
    its type says.
    """
    found = parts(data, budget, "an attribute", {1, 2, 3, 4, 5, 6, 13, 14, 20, 21, 22}, {7, 8, 9, 10, 11, 15, 23})
    name, kind = text(found, 1, limits), integer(found, 20)
    place = f"attribute {shown(name)}"
    if not name:
        raise Malformed("an attribute has no name")
    if found.keys() & {6, 11} or kind in (5, 10):
        raise Malformed(f"{place} is a graph of its own; loops and branches are not run here")
    if found.keys() & {22, 23} or kind in (11, 12):
        raise Malformed(f"{place} is a sparse tensor, which is not read here")
    at = _PLAIN_ATTRIBUTES.get(kind)
    if at is None or found.keys() & _ATTRIBUTE_FIELDS - {at}:
        raise Malformed(f"{place} of type {kind} has a value that is not read here")
    values = found.get(at, [])
    if kind == 4:
        if not values:
            raise Malformed(f"{place} has no tensor")
        return name, read_tensor(values[0].run(), budget, limits)[1]
    if kind == 1:
        return name, values[0].float32() if values else 0.0
    if kind == 2:
        return name, values[0].signed() if values else 0
    if kind == 3:
        return name, values[0].text(limits.text_bytes) if values else ""
    if kind == 6:
        runs = b"".join(field.fixed(4) for field in values)
        budget.spend(len(runs) // 4)
        return name, tuple(np.frombuffer(runs, "<f4").tolist())
    if kind == 7:
        return name, tuple(number for field in values for number in field.integers(budget))
    return name, tuple(field.text(limits.text_bytes) for field in values)


def read_value(data: memoryview, budget: Budget, limits: Limits) -> tuple[str, str, tuple[int | str, ...]]:
    """ValueInfoProto of a tensor: (name, dtype, shape); an axis of unknown length is its name, "?" without one.

    Raises Malformed: no name, no dtype, no shape, another kind than a dense tensor.
    """
    found = parts(data, budget, "a value", {1, 2, 3}, (), {4})
    name = text(found, 1, limits)
    place = f"value {shown(name)}"
    if not name or 2 not in found:
        raise Malformed(f"{place} of the graph has no name or no type")
    kind = parts(found[2][0].run(), budget, place, {1, 4, 5, 7, 8, 9}, (), {6})
    if kind.keys() != {1}:
        raise Malformed(f"{place} is no dense tensor")
    tensor = parts(kind[1][0].run(), budget, place, {1, 2})
    dtype = DTYPES.get(integer(tensor, 1))
    if dtype is None or 2 not in tensor:
        raise Malformed(f"{place} has no shape, or data type {integer(tensor, 1)}, which is not read here")
    shape: list[int | str] = []
    for axis in parts(tensor[2][0].run(), budget, place, (), {1}).get(1, []):
        length = parts(axis.run(), budget, place, {1, 2}, (), {3})
        if length.keys() == {1}:
            shape.append(integer(length, 1))
            if not 0 <= integer(length, 1) <= limits.dimension:
                raise Malformed(f"{place} has an axis of {integer(length, 1)}; it goes from 0 to {limits.dimension}")
        elif 1 in length:
            raise Malformed(f"{place} has an axis with both a length and a name")
        else:
            shape.append(text(length, 2, limits) or "?")
    if len(shape) > _MOST_AXES:
        raise Malformed(f"{place} has {len(shape)} axes; at most {_MOST_AXES} are allowed")
    return name, dtype, tuple(shape)
