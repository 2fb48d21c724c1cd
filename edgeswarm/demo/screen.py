"""The demo on a terminal: a live table where there is one, a line every few seconds where there is none.

Colour and animation go away by themselves without a TTY, under NO_COLOR (https://no-color.org) or TERM=dumb, and
where rich is not installed; the words stay the same.
"""

from __future__ import annotations

import sys
import textwrap
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from edgeswarm.demo.summary import percent
from edgeswarm.demo.view import NARROW, WIDE, WIDE_FROM, View, age_line, age_rows, aligned, rows
from edgeswarm.sim.screen import console_of

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

NARROWEST = 72
"""Columns below which the live table cannot be read; plain lines can."""

LINE_EVERY_S = 3.0
WRAP_AT = 79
_MAIN_WIDTH = (9, 20)
"""Widest column of class names in the narrow and in the wide table."""

_OLD_S, _VERY_OLD_S = 5.0, 15.0
_LEGEND = "alone / swarm: part of the hold-out recognised"


class Screen(Protocol):
    """Where a View is shown. Call `draw` as often as you like; `close` exactly once, also after an interruption."""

    def say(self, line: str) -> None:
        """Show a line before the first `draw` or after `close`."""
        ...

    def draw(self, view: View) -> None:
        """Show the newest state."""
        ...

    def close(self, view: View | None = None) -> None:
        """Leave the last state standing and give the terminal back."""
        ...


def open_screen(stream: TextIO | None = None, colourless: bool = False) -> Screen:
    """The live screen if `stream` (standard output unless given) can show it, the plain one otherwise."""
    out = stream or sys.stdout
    console = console_of(out, colourless)
    if console is None:
        return PlainScreen(out)
    return LiveScreen(console) if console.width >= NARROWEST else PlainScreen(out)


class PlainScreen:
    """One line every LINE_EVERY_S seconds, events as they come, the whole table at the end."""

    def __init__(self, out: TextIO | None) -> None:
        """out: where the lines go; None for nowhere."""
        self._out = out
        self._next = 0.0
        self._events = 0
        self._phase = ""
        self._headed = False

    def say(self, line: str) -> None:
        """Print a line, broken between words where it is longer than most terminals are wide."""
        self._print(*(textwrap.wrap(line, WRAP_AT) or [""]))

    def _print(self, *lines: str) -> None:
        if self._out is not None:
            for line in lines:
                print(line, file=self._out)
            self._out.flush()

    def draw(self, view: View) -> None:
        """Print what is new: the heading once, every event once, the numbers every LINE_EVERY_S seconds."""
        if not self._headed:
            self._headed = True
            self._print(*heading(view))
        self._print(*view.events[self._events :])
        self._events = len(view.events)
        now = time.monotonic()
        if now < self._next and view.phase == self._phase:
            return
        self._next = now + LINE_EVERY_S
        self._phase = view.phase
        self._print(f"{view.phase}: {one_line(view)}")

    def close(self, view: View | None = None) -> None:
        """Print the table."""
        if view is None or not self._headed:
            return
        self._print("", *table_lines(view))


def heading(view: View) -> list[str]:
    """What runs where, and what it learns from."""
    return [f"edgeswarm demo: {view.title}", f"broker: {view.broker}", *(f"data: {note}" for note in view.notes)]


def one_line(view: View) -> str:
    """The state in one line."""
    history = view.history
    return (
        f"{view.counted()}; alone {percent(history.mean('holdout_alone'))}, "
        f"swarm {percent(history.mean('holdout_swarm'))}; sent {history.total('sent'):.0f}, "
        f"held {history.total('held'):.0f}, {(history.total('bytes_sent')) / 1000:.0f} kB"
    )


def table_lines(view: View) -> list[str]:
    """The whole state as plain lines, as wide as it must be."""
    titles = [column.title for column in WIDE]
    lines = aligned(titles, rows(view.history, WIDE), [column.right for column in WIDE])
    names = list(view.history.agents)
    ages = aligned(["knows of", *names], age_rows(view.history), [False, *(True for _ in names)])
    return [*lines, _LEGEND, "", "age of information, seconds", *ages]


class LiveScreen:
    """A table that changes in place, drawn with rich."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        # refreshed by `draw` alone: a thread of rich's own would draw in the middle of an update
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._started = False

    def say(self, line: str) -> None:
        """Print a line, whole words per row."""
        self._console.print(line, markup=False)

    def draw(self, view: View) -> None:
        """Draw the table anew."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(render(view, self._console.width, self._console.height), refresh=True)

    def close(self, view: View | None = None) -> None:
        """Draw once more and show the cursor again."""
        if not self._started:
            return
        if view is not None:
            self.draw(view)
        self._live.stop()
        self._started = False


def render(view: View, width: int, height: int) -> Group:
    """The live screen for a terminal of that many columns and lines; the grid of ages only where it fits."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    agents = len(view.history.agents)
    title = Text.assemble(("edgeswarm demo", "bold"), f"  {view.title}", no_wrap=True, overflow="ellipsis")
    broker = Text.assemble(("broker ", "dim"), view.broker, no_wrap=True, overflow="ellipsis")
    notes = [Text(f"data {note}", style="dim", no_wrap=True, overflow="ellipsis") for note in view.notes]
    bar = Table.grid(expand=True, padding=(0, 1, 0, 0))
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(Text(view.phase), ProgressBar(total=1.0, completed=view.progress), view.counted())
    events = [Text(event, style="red", no_wrap=True, overflow="ellipsis") for event in view.events[-3:]]
    legend = Text(f"{_LEGEND}; out, in: MQTT kB", style="dim", no_wrap=True, overflow="ellipsis")
    # heading 2, bar 1, table: title, agents, mean; legend 1, grid: blank, two titles, agents; the cursor's line
    needed = 2 + len(notes) + 1 + 1 + agents + 1 + 1 + len(events) + 3 + agents + 1
    grid_fits = height >= needed and width >= 9 + 7 * agents
    ages = _age_table(view) if grid_fits else Text(age_line(view.history), no_wrap=True, overflow="ellipsis")
    return Group(title, broker, *notes, bar, _agent_table(view, width), legend, *events, *([Text()] * grid_fits), ages)


def _agent_table(view: View, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE_FROM
    columns = WIDE if wide else NARROW
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), expand=True, header_style="dim")
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # the reasons take what the numbers leave; nothing else ever shrinks
            ratio=1 if column.key == "why" else None,
            max_width=_MAIN_WIDTH[wide] if column.key == "main" else None,
            style={"holdout_swarm": "bold green", "holdout_alone": "yellow"}.get(column.key, ""),
        )
    # as Text: a class may be called "[bold]"
    body = [[Text(cell) for cell in row] for row in rows(view.history, columns)]
    for row, agent in zip(body, view.history.agents.values(), strict=False):
        table.add_row(*row, style="red" if agent.ended is not None else "")
    table.add_row(*body[-1], style="bold")
    return table


def _age_table(view: View) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("knows of", no_wrap=True)
    for node in view.history.agents:
        table.add_column(node, justify="right", no_wrap=True, min_width=5)
    for row in age_rows(view.history):
        table.add_row(row[0], *(Text(cell, style=_age_style(cell)) for cell in row[1:]))
    meaning = "age of information: seconds since the column knew what the row now knows of it"
    return Group(Text(meaning, style="dim", no_wrap=True, overflow="ellipsis"), table)


def _age_style(cell: str) -> str:
    try:
        age_s = float(cell)
    except ValueError:
        return "dim"
    return "green" if age_s < _OLD_S else "yellow" if age_s < _VERY_OLD_S else "red"
