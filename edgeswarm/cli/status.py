"""`edgeswarm status`: how the agent on this device is doing, from the file it writes at every report."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgeswarm import readable
from edgeswarm.agent import status_file
from edgeswarm.cli import options, output
from edgeswarm.errors import EXIT_NOT_CONNECTED, StateError

STALE_REPORTS = 4
"""A report this many intervals old, from a process that lives, is worth a word."""
_LINK = (
    ("age", "age_s", readable.span),
    ("mean", "age_mean_s", readable.span),
    ("rounds", "staleness_rounds", readable.number),
    ("weight", "weight", readable.number),
    ("prototypes", "prototypes", readable.count),
    ("updates", "updates", readable.count),
)
"""Head, note and form of what a link may tell. rounds: of this node, that what it knows of the peer is old."""
METHOD = (
    "loss", "mu", "mix", "heads_heard", "skipped", "skipped_weight", "teachers", "rows_sent", "rows_taught",
)  # fmt: skip
"""Notes of methods that a person may want to see."""
_TROUBLE = ("refused_", "dropped_", "inbox_full", "oversize", "faults", "garbled", "duplicate_name", "left_out",
            "out_of_memory", "model_error")  # fmt: skip
"""Notes that begin so count what was thrown away or went wrong."""


@click.command()
@options.config
@options.state
@click.option(
    "--watch", "every_s", metavar="SECONDS", type=click.FloatRange(min=0.2), help="Show it again and again, this often."
)
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, state_folder: Path | None, every_s: float | None, json_wanted: bool
) -> None:
    """Show how the agent on this device is doing.

    Reads the status file in the agent's state folder; needs no broker. Ends with 0 when the agent runs and is
    connected, with 3 when it is not (what it last reported is shown all the same).
    """
    folder = options.state_folder_of(state_folder, config_file)
    while True:
        report = judged(read_status(folder), time.time())
        if every_s is not None and not json_wanted:
            click.clear()
        if json_wanted:
            output.emit(report, one_line=every_s is not None)
        else:
            print_status(report)
        if every_s is None:
            ctx.exit(0 if report["running"] and report["link"]["up"] else EXIT_NOT_CONNECTED)
        time.sleep(every_s)


def read_status(folder: Path) -> dict[str, Any]:
    """What the agent last wrote to `folder`. Raises StateError when there is nothing, or nothing usable."""
    path = folder / status_file.NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        error = StateError(f"no agent has run in {folder} yet: start one with `edgeswarm run`, or name another --state")
        error.exit_code = EXIT_NOT_CONNECTED
        raise error from None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None
    if not isinstance(report, dict):
        raise StateError(f"{path} is not a status report")
    return report


def judged(report: dict[str, Any], now_unix: float) -> dict[str, Any]:
    """`report` with all its keys present, and with `running`, `age_s` and `stale` worked out."""
    filled: dict[str, Any] = {
        "node": "", "site": "", "task": "", "version": "", "epoch": 0, "pid": 0, "at_unix": 0.0, "uptime_s": 0.0,
        "stopped": False, "disk_fault": "", "unknown_label": "", "report_every_s": 30.0, "notes": {}, "links": {},
    } | report  # fmt: skip
    filled["link"] = {"up": False, "detail": ""} | dict(report.get("link") or {})
    age_s = now_unix - float(filled["at_unix"])
    running = not filled["stopped"] and process_lives(int(filled["pid"]))
    stale = running and age_s > STALE_REPORTS * float(filled["report_every_s"])
    return filled | {"age_s": age_s, "running": running, "stale": stale}


def process_lives(pid: int) -> bool:
    """True if a process of this number exists, whoever owns it."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def print_status(report: dict[str, Any]) -> None:
    """The report for people."""
    notes = report["notes"]
    name = click.style(report["node"], bold=True)
    click.echo(f"{name} at site {report['site']}, task {report['task']}: {_life(report)}")
    click.echo()
    lines = [
        ("link", _link(report["link"])),
        ("accuracy", _accuracy(notes)),
        ("learnt", _learnt(notes)),
        ("traffic", f"{_size(notes, 'bytes_sent')} sent, {_size(notes, 'bytes_received')} received"),
    ]
    if said := _said(notes):
        lines.insert(-1, ("said", said))
    if heard := _heard(notes):
        lines.insert(-1, ("heard", heard))
    if method := _method(notes):
        lines.insert(-1, ("method", method))
    lines += [("left out", click.style(words, fg="yellow")) for words in left_out(notes, report["unknown_label"])]
    if trouble := _trouble(notes):
        lines.append(("dropped", trouble))
    if report["disk_fault"]:
        lines.append(("disk", click.style(str(report["disk_fault"]), fg="red")))
    output.pairs(lines)
    if report["links"]:
        click.echo()
        print_links(report["links"])


def print_links(links: dict[str, dict[str, Any]]) -> None:
    """One line for each peer that has been heard; columns that no peer has a number for are left out."""
    columns = [(head, name, shown) for head, name, shown in _LINK if any(name in link for link in links.values())]
    rows = []
    for peer, link in sorted(links.items()):
        muted = click.style("muted", fg="yellow") if link.get("muted") else ""
        rows.append([peer, *(shown(_value(link, name)) for _, name, shown in columns), muted])
    heads = [head for head, _, _ in columns]
    output.table(["peer", *heads, ""], rows, " ".join(heads))


def _value(numbers: dict[str, Any], name: str) -> float:
    value = numbers.get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _count(numbers: dict[str, Any], name: str) -> str:
    return readable.count(_value(numbers, name))


def _counted(numbers: dict[str, Any], name: str) -> str:
    return readable.counted(_value(numbers, name), name.removesuffix("s"))


def _size(numbers: dict[str, Any], name: str) -> str:
    return readable.size(_value(numbers, name))


def _life(report: dict[str, Any]) -> str:
    reported = f"reported {readable.span(report['age_s'])} ago"
    if report["stopped"]:
        return f"stopped {readable.span(report['age_s'])} ago, in good order"
    if not report["running"]:
        return click.style(f"not running (process {report['pid']} is gone)", fg="red") + f", {reported}"
    up = f"up {readable.span(report['uptime_s'] + max(report['age_s'], 0.0))}"
    if report["stale"]:
        return f"{up}, {click.style(reported, fg='yellow')} (is it stuck?)"
    return f"{up}, {reported}"


def _link(link: dict[str, Any]) -> str:
    state = click.style("up", fg="green") if link["up"] else click.style("down", fg="red")
    return f"{state}, {link['detail']}" if link["detail"] else state


def knows_alone(notes: Mapping[str, Any], swarm: float | None, alone: float | None) -> bool:
    """Whether the method has answers of its own beside those with the swarm; one that averages models has one model,
    and reports its accuracy twice."""
    return "prototypes" in notes or swarm != alone


def _accuracy(notes: dict[str, Any]) -> str:
    parts = []
    for suffix, words in (("", "on its own newest samples"), ("holdout", "on the held-out file")):
        swarm, alone = (
            _value(notes, f"holdout_{kind}" if suffix else f"accuracy_{kind}") for kind in ("swarm", "alone")
        )
        if math.isfinite(swarm) or math.isfinite(alone):
            apart = f" with the swarm, {readable.percent(alone)} alone" if knows_alone(notes, swarm, alone) else ""
            parts.append(f"{readable.percent(swarm)}{apart} ({words})")
    return "; ".join(parts) or "not known yet"


def _learnt(notes: dict[str, Any]) -> str:
    samples = _counted(notes, "samples")
    if "prototypes" in notes:
        return f"{samples} into {_counted(notes, 'prototypes')}"
    if "rounds" in notes:
        return f"{samples}, {_counted(notes, 'rounds')} of training ({_counted(notes, 'steps')})"
    return samples


def _said(notes: dict[str, Any]) -> str:
    if "sent" not in notes and "held" not in notes:
        return ""
    reasons = {name[5:]: value for name, value in notes.items() if name.startswith("held_") and value}
    detail = ", ".join(f"{reason} {readable.count(value)}" for reason, value in sorted(reasons.items()))
    return f"{readable.counted(_value(notes, 'sent'), 'time')}; held back {_count(notes, 'held')}" + (
        f" ({detail})" if detail else ""
    )


def _heard(notes: dict[str, Any]) -> str:
    if "neighbours_heard" not in notes:
        return ""
    of = f" of {_count(notes, 'neighbours')}" if "neighbours" in notes else ""
    last = _value(notes, "neighbours" if of else "neighbours_heard")
    text = f"{_count(notes, 'neighbours_heard')}{of} neighbour{'' if last == 1 else 's'}"
    oldest = _value(notes, "staleness_rounds")
    return (
        f"{text}, the oldest {readable.number(oldest)} round{'' if oldest == 1 else 's'} ago"
        if notes["neighbours_heard"]
        else text
    )


def _method(notes: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {readable.number(_value(notes, name))}" for name in METHOD if name in notes
    )


def left_out(notes: Mapping[str, Any], unknown_label: str = "") -> list[str]:
    """In words, own samples that cannot be learnt, and what to do. unknown_label: a label that the method does not
    know, "" where none is at hand."""
    found = []
    if count := notes.get("unknown_labels"):
        of = f" ({unknown_label!r}, for one)" if unknown_label else ""
        found.append(
            f"{readable.counted(count, 'sample')}: the method does not know their labels{of}; correct the labels, "
            "or give every node a model or public set that has them (edgeswarm model show FILE lists a model's)"
        )
    if count := notes.get("too_large_rows"):
        found.append(
            f"{readable.counted(count, 'sample')}: they hold numbers beyond a million; correct the sensor or its unit"
        )
    return found


def _trouble(notes: dict[str, Any]) -> str:
    counted = {name: value for name, value in notes.items() if value and name.startswith(_TROUBLE)}
    return ", ".join(f"{name} {readable.count(value)}" for name, value in sorted(counted.items()))
