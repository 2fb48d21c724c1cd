"""The screens, rendered and looked at."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.screen import LiveScreen, PlainScreen, open_screen, render, table_lines
from edgeswarm.demo.view import View

MakeHistory = Callable[..., History]
MakeView = Callable[..., View]


def shown(view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(render(view, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(72, 24), (80, 24), (103, 30), (104, 30), (120, 40), (200, 60)])
def test_one_line_per_agent_and_nothing_wraps(
    made_up_history: MakeHistory, made_up_view: MakeView, width: int, height: int
) -> None:
    lines = shown(made_up_view(made_up_history()), width, height)
    assert max(map(len, lines)) <= width
    # title, broker, bar, table of 7, legend, blank, title and head of the grid, 5 rows
    assert len(lines) == 2 + 1 + 7 + 1 + 1 + 2 + 5 <= height - 1


def test_at_80_columns_every_number_is_whole(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    lines = shown(made_up_view(made_up_history()), 80, 24)
    row = next(line for line in lines if line.startswith("pi-4"))
    assert row.split()[:9] == ["pi-4", "2", "4", "290", "43", "%", "87", "%", "68"]
    assert "no news 6" in row and row.split()[-2:] == ["29.2", "90.0"]
    assert not any("…" in line for line in lines if not line.startswith("pi-"))


def test_numbers_nobody_reported_are_dashes(made_up_view: MakeView) -> None:
    lines = shown(made_up_view(History([AgentHistory("pi-1", 10), AgentHistory("pi-2", 10)])), 80, 24)
    row = next(line for line in lines if line.startswith("pi-1"))
    assert row.split() == ["pi-1", *"--------"]
    assert not any("nan" in line or "None" in line for line in lines)


def test_the_grid_of_ages_makes_way_for_one_line(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    view = made_up_view(made_up_history(agents=12))
    lines = shown(view, 80, 24)
    assert len(lines) < 24
    assert lines[-1].startswith("age of information: mean ") and " of pi-" in lines[-1]
    assert "knows of" in "\n".join(shown(view, 120, 50))


def test_a_dead_agent_and_its_last_words(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    view = made_up_view(made_up_history())
    view.history.agents["pi-2"].ended = "MemoryError"
    view.events.append("pi-2 ended before its time: MemoryError")
    text = "\n".join(shown(view, 80, 24))
    assert "ended early" in text and "pi-2 ended before its time: MemoryError" in text


def test_class_names_and_notes_are_no_markup(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    history = made_up_history()
    history.agents["pi-1"].main = ("[red]",)
    lines = shown(made_up_view(history, notes=("without [/bold] (not numbers)",)), 120, 40)
    assert any("[red]" in line for line in lines) and any("[/bold]" in line for line in lines)


def test_the_plain_screen_prints_lines_then_a_table(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    out = io.StringIO()
    screen = open_screen(out)
    assert isinstance(screen, PlainScreen)
    view = made_up_view(made_up_history(reports=10))
    screen.draw(view)
    screen.draw(view)
    view.events.append("pi-2 ended before its time: MemoryError")
    screen.draw(view)
    screen.close(view)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert [line for line in lines if line.startswith("edgeswarm demo: ")] == [f"edgeswarm demo: {view.title}"]
    assert sum(line.startswith("learning: ") for line in lines) == 1, "two draws at one time say it once"
    assert sum("MemoryError" in line for line in lines) == 1
    assert lines[-len(table_lines(view)) :] == table_lines(view)


def test_a_screen_to_nowhere_is_silent(
    made_up_history: MakeHistory, made_up_view: MakeView, capfd: pytest.CaptureFixture[str]
) -> None:
    screen = PlainScreen(None)
    view = made_up_view(made_up_history())
    screen.say("hello")
    screen.draw(view)
    screen.close(view)
    assert capfd.readouterr() == ("", "")


def test_the_live_screen_gives_the_cursor_back(made_up_history: MakeHistory, made_up_view: MakeView) -> None:
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, width=80, height=24, force_terminal=True, color_system=None))
    view = made_up_view(made_up_history())
    screen.draw(view)
    hidden = out.getvalue()
    screen.close(view)
    screen.close()
    assert "\x1b[?25l" in hidden and "\x1b[?25h" in out.getvalue()[len(hidden) :]
