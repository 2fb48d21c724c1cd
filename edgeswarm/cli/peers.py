"""`edgeswarm peers`: who is there. A visitor without a name or a session asks the broker and leaves again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.status import knows_alone
from edgeswarm.errors import EXIT_TIMED_OUT

if TYPE_CHECKING:
    from edgeswarm.cli.visitor import Seen

_COLOURS = {"ready": "green", "sleeping": "cyan", "disconnected": "yellow", "lost": "red"}
EVERY_SITE = "all"


@click.command()
@options.config
@click.option(
    "--broker",
    metavar="URL",
    help="Ask this broker instead of the config's: mqtt://host[:1883] or mqtts://host[:8883].",
)
@click.option("--site", metavar="NAME", help="Only this site; 'all' for every one.  [default: the config's]")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.2),
    default=3.0,
    show_default=True,
    help="How long to wait for the broker, and then for reports.",
)
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    config_file: Path | None,
    broker: str | None,
    site: str | None,
    timeout_s: float,
    json_wanted: bool,
) -> None:
    """List every node at the site, as the broker knows them.

    State, and what nodes say of themselves, is there at once; links and ages come with each node's next report, which
    may take longer than the timeout (30 s between reports, unless the config says otherwise). Ends with 3 when no
    broker is reached, 4 when it refuses, 5 when no node was heard of.
    """
    import asyncio
    import dataclasses

    from edgeswarm.cli.visitor import visit

    overrides = {"broker.url": broker, "site": None if site == EVERY_SITE else site}
    config = options.load_config(config_file, overrides)
    if not config.broker.url:
        raise click.UsageError("which broker? Give --broker mqtt://host, or --config FILE")
    settings = dataclasses.replace(options.mqtt_settings(config), node="")
    scope = "+" if site == EVERY_SITE else config.site
    seen = asyncio.run(visit(settings, scope, timeout_s, output.say))
    if json_wanted:
        output.emit({"site": None if scope == "+" else scope, "nodes": [as_data(node) for node in seen]})
    elif seen:
        print_nodes(seen, with_site=scope == "+")
    silent = sum(node.state == "ready" and not node.reported for node in seen)
    if silent:
        output.say(f"{silent} of {len(seen)} did not report within {timeout_s:g} s; a longer --timeout waits for them")
    if not seen:
        where = "any site" if scope == "+" else f"site {scope}"
        output.say(f"no node of {where} was heard of within {timeout_s:g} s")
        ctx.exit(EXIT_TIMED_OUT)


def as_data(seen: Seen) -> dict[str, Any]:
    """A node for programs. notes: what it last said of itself; links: only where a report was heard in time."""
    return {
        "site": seen.site,
        "node": seen.node,
        "state": seen.state,
        "epoch": seen.epoch,
        "notes": seen.notes,
        "links": seen.links,
        "oldest_age_s": _oldest_age_s(seen),
        "muted": _muted(seen),
    }


def print_nodes(nodes: list[Seen], with_site: bool) -> None:
    """One line for each node."""
    said = [_apart(seen.notes) for seen in nodes]
    columns = [(head, name, shown) for head, name, shown in _NOTES if any(name in notes for notes in said)]
    heads = ["node", "state", "start", *(head for head, _, _ in columns), "oldest", "muted"]
    rows = []
    for seen, notes in zip(nodes, said, strict=True):
        oldest_s = _oldest_age_s(seen)
        rows.append([
            seen.node,
            click.style(seen.state, fg=_COLOURS.get(seen.state)),
            str(seen.epoch),
            *(shown(notes.get(name, math.nan)) for _, name, shown in columns),
            "-" if oldest_s is None else readable.span(oldest_s),
            ", ".join(_muted(seen)),
        ])  # fmt: skip
    if with_site:
        heads = ["site", *heads]
        rows = [[seen.site, *row] for seen, row in zip(nodes, rows, strict=True)]
    output.table(heads, rows, "start samples accuracy alone prototypes rounds behind sent oldest")


def _apart(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Without the accuracy alone where the method has no answers of its own beside those with the swarm, and without
    an age, which its presence may still tell, where it hears nobody any more."""
    apart = knows_alone(notes, notes.get("accuracy_swarm"), notes.get("accuracy_alone"))
    without = set() if apart else {"accuracy_alone"}
    shown = {name: value for name, value in notes.items() if name not in without}
    return shown | ({"staleness_rounds": math.nan} if notes.get("neighbours_heard") == 0 else {})


def _number(form: Callable[[float], str]) -> Callable[[Any], str]:
    return lambda value: form(float(value) if isinstance(value, (int, float)) else math.nan)


_NOTES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("strategy", "strategy", lambda value: value if isinstance(value, str) else "-"),
    ("samples", "samples", _number(readable.count)),
    ("accuracy", "accuracy_swarm", _number(readable.percent)),
    ("alone", "accuracy_alone", _number(readable.percent)),
    ("prototypes", "prototypes", _number(readable.count)),
    ("rounds", "rounds", _number(readable.count)),
    ("behind", "staleness_rounds", _number(readable.number)),
    ("sent", "bytes_sent", _number(readable.size)),
)
"""Head, note and form of what a node says of itself; columns that nobody has a number for are left out.
behind: rounds that what it knows of its slowest neighbour is old."""


def _oldest_age_s(seen: Seen) -> float | None:
    ages = [link["age_s"] for link in seen.links.values() if math.isfinite(link.get("age_s", math.nan))]
    return max(ages, default=None)


def _muted(seen: Seen) -> list[str]:
    return sorted(peer for peer, link in seen.links.items() if link.get("muted"))
