"""`edgeswarm predict`: put what a node has learnt to use, on a file or a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgeswarm import readable
from edgeswarm.cli import options, output

if TYPE_CHECKING:
    from edgeswarm.cli.learnt import Learnt
    from edgeswarm.cli.rows import Row

_ROWS_AT_ONCE = 256


@dataclass
class Score:
    """How many rows were named, of how many; of those with a true class, how many rightly."""

    rows: int = 0
    unusable: int = 0
    labelled: int = 0
    right: int = 0


@click.command()
@options.config
@options.state
@click.argument("file", metavar="[FILE|-]", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option("--alone", is_flag=True, help="Use only what this node learnt from its own samples.")
@click.option(
    "--label", metavar="COLUMN", default="", help="Column or key with the true class: say how many were right."
)
@options.as_json
@options.common
def command(
    config_file: Path | None, state_folder: Path | None, file: str, alone: bool, label: str, json_wanted: bool
) -> None:
    """Name the class of each sample in FILE (or stdin), with what this node has learnt.

    Samples are CSV with a header, or JSON with one object of names and numbers (or list of numbers) a line. Columns
    are matched by name. Prints class and confidence for each row, in order; a row that cannot be used gets "-".
    Works while the agent runs, from the state it last saved.
    """
    from edgeswarm.cli.learnt import load

    learnt = load(options.state_folder_of(state_folder, config_file))
    score = Score()
    answers = []
    name = "stdin" if file == "-" else file
    with _opened(file) as lines:
        # A person or a sensor at the other end of a pipe wants each answer when it is due, not with the 255 after it.
        at_once = 1 if file == "-" and not lines.isatty() and not _is_file(lines) else _ROWS_AT_ONCE
        for row, predicted, confidence in answered(lines, learnt, label, alone, name, at_once):
            score.rows += 1
            score.unusable += row.x is None
            if row.label is not None and row.x is not None:
                score.labelled += 1
                score.right += predicted == row.label
            if json_wanted:
                answers.append(_data(row, predicted, confidence))
            else:
                click.echo(f"{predicted}\t{confidence:.3f}" if predicted is not None else "-\t0.000")
            if row.x is None:
                output.say(f"{name}:{row.line}: {row.fault}")
    _finish(score, label, answers if json_wanted else None)


def answered(
    lines: Iterable[str], learnt: Learnt, label: str, alone: bool, name: str, at_once: int
) -> Iterator[tuple[Row, str | None, float]]:
    """(row, class or None, confidence) for each row. Raises DataError."""
    import numpy as np

    from edgeswarm.cli.rows import read_rows

    rows = read_rows(lines, learnt.features, label, name)
    while batch := list(islice(rows, at_once)):
        usable = [row.x for row in batch if row.x is not None]
        named = zip(*learnt.predict(np.stack(usable), alone), strict=True) if usable else ()
        answers = iter(named)
        for row in batch:
            predicted, confidence = next(answers) if row.x is not None else (None, 0.0)
            yield row, predicted, float(confidence)


def _data(row: Row, predicted: str | None, confidence: float) -> dict[str, Any]:
    data: dict[str, Any] = {"line": row.line, "class": predicted, "confidence": round(confidence, 4)}
    if row.label is not None:
        data["label"] = row.label
    if row.fault:
        data["fault"] = row.fault
    return data


def _finish(score: Score, label: str, answers: list[dict[str, Any]] | None) -> None:
    accuracy = score.right / score.labelled if score.labelled else None
    if answers is not None:
        output.emit({
            "predictions": answers,
            "rows": score.rows,
            "unusable": score.unusable,
            "labelled": score.labelled,
            "right": score.right,
            "accuracy": accuracy,
        })  # fmt: skip
    elif accuracy is not None:
        click.echo(f"{readable.percent(accuracy)} right ({score.right:,} of {score.labelled:,})")
    elif label:
        output.say(f"no row has a value for {label!r}, so nothing to score")


def _opened(file: str) -> TextIO:
    from edgeswarm.agent.faults import fault_text
    from edgeswarm.errors import DataError

    try:
        stream: TextIO = click.open_file(file, encoding="utf-8", errors="replace")  # type: ignore[assignment]
    except OSError as error:
        raise DataError(fault_text("read samples from", Path(file), error)) from None
    return stream


def _is_file(stream: TextIO) -> bool:
    import os
    import stat

    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
