"""The pictures of a simulated run: what devices recognise, what it cost, how old their news is, each at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.readable import brief, percent, size
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy, time_unit
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.report import AWAY, PICTURES, away, left_out, shown, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (10.0, 5.6)
BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
WORD = 0.022
"""Part of a picture's width that the words of an event, which stand upright, take."""
KEY_LETTERS = 120
"""Most that a key in one row has room for."""


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """PICTURES in `folder`. Raises NoPicture."""
    drawn = []
    for name, fill in zip(PICTURES, (_accuracy, _bytes, _age, _devices), strict=True):
        figure = canvas(SIZE_INCHES)
        fill(figure.subplots(), outcome)
        drawn.append(saved(figure, folder / name))
    return drawn


def _table(outcome: Outcome, key: str) -> NDArray[np.float64]:
    """(devices, instants), not a number where a device had none."""
    return np.array([[np.nan if v is None else v for v in getattr(node, key)] for node in outcome.nodes], float)


def _spread(axes: Axes, at_s: NDArray[np.float64], values: NDArray[np.float64], colour: str, name: str) -> None:
    """Mean, and where the middle four fifths and all of the devices are."""
    seen = np.isfinite(values).any(axis=0)
    at, values = at_s[seen], values[:, seen]
    if not len(at):
        return
    low, ten, ninety, high = (np.nanquantile(values, part, axis=0) for part in (0.0, 0.1, 0.9, 1.0))
    if len(values) > 1:
        axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.fill_between(at, ten, ninety, color=colour, alpha=0.25, linewidth=0)
    axes.plot(at, np.nanmean(values, axis=0), color=colour, linewidth=2.6, label=name, marker="o" * (len(at) == 1))


def _framed(axes: Axes, outcome: Outcome, name: str, y: str, unit_s: float, unit: str) -> None:
    """Title, axes, events."""
    axes.set_title(f"{name}\n{literal(title(outcome))}", fontsize=11, loc="left")
    axes.set_ylabel(y)
    axes.set_xlabel(f"virtual time, {unit}")
    end_s = outcome.scenario["swarm"]["duration_s"]
    axes.set_xlim(0, end_s / unit_s)
    free_s = 0.0
    for at_s, until_s, text in happenings(outcome):
        if until_s > at_s:
            axes.axvspan(at_s / unit_s, until_s / unit_s, color="#888888", alpha=0.15, linewidth=0)
        axes.axvline(at_s / unit_s, color="#555555", linewidth=0.9, linestyle=":")
        word_s = max(at_s, free_s)
        free_s = word_s + WORD * end_s
        axes.text(word_s / unit_s, 1.0, f" {text}", transform=axes.get_xaxis_transform(), fontsize=8, rotation=90,
                  va="top", ha="left", color="#333333",
                  bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5})  # fmt: skip
    tidy(axes)


def _keyed(axes: Axes, text: str = "  (line: mean; bands: all devices, and the middle four fifths of them)") -> None:
    """The key below the picture, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        labels[-1] += text
        columns = len(labels) if sum(map(len, labels)) <= KEY_LETTERS else 1
        axes.figure.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)


def happenings(outcome: Outcome) -> Iterator[tuple[float, float, str]]:
    """Start, end and words of each event of the scenario. Partitions end when all are healed, whatever they said, and
    a device that crashed or left is back when it is revived."""
    events, end_s = outcome.scenario["event"], outcome.scenario["swarm"]["duration_s"]
    healed = [event["at_s"] for event in events if event["kind"] == "heal"]
    for event in events:
        names = ", ".join(event["nodes"][:3]) + (", ..." if len(event["nodes"]) > 3 else "")
        text = f"{event['kind'].replace('_', ' ')} {names}".strip()
        until_s = event["at_s"] + event["for_s"]
        if event["kind"] == "partition":
            ends = [at_s for at_s in healed if at_s > event["at_s"]]
            until_s = min([*ends, until_s] if event["for_s"] else ends or [end_s])
        elif event["kind"] in ("crash", "leave"):
            names_gone = [node.name for node in outcome.nodes if _concerns(event, node.name)]
            until_s = max((_back_s(outcome, event, name) for name in names_gone), default=until_s)
        yield event["at_s"], until_s, text


def _concerns(event: Mapping[str, Any], name: str) -> bool:
    return any(fnmatchcase(name, wanted) for wanted in event["nodes"])


def _back_s(outcome: Outcome, gone: Mapping[str, Any], name: str) -> float:
    """When a device that crashed or left is there again; the end of the run where it never is."""
    times = [gone["at_s"] + gone["for_s"]] if gone["for_s"] else [outcome.scenario["swarm"]["duration_s"]]
    for event in outcome.scenario["event"]:
        if event["kind"] in ("revive", "join") and event["at_s"] >= gone["at_s"] and _concerns(event, name):
            times.append(event["at_s"])
    return float(min(times))


def _time(outcome: Outcome) -> tuple[NDArray[np.float64], float, str]:
    """Instants, and the unit to draw them in."""
    unit_s, unit = time_unit(outcome.scenario["swarm"]["duration_s"])
    return np.array(outcome.at_s) / unit_s, unit_s, unit


def _accuracy(axes: Axes, outcome: Outcome) -> None:
    at, unit_s, unit = _time(outcome)
    of = away(outcome) and f" of {outcome.there():,} devices"
    for key, colour, name in (("accuracy", BLUE, "own mix"), ("accuracy_common", ORANGE, "all classes alike")):
        _spread(axes, at, 100 * _table(outcome, key), colour, f"{name}, at last {percent(outcome.mean(key))}{of}")
    _framed(axes, outcome, "What devices recognise", "samples recognised, %", unit_s, unit)
    axes.set_ylim(0, 101)
    _keyed(axes)


def _bytes(axes: Axes, outcome: Outcome) -> None:
    at, unit_s, unit = _time(outcome)
    at = np.r_[0.0, at]
    tables = {key: np.pad(_table(outcome, key), ((0, 0), (1, 0))) for key in ("bytes_sent", "bytes_received")}
    most = max(float(table.max()) for table in tables.values())
    scale, word = (1e6, "MB") if most >= 1e6 else (1e3, "kB")
    for (key, table), colour, name in zip(tables.items(), (PINK, GREEN), ("sent", "received"), strict=True):
        _spread(axes, at, table / scale, colour, f"{name}, at last {size(outcome.mean(key) or 0.0)}")
    _framed(axes, outcome, "What it cost a device", f"MQTT bytes since the start, {word}", unit_s, unit)
    axes.set_ylim(bottom=0)
    _keyed(axes)


def _age(axes: Axes, outcome: Outcome) -> None:
    at, unit_s, unit = _time(outcome)
    ages = _table(outcome, "age_s")
    _framed(axes, outcome, "How old what a device knows of its peers is", "age of information, s", unit_s, unit)
    if not np.isfinite(ages).any():
        axes.text(0.5, 0.5, "no device knew anything of another", transform=axes.transAxes, ha="center")
        return
    last = outcome.mean("age_s")
    _spread(axes, at, ages, BLUE, "mean over time" if last is None else f"mean over time, at last {brief(last)}")
    axes.set_ylim(bottom=0)
    _keyed(axes)


def _devices(axes: Axes, outcome: Outcome) -> None:
    nodes = sorted(shown(outcome), key=lambda node: _last(node, "accuracy_common", -1.0))
    places = np.arange(len(nodes))
    own, common = (np.array([100 * _last(node, key) for node in nodes]) for key in ("accuracy", "accuracy_common"))
    known, there = np.isfinite(own), np.array([node.there[-1] for node in nodes])
    axes.hlines(places[known], own[known], common[known], color="#bbbbbb", linewidth=2, zorder=1)
    axes.scatter(own[known], places[known], s=60, color=BLUE, label="own mix", zorder=2)
    axes.scatter(common[known], places[known], s=60, color=ORANGE, label="all classes alike", zorder=2)
    least = max(-1.0, min(90.0, *own[known], *common[known]) - 5) if known.any() else -1.0
    for at in places[~known]:
        text = "no answer yet" if there[at] else AWAY
        axes.text(least + 0.02 * (101 - least), at, text, fontsize=9, va="center", style="italic", color="#555555")
    traffic = [node.bytes_sent[-1] + node.bytes_received[-1] for node in nodes]
    labels = [f"{node.name}{f' ({node.board})' if node.board else ''}" for node in nodes]
    axes.set_yticks(places, [literal(label) for label in labels], fontsize=8 if len(nodes) > 12 else 10)
    for at, (node, count) in enumerate(zip(nodes, traffic, strict=True)):
        axes.text(101.5, at, f"{node.samples:,} rows, {size(count)}", fontsize=8, va="center")
    axes.set_xlim(least, 101)
    axes.set_ylim(-0.5, len(nodes) - 0.5)
    axes.set_title(f"Each device at the end\n{literal(title(outcome))}", fontsize=11, loc="left")
    axes.set_xlabel("samples recognised, %" + (f"  ({left_out(outcome)})" if left_out(outcome) else ""))
    tidy(axes)
    _keyed(axes, "")


def _last(node: NodeOutcome, key: str, without: float = float("nan")) -> float:
    value = getattr(node, key)[-1]
    return without if value is None else float(value)
