"""`edgeswarm why`: the node's own account of what it sent, held back or muted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.sentences import sentence
from edgeswarm.errors import StateError

if TYPE_CHECKING:
    from edgeswarm.agent.ledger import Entry

OUTCOMES = (
    "sent", "held", "answered", "muted", "heard", "skipped", "ignored", "refused", "dropped", "given_up", "paused",
    "resumed",
)  # fmt: skip
DECIDING = frozenset({"prototypes", "skipped", "rows_sent"})
"""Notes of methods that decide what they send or heed."""
_COLOURS = {"sent": "green", "answered": "green", "muted": "yellow", "ignored": "yellow"}
_COLOURS |= dict.fromkeys(("refused", "dropped"), "red")


@click.command()
@options.config
@options.state
@click.option(
    "--last",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Show this many, the newest last.",
)
@click.option("--peer", metavar="NAME", default="", help="Only decisions about this peer.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only decisions that ended so.")
@options.as_json
@options.common
def command(
    config_file: Path | None, state_folder: Path | None, count: int, peer: str, outcome: str | None, json_wanted: bool
) -> None:
    """Explain what this node sent, held back or muted, each with the numbers it rests on.

    Reads the ledger in the agent's state folder, written whenever the state is saved; works whether or not the agent
    runs. The last line sums up all decisions that are kept and match. Methods that tell their model every round (d_psgd
    and its kin) decide nothing: for them `edgeswarm status` shows rounds and ages.
    """
    from edgeswarm.agent.ledger import Ledger

    folder = options.state_folder_of(state_folder, config_file)
    ledger = Ledger(folder)
    entries = ledger.read(peer=peer, outcome=outcome or "")
    if ledger.fault is not None:
        raise StateError(ledger.fault)
    summary = summed_up(entries)
    shown = entries[:count][::-1]
    if json_wanted:
        output.emit({"decisions": [as_data(entry) for entry in shown], "summary": summary})
        return
    if not entries:
        output.say(f"no decisions in {folder}{' match' if peer or outcome else _why_none(folder)}")
        return
    for entry in shown:
        click.echo(f"{readable.moment(entry.wall_s)}  {_line(entry)}")
    click.echo()
    click.echo(summary_line(summary))


def _why_none(folder: Path) -> str:
    """Some methods tell their model every round, whatever comes of it: there is nothing to wait for."""
    from edgeswarm.cli.status import read_status

    try:
        notes = read_status(folder).get("notes") or {}
    except StateError:
        notes = {}
    if "rounds" in notes and not notes.keys() & DECIDING:
        return (
            ": the method of this node does the same every round, train and tell its model, and decides nothing; "
            "`edgeswarm status` shows its rounds and the ages of what it heard"
        )
    return " yet: the first come when the state is saved"


def as_data(entry: Entry) -> dict[str, Any]:
    """A decision for programs; `sentence` is for people and may change, the rest may not."""
    decision = entry.decision
    return {
        "at_unix": entry.wall_s,
        "epoch": entry.epoch,
        "kind": decision.kind,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "peer": decision.peer,
        "facts": dict(decision.facts),
        "sentence": _words(entry),
    }


def summed_up(entries: Sequence[Entry]) -> dict[str, Any]:
    """How many by outcome, the held ones by reason, bytes saved, and the time they cover."""
    held = [entry.decision for entry in entries if entry.decision.outcome == "held"]
    return {
        "decisions": len(entries),
        "since_unix": min((entry.wall_s for entry in entries), default=None),
        "outcomes": dict(Counter(entry.decision.outcome for entry in entries)),
        "held_by_reason": dict(Counter(decision.reason for decision in held)),
        "bytes_saved": sum(decision.facts.get("bytes_saved", 0.0) for decision in held),
    }


def summary_line(summary: dict[str, Any]) -> str:
    """The totals in one line."""
    outcomes, reasons = summary["outcomes"], summary["held_by_reason"]
    said = []
    for outcome, words in (("sent", "sent"), ("held", "held back"), ("answered", "answered"), ("muted", "muted")):
        if number := outcomes.get(outcome):
            detail = ""
            if outcome == "held":
                listed = sorted(reasons.items(), key=lambda item: -item[1])
                detail = f" ({', '.join(f'{reason} {readable.count(times)}' for reason, times in listed)})"
            said.append(f"{readable.count(number)} {words}{detail}")
    saved = f"; about {readable.size(summary['bytes_saved'])} saved" if summary["bytes_saved"] else ""
    since = readable.moment(summary["since_unix"])
    total = ", ".join(said) or f"{summary['decisions']} decisions"
    return f"since {since}: {total}{saved}"


def _words(entry: Entry) -> str:
    decision = entry.decision
    return sentence(decision.kind, decision.outcome, decision.reason, decision.facts, decision.peer)


def _line(entry: Entry) -> str:
    colour = _COLOURS.get(entry.decision.outcome)
    return click.style(_words(entry), fg=colour) if colour else _words(entry)
