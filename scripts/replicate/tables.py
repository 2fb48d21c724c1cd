"""Rows of cells as plain aligned text, and lines: what was claimed beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """What was claimed, or is asked for, beside what was measured.

    claim: whose it is, or what about.  wanted: what has to be so.  met: None where the line only asks for a report, or
    the runs at hand cannot decide it.
    """

    claim: str
    wanted: str
    ours: str
    met: bool | None


def lines_table(lines: Sequence[Line]) -> str:
    """One row for each."""
    said = {True: "met", False: "NOT MET", None: "-"}
    rows = [["claim", "line", "ours", ""], *([each.claim, each.wanted, each.ours, said[each.met]] for each in lines)]
    return to_the_left(rows)


def missed(lines: Sequence[Line]) -> list[str]:
    """Those that are not met, each in one line."""
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
