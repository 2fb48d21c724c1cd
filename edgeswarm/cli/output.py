"""What the verbs print: data on stdout, words on stderr, numbers a person can read at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def count(value: float) -> str:
    """12345 as 12,345; - for what is not a number."""
    return f"{value:,.0f}" if math.isfinite(value) else "-"


def counted(value: float, thing: str) -> str:
    """1 round, 12,345 rounds; - rounds for what is not a number. thing: in the singular, its plural ends in s."""
    return f"{count(value)} {thing}{'' if value == 1 else 's'}"


def size(value_bytes: float) -> str:
    """Bytes with a unit of a thousand: 950 B, 1.2 kB, 3.4 MB."""
    if not math.isfinite(value_bytes):
        return "-"
    for unit in ("B", "kB", "MB"):
        if abs(value_bytes) < 1000:
            return f"{value_bytes:.0f} B" if unit == "B" else f"{value_bytes:.1f} {unit}"
        value_bytes /= 1000
    return f"{value_bytes:.1f} GB"


def span(value_s: float) -> str:
    """Seconds in the largest fitting units: 0.4 s, 12 s, 3 min, 2 h 5 min, 4 d 3 h."""
    if not math.isfinite(value_s):
        return "-"
    if value_s < 9.95:
        return f"{max(value_s, 0.0):.1f} s"
    if value_s < 119.5:
        return f"{value_s:.0f} s"
    minutes = round(value_s / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def brief(value_s: float) -> str:
    """A short time with three digits: 24 µs, 2.51 ms, 1.2 s, as `span` above ten seconds."""
    if not math.isfinite(value_s):
        return "-"
    if value_s < 0.9995e-3:
        return f"{value_s * 1e6:.3g} µs"
    if value_s < 0.9995:
        return f"{value_s * 1e3:.3g} ms"
    return f"{value_s:.3g} s" if value_s < 9.995 else span(value_s)


def percent(value: float) -> str:
    """A share in [0, 1] as 91.2 %; - for what is not a number."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def number(value: float) -> str:
    """Three significant digits, whole numbers in full, no exponent for ordinary sizes."""
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def moment(at_unix: float) -> str:
    """Seconds since 1970 as local time: the time alone today, with the date on other days."""
    import time

    now, then = time.localtime(), time.localtime(at_unix)
    form = "%H:%M:%S" if now[:3] == then[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, then)
