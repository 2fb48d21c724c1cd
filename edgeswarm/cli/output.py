"""What the verbs print: data on stdout, words on stderr."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgeswarm.cli.options import QUIET


def error(text: str) -> None:
    """An error, in red on a terminal, on stderr."""
    click.secho(f"edgeswarm: {text}", fg="red", err=True)


def say(text: str) -> None:
    """Words about what is going on, on stderr; `-q` silences them."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or not ctx.meta.get(QUIET):
        click.echo(text, err=True)


def emit(data: Any, one_line: bool = False) -> None:
    """`data` as JSON on stdout. What JSON cannot say (not a number, infinity) becomes null."""
    import json

    click.echo(json.dumps(_plain(data), indent=None if one_line else 2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: str | Sequence[str] = "") -> None:
    """Columns on stdout, never wrapped. right: the heads of columns to align right; as text, with spaces between."""
    to_right = right.split() if isinstance(right, str) else right
    widths = [max(len(click.unstyle(row[i])) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = []
        for head, width, cell in zip(heads, widths, cells, strict=True):
            space = " " * (width - len(click.unstyle(cell)))
            padded.append(space + cell if head in to_right else cell + space)
        return "  ".join(padded).rstrip()

    click.echo(click.style(line(heads), bold=True))
    for row in rows:
        click.echo(line(row))


def pairs(items: Sequence[tuple[str, str]]) -> None:
    """`name  value` lines on stdout, the values aligned."""
    width = max((len(name) for name, _ in items), default=0)
    for name, value in items:
        click.echo(f"{name:<{width}}  {value}".rstrip())


def save(path: Path, lines: Sequence[str], what: str) -> None:
    """What --write asks for, whole or not at all. what: "the graph". Raises ConfigError."""
    from edgeswarm.agent.faults import fault_text
    from edgeswarm.errors import ConfigError
    from edgeswarm.whole_file import whole

    try:
        with whole(path) as fresh:
            fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--write: {fault_text(f'write {what}', path, error)}") from None
    say(f"written: {path}")
