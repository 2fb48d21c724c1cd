"""Samples to be named, read as a stream: CSV with a header, or one JSON object or list a line (as sensors send them).

The columns are found by name, in any order; columns nobody asked for are passed over. A row that cannot be used (an
empty cell, not a number) still gets its line in the output, so that output and input stay side by side.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.sources.payloads import Reading, Refused, parse
from edgeswarm.errors import DataError
from edgeswarm.messages import Array

LINE_LIMIT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sample. line: where it stood.  x: (d,) float32, None if unusable, and then `fault` says why."""

    line: int
    x: Array | None
    label: str | None = None
    fault: str = ""


def read_rows(lines: Iterable[str], features: tuple[str, ...], label: str, name: str) -> Iterator[Row]:
    """The samples in `lines`. label: column or key of the true class, empty for none.  name: of the file, for errors.

    Raises DataError: a feature's column or the label's is missing, a JSON line that is no sample, not CSV.
    """
    numbered = enumerate(lines, start=1)
    first = next(((number, line) for number, line in numbered if line.strip()), None)
    if first is None:
        return
    number, line = first
    if line.lstrip("\ufeff \t")[:1] in ("{", "["):
        yield _json_row(line, number, features, label, name)
        for number, line in numbered:
            if line.strip():
                yield _json_row(line, number, features, label, name)
    else:
        yield from _csv_rows(line.lstrip("\ufeff"), (text for _, text in numbered), number, features, label, name)


# ---- CSV ------------------------------------------------------------------------------------------------------------


def _csv_rows(
    head: str, rest: Iterable[str], start: int, features: tuple[str, ...], label: str, name: str
) -> Iterator[Row]:
    delimiter = next((mark for mark in (",", ";", "\t") if mark in head), ",")
    try:
        header = [column.strip() for column in next(csv.reader([head], delimiter=delimiter))]
    except csv.Error as error:  # a zero byte, up to Python 3.10
        raise DataError(f"{name}:{start}: not CSV: {error}") from None
    places = [_place(feature, header, "a feature", name, start) for feature in features]
    label_at = _place(label, header, "the label", name, start) if label else None
    reader = csv.reader(rest, delimiter=delimiter)
    try:
        for cells in reader:
            if cells:
                yield _csv_row(cells, start + reader.line_num, places, label_at, len(header), name)
    except csv.Error as error:
        raise DataError(f"{name}:{start + reader.line_num}: not CSV: {error}") from None


def _place(column: str, header: list[str], role: str, name: str, line: int) -> int:
    if column not in header:
        raise DataError(f"{name}:{line}: no column {column!r} for {role}{did_you_mean(column, header)}")
    return header.index(column)


def _csv_row(cells: list[str], line: int, places: list[int], label_at: int | None, width: int, name: str) -> Row:
    if len(cells) != width:
        raise DataError(f"{name}:{line}: {len(cells)} columns where the header has {width}")
    label = (cells[label_at].strip() or None) if label_at is not None else None
    values = []
    for place in places:
        cell = cells[place].strip()
        try:
            values.append(float(cell))
        except ValueError:
            return Row(line, None, label, f"{cell[:40]!r} is not a number" if cell else "a value is missing")
    return _checked(line, values, label)


# ---- JSON lines -----------------------------------------------------------------------------------------------------


def _json_row(text: str, line: int, features: tuple[str, ...], label: str, name: str) -> Row:
    try:
        reading = _reading(text, label)
    except Refused as error:
        if error.reason in ("missing_value", "not_a_number", "bad_label"):
            return Row(line, None, None, error.reason.replace("_", " "))
        why = error.reason.replace("_", " ")
        form = 'write a list of numbers, or {"name": number, ...}'
        raise DataError(f"{name}:{line}: not a sample ({why}): {form}") from None
    found = reading.features
    if found is None:
        raise DataError(f"{name}:{line}: holds no features")
    if isinstance(found, list):
        if len(found) != len(features):
            raise DataError(f"{name}:{line}: {len(found)} numbers where this node learnt from {len(features)}")
        return _checked(line, found, reading.label)
    missing = next((feature for feature in features if feature not in found), None)
    if missing is not None:
        raise DataError(f"{name}:{line}: no feature {missing!r}{did_you_mean(missing, found)}")
    return _checked(line, [found[feature] for feature in features], reading.label)


def _reading(text: str, label: str) -> Reading:
    """A line in the sensors' form, or a plain object of names and numbers."""
    import json

    data = text.strip().lstrip("\ufeff")
    if data.startswith("{"):
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            raise Refused("bad_json") from None
        if isinstance(tree, dict) and "features" not in tree:
            true_label = tree.pop(label, None) if label else None
            numbers = {key: value for key, value in tree.items() if not isinstance(value, str)}
            data = json.dumps({"features": numbers, "label": true_label})
            label = "label"
    return parse(data.encode(), "json", LINE_LIMIT_BYTES, label_key=label or "label")


def _checked(line: int, values: list[float], label: str | None) -> Row:
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that
        x = np.asarray(values, np.float32)
    return Row(line, x, label) if np.isfinite(x).all() else Row(line, None, label, "a value is not finite")
