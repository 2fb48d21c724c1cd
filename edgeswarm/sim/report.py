"""A simulated run for people: a table for the terminal, report.md, report.json, and four pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.faults import fault_text
from edgeswarm.errors import DataError, StateError
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy
from edgeswarm.sim.outcome import NodeOutcome, Outcome, from_plain
from edgeswarm.sim.whole_file import whole
from edgeswarm.strategies import STRATEGIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON, MARKDOWN = "report.json", "report.md"
PICTURES = ("accuracy.png", "bytes.png", "age.png", "devices.png")
SHOWN = 24
"""Most devices in the table and with a name in the picture; of a larger swarm, those that do worst."""
AWAY = "away"
SIZE_INCHES = (10.0, 5.6)
DAY_S = 86_400.0
BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
HEADS = ("device", "board", "rows", "sees most", "own mix", "all alike", "sent", "received", "age", "rounds")
RIGHT = ("rows", *HEADS[4:])


# ---- words -----------------------------------------------------------------------------------------------------------


def title(outcome: Outcome) -> str:
    """The run in one line. A method without neighbours has no graph: everybody hears everybody."""
    swarm, graph = outcome.scenario["swarm"], outcome.scenario["graph"]
    words = f", graph {graph['kind']}" if hasattr(STRATEGIES[outcome.method](), "topology") else ""
    return (
        f"{outcome.method} on {outcome.data}, {swarm['nodes']} devices{words}, "
        f"{span(swarm['duration_s'])}, seed {swarm['seed']}"
    )


def headlines(outcome: Outcome) -> list[tuple[str, str]]:
    """Name and value of the figures that matter."""
    means, whole = outcome.summary(), away(outcome) and f" ({away(outcome)})"
    sizes = (means["bytes_sent_per_node"] or 0.0, means["bytes_received_per_node"] or 0.0)
    return [
        (
            "accuracy, own mix",
            f"{percent(means['accuracy'])} mean, {percent(means['accuracy_worst'])} worst device{whole}",
        ),
        (
            "accuracy, all alike",
            f"{percent(means['accuracy_common'])} mean, {percent(means['accuracy_common_worst'])} worst device{whole}",
        ),
        ("bytes of a device", f"{size(sizes[0])} sent, {size(sizes[1])} received"),
        ("that is in a day", size(day_bytes(outcome)) + (", the start included" if len(outcome.at_s) == 1 else "")),
        ("age of information", "-" if means["age_s"] is None else span(means["age_s"]) + whole),
        ("took here", f"{span(outcome.wall_s)} with {outcome.backend or 'no backend'}; "
                      f"{outcome.requests:,} sums in {outcome.calls:,} calls"),
    ]  # fmt: skip


def away(outcome: Outcome) -> str:
    """Of how many devices accuracy and age are, where some are away at the end; else ""."""
    there, nodes = outcome.there(), len(outcome.nodes)
    return "" if there == nodes else f"{there:,} of {nodes:,} devices; {nodes - there:,} away"


def day_bytes(outcome: Outcome) -> float:
    """Sent and received by a device in a day, as between the first examination and the last.

    What a start costs (presence, first models) comes once, not every so many seconds, so it is left out; a run with one
    examination has nothing but its whole. 0 before the first.
    """
    if not outcome.at_s:
        return 0.0
    counts = [sum(outcome.mean(key, at) or 0.0 for key in ("bytes_sent", "bytes_received")) for at in (0, -1)]
    if len(outcome.at_s) == 1:
        return counts[0] * DAY_S / outcome.at_s[0]
    return max(0.0, counts[1] - counts[0]) * DAY_S / (outcome.at_s[-1] - outcome.at_s[0])


def rows(outcome: Outcome) -> list[list[str]]:
    """Cells by device, as HEADS; of a large swarm the devices that do worst."""
    return [_row(node) for node in shown(outcome)]


def shown(outcome: Outcome) -> list[NodeOutcome]:
    """The devices that a table has room for, in their order."""
    if len(outcome.nodes) <= SHOWN:
        return list(outcome.nodes)
    worst = sorted(outcome.nodes, key=lambda node: (node.accuracy[-1] is None, node.accuracy[-1], node.name))[:SHOWN]
    return sorted(worst, key=lambda node: node.name)


def left_out(outcome: Outcome) -> str:
    """A line about the devices that the table has no room for; "" when it has."""
    more = len(outcome.nodes) - SHOWN
    return f"the {SHOWN} devices that do worst; {more:,} more in {JSON}" if more > 0 else ""


def _row(node: NodeOutcome) -> list[str]:
    most = sorted(node.classes.items(), key=lambda item: (-item[1], item[0]))[:3]
    return [
        node.name,
        node.board or "-",
        f"{node.samples:,}",
        " ".join(label[:10] for label, _ in most) or "-",
        AWAY if node.accuracy[-1] is None else percent(node.accuracy[-1]),
        percent(node.accuracy_common[-1]),
        size(node.bytes_sent[-1]),
        size(node.bytes_received[-1]),
        "-" if node.age_s[-1] is None else span(node.age_s[-1]),
        f"{node.rounds[-1]:,}",
    ]


def markdown(outcome: Outcome, pictures: Sequence[str]) -> str:
    """report.md."""
    cells = rows(outcome)
    lines = [f"# {title(outcome)}", ""]
    lines += [f"- {name}: {value}" for name, value in headlines(outcome)]
    lines += [f"- note: {note}" for note in outcome.notes]
    lines += ["", f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    if left_out(outcome):
        lines += ["", left_out(outcome)]
    lines += [
        "",
        "Own mix: with the classes in the proportions in which the device sees them; all alike: as they are in the "
        "examination, samples that nobody learnt from. A device that is away at the end counts in neither, and its "
        "rounds are those it last had. Bytes are those of whole MQTT packets. Age: since a peer was as "
        "this device knows it, mean over the time since the examination before.",
    ]
    for name in pictures:
        lines += ["", f"![{name.removesuffix('.png')}]({name})"]
    lines += ["", "```json", json.dumps(outcome.scenario, indent=1), "```"]
    return "\n".join(lines) + "\n"


def write(outcome: Outcome, folder: Path, pictures: bool = True) -> list[Path]:
    """report.json, report.md and the pictures in `folder`. Returns what was written.

    Raises NoPicture, after the two reports are written, when pictures cannot be drawn; StateError: nothing can be.
    """
    names = PICTURES if pictures else ()
    _write(folder / JSON, json.dumps(outcome.plain(), indent=1) + "\n")
    _write(folder / MARKDOWN, markdown(outcome, names))
    drawn = [folder / JSON, folder / MARKDOWN]
    if pictures:
        for name, draw in zip(PICTURES, (_accuracy, _bytes, _age, _devices), strict=True):
            figure = canvas(SIZE_INCHES)
            draw(figure.subplots(), outcome)
            drawn.append(saved(figure, folder / name))
    return drawn


def _write(path: Path, text: str) -> None:
    """Whole or not at all: on a full disk what was there stays."""
    try:
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StateError(fault_text("write the report to", path, error)) from None


def percent(part: float | None) -> str:
    """0.8731 as 87.3 %."""
    return "-" if part is None else f"{100 * part:.1f} %"


def size(count: float) -> str:
    """Bytes with a unit of a thousand, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} TB"


def span(seconds: float) -> str:
    """Seconds, minutes, hours or days, two units at most."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{seconds:.0f} s" if seconds < 600 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


# ---- pictures --------------------------------------------------------------------------------------------------------


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
    for at_s, until_s, text in happenings(outcome):
        if until_s > at_s:
            axes.axvspan(at_s / unit_s, until_s / unit_s, color="#888888", alpha=0.15, linewidth=0)
        axes.axvline(at_s / unit_s, color="#555555", linewidth=0.9, linestyle=":")
        axes.text(at_s / unit_s, 1.0, f" {text}", transform=axes.get_xaxis_transform(), fontsize=8, rotation=90,
                  va="top", ha="left", color="#333333",
                  bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5})  # fmt: skip
    tidy(axes)


def _keyed(axes: Axes, text: str = "  (line: mean; bands: all devices, and the middle four fifths of them)") -> None:
    """The key below the picture, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        labels[-1] += text
        axes.figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False, fontsize=9)


def happenings(outcome: Outcome) -> Iterator[tuple[float, float, str]]:
    """Start, end and words of each event of the scenario. Partitions end when all are healed, whatever they said."""
    healed = [event["at_s"] for event in outcome.scenario["event"] if event["kind"] == "heal"]
    for event in outcome.scenario["event"]:
        names = ", ".join(event["nodes"][:3]) + (", ..." if len(event["nodes"]) > 3 else "")
        text = f"{event['kind'].replace('_', ' ')} {names}".strip()
        until_s = event["at_s"] + event["for_s"]
        if event["kind"] == "partition":
            ends = [at_s for at_s in healed if at_s > event["at_s"]]
            until_s = min([*ends, until_s] if event["for_s"] else ends or [outcome.scenario["swarm"]["duration_s"]])
        yield event["at_s"], until_s, text


def _time(outcome: Outcome) -> tuple[NDArray[np.float64], float, str]:
    """Instants, and the unit to draw them in."""
    end_s = float(outcome.scenario["swarm"]["duration_s"])
    unit_s, unit = (1.0, "seconds") if end_s <= 900 else (60.0, "minutes") if end_s <= 21_600 else (3600.0, "hours")
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
    _spread(axes, at, ages, BLUE, "mean over time" if last is None else f"mean over time, at last {span(last)}")
    axes.set_ylim(bottom=0)
    _keyed(axes)


def _devices(axes: Axes, outcome: Outcome) -> None:
    nodes = sorted(shown(outcome), key=lambda node: _last(node, "accuracy_common", -1.0))
    places = np.arange(len(nodes))
    own, common = (np.array([100 * _last(node, key) for node in nodes]) for key in ("accuracy", "accuracy_common"))
    there = np.isfinite(own)
    axes.hlines(places[there], own[there], common[there], color="#bbbbbb", linewidth=2, zorder=1)
    axes.scatter(own[there], places[there], s=60, color=BLUE, label="own mix", zorder=2)
    axes.scatter(common[there], places[there], s=60, color=ORANGE, label="all classes alike", zorder=2)
    least = max(-1.0, min(90.0, *own[there], *common[there]) - 5) if there.any() else -1.0
    for at in places[~there]:
        axes.text(least + 0.02 * (101 - least), at, AWAY, fontsize=9, va="center", style="italic", color="#555555")
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


def read(path: Path) -> Outcome:
    """The outcome in a report.json. Raises DataError: it is none."""
    try:
        return from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a report of a simulated run ({str(error)[:80]})") from None
