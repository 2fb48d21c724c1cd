"""A run under way, on a terminal: a bar with the figures of the last examination, or a line now and then.

Colour and animation go away by themselves without a TTY, under NO_COLOR or TERM=dumb, and where rich is not installed.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from edgeswarm.readable import brief, percent, size
from edgeswarm.sim.outcome import Outcome
from edgeswarm.sim.run import Progress

if TYPE_CHECKING:
    from rich.console import Console, Group

LINE_EVERY_S = 5.0
DRAW_EVERY_S = 0.1
BARS = "▁▂▃▄▅▆▇█"
SHOWN = 12
"""Most devices in the live table."""


class Screen(Protocol):
    """Where a run is shown. `show` as often as you like, `close` exactly once."""

    def show(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


def open_screen(title: str, stream: TextIO | None = None, colourless: bool = False, quiet: bool = False) -> Screen:
    """The live screen if `stream` (standard error unless given) can show it, else the plain one."""
    out = stream or sys.stderr
    console = None if quiet else console_of(out, colourless)
    return PlainScreen(title, None if quiet else out) if console is None else LiveScreen(title, console)


def console_of(out: TextIO, colourless: bool = False) -> Console | None:
    """A console that can be drawn on again and again; None where there is none."""
    if not out.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=out, highlight=False, no_color=colourless or None)


def figures(progress: Progress) -> str:
    """The last examination in a line; "" before the first."""
    last = progress.last
    if not last:
        return ""
    age = "" if last["age_s"] is None else f", age {brief(last['age_s'])}"
    devices, there = last["devices"], last["devices_there"]
    away = "" if there == devices else f"; {there:,} of {devices:,} devices, {devices - there:,} away"
    return (
        f"own mix {percent(last['accuracy'])} (worst {percent(last['accuracy_worst'])}), "
        f"all alike {percent(last['accuracy_common'])}, {size(last['bytes_per_node'])} a device{age}{away}"
    )


def to_go(progress: Progress) -> str:
    """How long it has taken here, and will."""
    part = progress.at_s / progress.duration_s
    left = f", about {brief(progress.wall_s * (1 - part) / part)} to go" if 0.02 < part < 1 else ""
    return f"{brief(progress.wall_s)} here{left}"


class PlainScreen:
    """A line every LINE_EVERY_S seconds. out: None for nowhere."""

    def __init__(self, title: str, out: TextIO | None) -> None:
        self._title, self._out, self._next = title, out, time.monotonic() + LINE_EVERY_S

    def show(self, progress: Progress) -> None:
        """Print where it is, if it is time to."""
        if self._out is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY_S
        if self._title:
            print(self._title, file=self._out)
            self._title = ""
        known = figures(progress)
        text = f"{progress.at_s:.0f} of {progress.duration_s:.0f} s{': ' if known else ''}{known}; {to_go(progress)}"
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is left to do."""


class LiveScreen:
    """A bar, the figures, accuracy as it has grown, and some devices, drawn with rich."""

    def __init__(self, title: str, console: Console) -> None:
        from rich.live import Live

        self._title, self._console, self._next = title, console, 0.0
        # refreshed by `show` alone: a thread of rich's own would draw in the middle of an update
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, progress: Progress) -> None:
        """Draw it anew, a few times a second at most."""
        if time.monotonic() >= self._next or progress.at_s >= progress.duration_s:
            self._next = time.monotonic() + DRAW_EVERY_S
            self._live.update(render(self._title, progress, self._console.width, self._console.height), refresh=True)

    def close(self) -> None:
        """Give the terminal back; what comes next is the report."""
        self._live.stop()


def render(title: str, progress: Progress, width: int, height: int) -> Group:
    """The live screen for a terminal of that many columns and lines."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(text: str, style: str = "") -> Text:
        return Text(text, style=style, no_wrap=True, overflow="ellipsis")

    bar = Table.grid(expand=True, padding=(0, 1, 0, 0))
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    passed = f"{progress.at_s:,.0f} of {progress.duration_s:,.0f} s"
    bar.add_row(passed, ProgressBar(total=progress.duration_s, completed=progress.at_s), to_go(progress))
    parts: list[Any] = [line(title, "bold"), bar]
    if progress.outcome is not None:
        parts.append(line(figures(progress)))
        parts.append(line(growth(progress.outcome, width - 38), "green"))
        if height >= SHOWN + 8:
            parts.append(_devices(progress.outcome))
    return Group(*parts)


def growth(outcome: Outcome, width: int) -> str:
    """Mean accuracy at each examination as a line of bars, the newest `width` of them, and from where to where."""
    means = [outcome.mean("accuracy", at) for at in range(len(outcome.at_s))][-max(1, width) :]
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(BARS) - 1) or 1.0
    bars = "".join(" " if mean is None else BARS[round((mean - low) / step)] for mean in means)
    return f"{bars}  own mix, {percent(low)} to {percent(high)}"


def _devices(outcome: Outcome) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("device", "own mix", "all alike", "sent", "received", "age"):
        table.add_column(head, justify="left" if head == "device" else "right", no_wrap=True)
    worst = sorted(outcome.nodes, key=lambda node: -1.0 if node.accuracy[-1] is None else node.accuracy[-1])[:SHOWN]
    for node in sorted(worst, key=lambda node: node.name):
        away = not node.there[-1]
        received = size(node.bytes_received[-1])
        cells = [node.name, "away" if away else percent(node.accuracy[-1]), percent(node.accuracy_common[-1]),
                 size(node.bytes_sent[-1]), received, brief(node.age_s[-1])]  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells), style="yellow" if away else "")
    more = len(outcome.nodes) - len(worst)
    return Group(table, Text(f"and {more:,} more that do better", style="dim")) if more else Group(table)
