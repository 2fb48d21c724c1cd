"""`edgeswarm run`: the agent itself, in the foreground, as a service manager wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeswarm.cli import options

_FLAGS = (
    ("--node", "node", "NAME", "This node's name, unique at the site."),
    ("--site", "site", "NAME", "Nodes of one site learn together."),
    ("--task", "task", "NAME", "What is learnt."),
    ("--broker", "broker.url", "URL", "mqtts://host[:8883] or mqtt://host[:1883]; several with commas."),
    ("--state", "state.folder", "FOLDER", "Folder of this agent alone."),
)
"""Flag, the setting it overrides, what its value is called, help."""


def _overriding(function: Any) -> Any:
    for flag, key, metavar, text in reversed(_FLAGS):
        function = click.option(flag, key.replace(".", "_"), metavar=metavar, help=text)(function)
    return function


def overrides_from(pairs: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` texts of `--set` by key. Raises click.BadParameter for one without a key or an equals sign."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{pair!r}: write KEY=VALUE, for example report.every_s=10", param_hint="--set")
        found[key.strip()] = value.strip()
    return found


@click.command()
@options.config
@_overriding
@click.option(
    "--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Override any setting, for example report.every_s=10."
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Words for people, or one JSON object a line.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every message, not only events.")
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    config_file: Path | None,
    pairs: tuple[str, ...],
    log_format: str,
    verbose: bool,
    **flags: str | None,
) -> None:
    """Learn on this device and share with the others until stopped (Ctrl-C or SIGTERM; state is saved first).

    Learning does not need the broker: without it the agent goes on alone and keeps trying to connect.
    """
    import asyncio
    import logging

    chosen: dict[str, Any] = overrides_from(pairs)
    chosen |= {key: value for _, key, _, _ in _FLAGS if (value := flags[key.replace(".", "_")]) is not None}
    settings = options.load_config(config_file, chosen, complete=True)

    from edgeswarm.agent import log
    from edgeswarm.agent.service import serve

    quiet = ctx.meta.get(options.QUIET, False)
    log.set_up(log_format, logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    ctx.exit(asyncio.run(serve(settings)))
