"""A simulated run for people: a table for the terminal, report.md and report.json. Pictures: `sim.report_picture`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgeswarm.agent.faults import fault_text
from edgeswarm.errors import StateError
from edgeswarm.readable import brief, counted, percent, size
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.traffic import DAY_S
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import wants_neighbours
from edgeswarm.whole_file import whole

JSON, MARKDOWN = "report.json", "report.md"
PICTURES = ("accuracy.png", "bytes.png", "age.png", "devices.png")
SHOWN = 24
"""Most devices in the table and with a name in the picture; of a larger swarm, those that do worst."""
AWAY = "away"
HEADS = ("device", "board", "rows", "sees most", "own mix", "all alike", "sent", "received", "age", "rounds")
RIGHT = ("rows", *HEADS[4:])


# ---- words -----------------------------------------------------------------------------------------------------------


def title(outcome: Outcome) -> str:
    """The run in one line. A method without neighbours has no graph: everybody hears everybody."""
    swarm, graph = outcome.scenario["swarm"], outcome.scenario["graph"]
    words = f", graph {graph['kind']}" if wants_neighbours(STRATEGIES[outcome.method]()) else ""
    return (
        f"{outcome.method} on {outcome.data}, {counted(swarm['nodes'], 'device')}{words}, "
        f"{brief(swarm['duration_s'])}, seed {swarm['seed']}"
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
        *_in_a_day(outcome),
        ("age of information", "-" if means["age_s"] is None else brief(means["age_s"]) + whole),
        ("took here", f"{brief(outcome.wall_s)} with {outcome.backend or 'no backend'}; "
                      f"{outcome.requests:,} sums in {outcome.calls:,} calls"),
    ]  # fmt: skip


def _in_a_day(outcome: Outcome) -> list[tuple[str, str]]:
    """Only of what is sent by the clock, in rounds: what is sent when there is news says nothing of another time."""
    rounds = [0.0, *(outcome.mean("rounds", at) or 0.0 for at in range(len(outcome.at_s)))]
    once = len(outcome.at_s) == 1
    if rounds[-1] <= rounds[0 if once else 1]:
        return []
    return [("that is in a day", size(day_bytes(outcome)) + (", the start included" if once else ""))]


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
        percent(node.accuracy[-1]) if node.there[-1] else AWAY,
        percent(node.accuracy_common[-1]),
        size(node.bytes_sent[-1]),
        size(node.bytes_received[-1]),
        brief(node.age_s[-1]),
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


def write(outcome: Outcome, folder: Path, pictures: Sequence[str] = PICTURES) -> list[Path]:
    """report.json, and report.md with `pictures` beside it, in `folder`. Returns both. Raises StateError."""
    _write(folder / JSON, json.dumps(outcome.plain(), indent=1) + "\n")
    _write(folder / MARKDOWN, markdown(outcome, pictures))
    return [folder / JSON, folder / MARKDOWN]


def _write(path: Path, text: str) -> None:
    """Whole or not at all: on a full disk what was there stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StateError(fault_text("write the report to", path, error)) from None
