"""`edgeswarm profiles`: the classes of boards this version knows, and what each may do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgeswarm import readable
from edgeswarm.cli import groups, options, output


@click.group(name="profiles", cls=groups.Group, subcommand_metavar="VERB [ARGS]...")
@options.common
def command() -> None:
    """List or show firmware profiles: what a class of boards prefers and how much it may take.

    The agent takes the one that fits its board; `[compute] profile` in the configuration names another.
    """


@command.command("list", short_help="Every profile, and the one of this board.")
@options.as_json
@options.common
def list_profiles(json_wanted: bool) -> None:
    """List every profile. The one of this board is marked with *, and why it is that one is said below."""
    from edgeswarm.agent.profile import detect, profiles

    here, reason = detect()
    if json_wanted:
        rows = [{"id": each.id, "title": each.title, "tier": each.tier, "verified": each.verified, "hash": each.hash}
                for each in profiles()]  # fmt: skip
        output.emit({"profiles": rows, "here": here.id, "reason": reason})
        return
    cells = [
        [
            f"{'*' if each.id == here.id else ' '} {each.id}",
            str(each.tier),
            each.runtime.backends[0],
            readable.count(each.training.max_params),
            str(each.training.batch),
            each.verified or "no",
            each.title,
        ]
        for each in profiles()
    ]
    output.table(
        ["  profile", "tier", "prefers", "parameters", "batch", "tried", "board"], cells, "tier parameters batch"
    )
    output.say(f"this board: {here.id} ({reason}); tried: on a real one, and when")


@command.command("show", short_help="Every key of one profile.")
@click.argument("name", metavar="[NAME|FILE.toml]", default="auto")
@options.as_json
@options.common
def show(name: str, json_wanted: bool) -> None:
    """Show every key of a profile, and what it means on this board. Without a name: that of this board.

    The keys are explained in firmware_profiles/README.md.
    """
    from edgeswarm.agent.board import board
    from edgeswarm.agent.profile import budget, choose

    found, reason = choose(name, Path("/"))
    plain: dict[str, Any] = dataclasses.asdict(found)
    allowed = dataclasses.asdict(budget(found, board()))
    if json_wanted:
        output.emit({"profile": plain, "reason": reason, "budget": allowed})
        return
    listed: list[tuple[str, str]] = []
    for key, value in plain.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        listed += [(f"{key}.{part}".rstrip("."), _shown(each)) for part, each in inner]
    output.pairs(listed)
    words = [
        f"{allowed['threads']} thread{'s' * (allowed['threads'] != 1)}",
        f"{readable.size(allowed['memory_bytes'])} of memory ({allowed['memory_reason']})"
        if allowed["memory_bytes"] is not None
        else "memory unknown",
        f"at most {readable.count(allowed['max_params'])} parameters",
    ]
    output.say(f"on this board: {', '.join(words)}")


def _shown(value: Any) -> str:
    """A value in one line; what does not apply is a dash."""
    if isinstance(value, dict):
        return " ".join(f"{name}={inner}" for name, inner in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split()) or "-"
