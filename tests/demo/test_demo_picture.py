"""The picture: a file of the right kind and size, and what its panels are made of."""

from __future__ import annotations

import builtins
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.picture import mean_line, save_picture, taught_shares
from edgeswarm.demo.summary import summarise
from edgeswarm.sim.canvas import NoPicture


def size_of(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize("agents", [2, 5, 12])
def test_a_png_of_1600_by_640(tmp_path: Path, made_up_history: Callable[..., History], agents: int) -> None:
    history = made_up_history(agents)
    path = save_picture(history, summarise(history, 64), "a title", tmp_path / "new folder" / "swarm.png")
    assert size_of(path) == (1600, 640)


def test_a_history_without_reports_is_drawn_too(tmp_path: Path) -> None:
    history = History([AgentHistory("a", 5), AgentHistory("b", 5)])
    assert size_of(save_picture(history, summarise(history, 64), "nothing", tmp_path / "swarm.png")) == (1600, 640)


def test_names_are_no_formulas_and_may_be_in_any_script(
    tmp_path: Path, made_up_history: Callable[..., History]
) -> None:
    history = made_up_history(2)
    history.agents["pi-1"].main = ("$x^$", "猫")
    assert size_of(save_picture(history, summarise(history, 64), "100 $_ $", tmp_path / "s.png")) == (1600, 640)


def test_mean_line_is_the_mean_where_all_curves_are() -> None:
    history = History([AgentHistory("a", 5), AgentHistory("b", 5)])
    for samples, accuracy in ((0, 0.0), (100, 1.0)):
        history.record(0.0, "a", {"samples": samples, "holdout_swarm": accuracy}, {})
    for samples, accuracy in ((50, 0.0), (150, 1.0)):
        history.record(0.0, "b", {"samples": samples, "holdout_swarm": accuracy}, {})
    xs, ys = mean_line(history, "holdout_swarm")
    assert (xs[0], xs[-1]) == (50.0, 100.0)
    assert ys[0] == pytest.approx(0.25) and ys[-1] == pytest.approx(0.75)
    assert mean_line(history, "holdout_alone") == ([], [])


def test_taught_shares_weigh_votes_and_prototypes() -> None:
    history = History([AgentHistory(node, 5) for node in "abc"])
    history.record(0.0, "a", {}, {"b": {"weight": 0.5, "prototypes": 30}, "c": {"weight": 0.25, "prototypes": 20}})
    assert taught_shares(history) == [[0.0, 0.75, 0.25], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_without_matplotlib_it_says_how_to_get_it(
    tmp_path: Path, made_up_history: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    history = made_up_history()
    with pytest.raises(NoPicture, match=r"pip install matplotlib"):
        save_picture(history, summarise(history, 64), "a title", tmp_path / "swarm.png")


def test_a_place_that_cannot_be_written(tmp_path: Path, made_up_history: Callable[..., History]) -> None:
    (tmp_path / "file").write_text("in the way")
    history = made_up_history()
    with pytest.raises(NoPicture, match="no picture"):
        save_picture(history, summarise(history, 64), "a title", tmp_path / "file" / "swarm.png")
