"""Rows of cells as plain aligned text, and lines: what was claimed beside what was measured.

A line is left out only where one of its arms was not asked for. One that was asked for and comes to no number (a figure
under another name, an arm that nobody knows, a division by nothing) is not met.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Verdict = tuple[str, bool | None]
"""What the runs say of a line, and `Line.met`."""


@dataclass(frozen=True)
class Line:
    """What was claimed, or is asked for, beside what was measured.

    claim: whose it is, or what about.  wanted: what has to be so.  met: None where the line only asks for a report.
    """

    claim: str
    wanted: str
    ours: str
    met: bool | None


@dataclass(frozen=True)
class Asked:
    """A line before anything was measured."""

    claim: str
    wanted: str
    judge: Callable[[Any], Verdict]


class LeftOut(Exception):
    """An arm, or a task, that was not asked for."""


def of(runs: Mapping[str, T], name: str, every: Collection[str]) -> T:
    """What was run under `name`. every: the names there are; one of them that is not among the runs was not asked for.

    Raises LeftOut, and LookupError where there is no such name.
    """
    if name in every and name not in runs:
        raise LeftOut(name)
    return runs[name]


def mean(values: Iterable[float]) -> float:
    """Raises ValueError where it is no number."""
    found = statistics.fmean(values)
    if not math.isfinite(found):
        raise ValueError(f"the mean is {found}")
    return found


def drawn(asked: Iterable[Asked], runs: Any) -> list[Line]:
    """What became of those whose arms were asked for."""
    lines = []
    for each in asked:
        try:
            ours, met = each.judge(runs)
        except LeftOut:
            continue
        except (ArithmeticError, LookupError, ValueError) as error:
            ours, met = f"no number: {error!r}", False
        lines.append(Line(each.claim, each.wanted, ours, met))
    return lines


def lines_table(lines: Sequence[Line]) -> str:
    """One row for each."""
    said = {True: "met", False: "NOT MET", None: "-"}
    rows = [["claim", "line", "ours", ""], *([each.claim, each.wanted, each.ours, said[each.met]] for each in lines)]
    return to_the_left(rows)


def missed(lines: Sequence[Line]) -> list[str]:
    """Those that are not met, each in one line; that there is none at all is as bad."""
    if not lines:
        return ["no line is decided by the arms that were asked for"]
    return [f"{line.claim.strip()} ({line.wanted}): {line.ours}" for line in lines if line.met is False]


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def to_the_left(rows: list[list[str]]) -> str:
    """Rows of cells as lines, all columns to the left: for sentences."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
