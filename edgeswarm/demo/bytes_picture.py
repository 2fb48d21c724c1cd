"""One picture of accuracy against bytes: what a device recognises, and what it has sent and received by then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeswarm.demo.history import History
from edgeswarm.demo.summary import percent
from edgeswarm.readable import size
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID_POINTS = 80


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean over the devices. sizes_bytes: sent and received, without status reports, ascending.  accuracy: 0 to 1."""

    name: str
    sizes_bytes: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What stands beside the swarm's own curve.

    curves: other ways, measured or simulated (their names say which).  alone: accuracy without a swarm.
    encoder: accuracy of the encoder's own head, as it left the laboratory.  raw_bytes: per device, had every image
    gone to everybody; raw_accuracy: of one learner given all of them (None: not measured).
    """

    curves: tuple[Curve, ...]
    alone: float | None
    encoder: float | None
    raw_bytes: float
    raw_accuracy: float | None


def live_curve(history: History, name: str) -> Curve | None:
    """The curve of a demo that has run, from the devices' own reports. None: too few of them."""
    import numpy as np

    curves = []
    for agent in history.agents.values():
        points = [
            (reading.notes["bytes_sent"] + reading.notes["bytes_received"] - reading.notes["report_bytes"],
             reading.notes["holdout_swarm"])
            for reading in agent.readings
            if {"bytes_sent", "bytes_received", "holdout_swarm"} <= reading.notes.keys()
        ]  # fmt: skip
        if len(points) >= 2:
            curves.append(np.array(points).T)
    if not curves:
        return None
    # Means at the same place between a device's first and last report, for devices differ a little in traffic.
    grid = np.linspace(0, 1, _GRID_POINTS)
    sizes = np.mean([np.interp(grid, np.linspace(0, 1, c.shape[1]), c[0]) for c in curves], axis=0)
    right = np.mean([np.interp(grid, np.linspace(0, 1, c.shape[1]), c[1]) for c in curves], axis=0)
    return Curve(name, tuple(sizes.tolist()), tuple(right.tolist()))


def save_bytes_picture(live: Curve, beside: Comparison, title: str, path: Path) -> Path:
    """Draw a PNG of 1100 x 700 pixels at `path`; folders are made. Returns the path.

    Raises NoPicture when matplotlib is missing or the file cannot be written.
    """
    figure = canvas((11.0, 7.0))
    axes = figure.subplots()
    for at, curve in enumerate((live, *beside.curves)):
        _draw(axes, curve, COLOURS[at % len(COLOURS)], "-" if at == 0 else "--")
    if beside.alone is not None:
        axes.axhline(100 * beside.alone, color="black", linestyle=":", linewidth=1.6)
        _beside(axes, 100 * beside.alone, f"alone, no traffic at all: {percent(beside.alone)}")
    if beside.encoder is not None:
        axes.axhline(100 * beside.encoder, color="#777777", linestyle="-.", linewidth=1.6)
        _beside(axes, 100 * beside.encoder, f"the encoder's own head, from the laboratory: {percent(beside.encoder)}")
    if beside.raw_accuracy is not None:
        axes.plot([beside.raw_bytes / 1000], [100 * beside.raw_accuracy], "*", color="#009E73", markersize=17)
        axes.annotate(
            f"every image to everybody:\n{percent(beside.raw_accuracy)} for {size(beside.raw_bytes)}",
            (beside.raw_bytes / 1000, 100 * beside.raw_accuracy),
            xytext=(-14, -16), textcoords="offset points", ha="right", va="top", fontsize=11,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_xlabel("MQTT bytes a device has sent and received, kB (without status reports)", fontsize=12)
    axes.set_ylabel("hold-out images recognised, %", fontsize=12)
    axes.set_title(literal(title), fontsize=14)
    tidy(axes)
    axes.legend(loc="lower right", fontsize=11, framealpha=0.9)
    return saved(figure, path)


def _draw(axes: Axes, curve: Curve, colour: str, line: str) -> None:
    sizes = [max(0.05, spent / 1000) for spent in curve.sizes_bytes]
    label = f"{curve.name} (at last {percent(curve.accuracy[-1])}, {size(curve.sizes_bytes[-1])})"
    axes.plot(sizes, [100 * part for part in curve.accuracy], line, color=colour, linewidth=2.8, label=label)
    axes.plot(sizes[-1:], [100 * curve.accuracy[-1]], "o", color=colour, markersize=8)


def _beside(axes: Axes, height: float, text: str) -> None:
    axes.text(0.01, height + 0.8, text, transform=axes.get_yaxis_transform(), fontsize=11, va="bottom")
