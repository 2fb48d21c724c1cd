"""The reader's own table, a CSV file with a header, as a data set the demo can deal out.

Every column that holds numbers becomes a feature, except the label's. A column of words is left out and said so; a
word in a column of numbers is an error with its line, since guessing there would teach the devices nonsense.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np

from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.sources.base import MOST_FEATURES, usable_label
from edgeswarm.errors import DataError
from edgeswarm.messages import Array
from edgeswarm.sim.data import DataSet

ROW_LIMIT = 200_000
CLASS_LIMIT = 64
FEWEST_ROWS_PER_CLASS = 5
_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
_DELIMITERS = ",;\t"


def read_table(path: Path, label: str) -> DataSet:
    """The rows of CSV file `path` as a DataSet; column `label` holds the class names.

    Rows with a missing cell are passed over, classes with fewer than FEWEST_ROWS_PER_CLASS rows too, and columns
    without any number; `DataSet.notes` says so. The delimiter (comma, semicolon or tab) is the one the header holds
    most often. Raises DataError, naming the file and the line or column, when no such data set can be made of it.
    """
    header, rows, lines, cut = _rows(path)
    if label not in header:
        raise DataError(f"{path}: no column {label!r}{did_you_mean(label, header)}")
    if not rows:
        raise DataError(f"{path}: a header and no rows")
    notes = [f"the first {ROW_LIMIT} rows"] if cut else []
    at = header.index(label)
    numeric, wordy = _columns(path, header, rows, lines, at)
    if wordy:
        notes.append(f"without {_listed(wordy)} (not numbers)")
    x, y, missing = _numbers(rows, numeric, at)
    if missing:
        notes.append(f"without {missing} rows with missing values")
    x, y, rare = _common_classes(x, y)
    if rare:
        notes.append(f"without {_listed(rare)} (fewer than {FEWEST_ROWS_PER_CLASS} rows)")
    classes = sorted(set(y))
    if len(classes) < 2:
        only = f"only {classes[0]!r}" if classes else "nothing"
        raise DataError(
            f"{path}: column {label!r} holds {only} in at least {FEWEST_ROWS_PER_CLASS} complete rows; "
            "learning needs two classes or more"
        )
    odd = [name for name in classes if not usable_label(name)]
    if odd:
        raise DataError(f"{path}: {odd[0][:40]!r} cannot be the name of a class: too long, or not printable")
    if len(classes) > CLASS_LIMIT:
        raise DataError(
            f"{path}: column {label!r} holds {len(classes)} different values; a label has at most {CLASS_LIMIT} "
            "(is it a measurement rather than a class?)"
        )
    return DataSet(path.name, x, tuple(y), tuple(header[i] for i in numeric), tuple(notes))


def _rows(path: Path) -> tuple[list[str], list[list[str]], list[int], bool]:
    """(column names, rows of cells, the line each row ends on, whether the file goes on beyond ROW_LIMIT)."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = max(_DELIMITERS, key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under a header of {len(header)} columns"
                    )
                if len(rows) == ROW_LIMIT:
                    return header, rows, lines, True
                rows.append(row)
                lines.append(reader.line_num)
    except UnicodeDecodeError:
        raise DataError(f'{path}: not a text file in UTF-8; save it as "CSV UTF-8" and try again') from None
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path}: {reason}") from None
    if not header:
        raise DataError(f"{path}: empty, where a line of column names was expected")
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}")
    return header, rows, lines, False


def _columns(
    path: Path, header: list[str], rows: list[list[str]], lines: list[int], label_at: int
) -> tuple[list[int], list[str]]:
    """(indices of the numeric columns, names of the columns that hold words). Raises DataError for a mixture."""
    numeric: list[int] = []
    wordy: list[str] = []
    for i, name in enumerate(header):
        if i == label_at:
            continue
        bad: tuple[int, str] | None = None
        bad_count = filled = 0
        for row, line in zip(rows, lines, strict=True):
            if _missing(row[i]):
                continue
            filled += 1
            if _number(row[i]) is None:
                bad_count += 1
                bad = bad or (line, row[i].strip())
        if bad is None and filled:
            numeric.append(i)
        elif bad_count * 2 > filled or not filled:
            wordy.append(name)
        elif bad is not None:
            raise DataError(f"{path}, line {bad[0]}: {bad[1][:40]!r} in column {name!r} is not a number")
    if not numeric:
        raise DataError(f"{path}: no column of numbers beside the label {header[label_at]!r}")
    if len(numeric) > MOST_FEATURES:
        raise DataError(f"{path}: {len(numeric)} columns of numbers; devices exchange at most {MOST_FEATURES}")
    return numeric, wordy


def _numbers(rows: list[list[str]], numeric: list[int], label_at: int) -> tuple[Array, list[str], int]:
    x: list[list[float]] = []
    y: list[str] = []
    for row in rows:
        values = [_number(row[i]) for i in numeric]
        name = row[label_at].strip()
        if name and name.lower() != "nan" and None not in values:
            x.append([value for value in values if value is not None])
            y.append(name)
    return np.array(x, np.float32).reshape(-1, len(numeric)), y, len(rows) - len(x)


def _common_classes(x: Array, y: list[str]) -> tuple[Array, list[str], list[str]]:
    rare = sorted(name for name, rows in Counter(y).items() if rows < FEWEST_ROWS_PER_CLASS)
    if not rare:
        return x, y, []
    keep = np.array([name not in rare for name in y], bool)
    return x[keep], [name for name in y if name not in rare], rare


def _missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _number(cell: str) -> float | None:
    """The cell as a number that float32 can hold, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= float(np.finfo(np.float32).max) else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
