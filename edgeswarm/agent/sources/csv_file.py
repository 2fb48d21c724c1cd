"""Samples from a CSV file with a header: columns of numbers and one with the label. Read row by row, never whole."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.sources.base import MOST_FEATURES, FileSource, Pace, Sample, Schema, check_width
from edgeswarm.errors import DataError


class CsvSource(FileSource):
    """The file's features are the columns named in `features`, or all but the label's and the id's.

    The delimiter is a comma, or a semicolon or tab when the header holds no comma. Rows with an empty cell, NaN or
    infinity are dropped and counted; an empty label makes an unlabelled sample. Anything else that does not fit the
    header raises DataError with file, line and column, when it is reached; what can be seen from the header and the
    first row, at once.
    """

    def __init__(
        self,
        path: Path,
        task: str,
        label: str = "label",
        features: tuple[str, ...] = (),
        id_column: str = "id",
        classes: tuple[str, ...] = (),
        repeat: bool = False,
        pace: Pace | None = None,
        most: int = MOST_FEATURES,
    ) -> None:
        super().__init__(path, classes, repeat, pace or Pace(0.0))
        self._task = task
        with _reading(path):
            header, first = self._open_header()
        self._columns = self._check_header(header)
        self._label_at = self._column(label, "the label", "label")
        self._id_at = header.index(id_column) if id_column in header and id_column not in features else None
        if features:
            self._features = features
        else:
            apart = (self._label_at, self._id_at)
            self._features = tuple(name for at, name in enumerate(header) if at not in apart)
        if not self._features:
            raise DataError(f"{path}:1: no column is left for features beside the label {label!r}")
        check_width(path, len(self._features), most)
        self._places = [self._column(name, "a feature", "features") for name in self._features]
        if self._label_at in self._places:
            raise DataError(f"{path}:1: column {label!r} is the label and cannot be a feature too")
        self._check_first(first)

    def schema(self) -> Schema:
        """One dimension per feature column, in the order of `features` or of the file."""
        return Schema(self._task, self._features)

    def rows(self, turn: int = 0) -> Iterator[Sample | None]:
        """Each row once; None for one that was dropped and counted. Raises DataError."""
        width = len(self._columns)
        with _reading(self.path), self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter)
            next(reader, None)
            for row in reader:
                if not row:
                    continue
                if len(row) != width:
                    raise DataError(f"{self.path}:{reader.line_num}: {len(row)} columns where the header has {width}")
                yield self._row(row, reader.line_num)

    def _row(self, row: list[str], line: int) -> Sample | None:
        values = np.empty(len(self._places), np.float64)
        for at, place in enumerate(self._places):
            cell = row[place].strip()
            if not cell:
                self.dropped["missing_value"] += 1
                return None
            number = _number(cell)
            if number is None:
                raise DataError(f"{self.path}:{line}: column {self._columns[place]!r}: {cell[:40]!r} is not a number")
            values[at] = number
        name = row[self._id_at].strip() if self._id_at is not None else None
        return self._sample(values, row[self._label_at].strip() or None, name or None)

    def _open_header(self) -> tuple[list[str], list[str]]:
        """The header and the first row, and which delimiter the file uses."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1 << 20)
            self._delimiter = "," if "," in line else ";" if ";" in line else "\t" if "\t" in line else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=self._delimiter)
            header = [name.strip() for name in next(reader, [])]
            first = next((row for row in reader if row), [])
        return header, first

    def _check_header(self, header: list[str]) -> list[str]:
        if not any(header):
            raise DataError(f"{self.path}:1: the file is empty; a header with column names is needed")
        if all(_number(name) is not None for name in header):
            raise DataError(f"{self.path}:1: a header with column names is needed, and line 1 holds only numbers")
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{self.path}:1: two columns are called {twice!r}")
        return header

    def _column(self, name: str, role: str, key: str) -> int:
        """Where column `name` is."""
        if name in self._columns:
            return self._columns.index(name)
        hint = did_you_mean(name, self._columns)
        raise DataError(f"{self.path}:1: no column {name!r} for {role}{hint} (`{key}` says which)")

    def _check_first(self, first: list[str]) -> None:
        """Refuse columns of words with advice: the most common thing to be wrong with a file."""
        if len(first) != len(self._columns):
            return  # `rows` says what is wrong, with its line
        words = [
            self._columns[place]
            for place in self._places
            if first[place].strip() and _number(first[place].strip()) is None
        ]
        if words:
            place = self._columns.index(words[0])
            others = f" (and {len(words) - 1} more such columns)" if len(words) > 1 else ""
            raise DataError(
                f"{self.path}:2: column {words[0]!r} holds text ({first[place].strip()[:40]!r}){others}; features are "
                "numbers: encode it as numbers, or take it out of the file (or name the others as `features`)"
            )


class _reading:
    """Turns what can go wrong with reading a CSV file into DataError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DataError(fault_text("read samples from", self._path, error)) from None
        if isinstance(error, UnicodeDecodeError):
            raise DataError(f"{self._path}: not UTF-8 text; save it as UTF-8") from None
        if isinstance(error, csv.Error):
            raise DataError(f"{self._path}: not CSV: {error}") from None


def _number(cell: str) -> float | None:
    """The number in a cell, None if it is none. Python's own 1_000 is not one."""
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None
