"""`edgeswarm config`: the settings in force with where each came from, a check of a file, a file to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgeswarm.cli import groups, options, output


@click.group(name="config", cls=groups.Group, subcommand_metavar="VERB [ARGS]...")
@options.common
def command() -> None:
    """Show, check or begin a config file.

    The first place that has a value wins: command line, environment (EDGESWARM_NODE, EDGESWARM_BROKER_URL, ...),
    ./edgeswarm.toml, ~/.config/edgeswarm/config.toml, /etc/edgeswarm/config.toml, the built-in value.
    """


@command.command(short_help="The settings in force.")
@options.config
@click.option("--origin", is_flag=True, help="Say where each value came from: file and line, variable, built-in.")
@options.as_json
@options.common
def show(config_file: Path | None, origin: bool, json_wanted: bool) -> None:
    """Show the settings in force. Passwords are never among them: the config names files that hold them."""
    import os

    from edgeswarm.agent.config import load, redacted, rows

    settings, origins = load(config_file, {}, os.environ, complete=False)
    listed = rows(settings, origins)
    if json_wanted:
        data: dict[str, Any] = {"config": redacted(settings), "files": [str(path) for path in origins.files]}
        if origin:
            data["origin"] = {key: str(where) for key, _, where in listed}
        output.emit(data)
        return
    heads, right = ["setting", "value"], ""
    cells = [[key, toml_value(value)] for key, value, _ in listed]
    if origin:
        heads.append("from")
        cells = [[*row, str(where)] for row, (_, _, where) in zip(cells, listed, strict=True)]
    output.table(heads, cells, right)
    for name in origins.unused:
        output.say(f"note: the environment variable {name} sets nothing")


@command.command(short_help="Say whether a file would be accepted.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@options.as_json
@options.common
@click.pass_context
def check(ctx: click.Context, file: Path, json_wanted: bool) -> None:
    """Say whether an agent would accept FILE; a wrong key or value is named with its line and the nearest right one.

    Ends with 0 when the file is good, with 2 when it is not.
    """
    import os

    from edgeswarm.agent.config import load
    from edgeswarm.errors import ConfigError

    try:
        settings, _ = load(file, {}, os.environ)
        options.mqtt_settings(settings)  # certificates and password file too
    except ConfigError as error:
        if not json_wanted:
            raise
        output.emit({"file": str(file), "ok": False, "error": str(error)})
        ctx.exit(error.exit_code)
    if json_wanted:
        output.emit({"file": str(file), "ok": True, "error": None})
    else:
        method, task = settings.strategy.name, settings.task
        click.echo(f"{file}: good; node {settings.node} at site {settings.site}, {method} on task {task}")


@command.command(short_help="Print a commented file to begin with.")
@options.common
def init() -> None:
    """Print a commented config file to begin with: `edgeswarm config init > edgeswarm.toml`.

    What a new node must say is set to an example; everything else stands commented out with its built-in value.
    """
    import socket

    from edgeswarm.agent.names import usable_name

    click.echo(starter(usable_name(socket.gethostname()) or "node-1"), nl=False)


_EXAMPLES: Mapping[str, Any] = {
    "broker.url": ("mqtt://localhost:1883",),
    "source.kind": "csv",
    "source.path": "samples.csv",
}
"""What an agent cannot do without, set in the starter file; `node` is filled in from the host's name."""


def starter(node: str) -> str:
    """A config file for `node` that `load` accepts, every setting in it explained."""
    from edgeswarm.agent.layers import BY_SECTION, TOP
    from edgeswarm.strategies import STRATEGIES

    lines = ["# edgeswarm: settings of one agent. Check it with: edgeswarm config check FILE", ""]
    for name, setting in TOP.items():
        lines += setting_lines(name, setting, node if name == "node" else None)
    for section, settings in BY_SECTION.items():
        lines += ["", f"[{section}]"]
        for name, setting in settings.items():
            lines += setting_lines(name, setting, _EXAMPLES.get(f"{section}.{name}"))
        if section == "strategy":
            lines += _knobs(settings["name"].default, STRATEGIES)
    return "\n".join(lines) + "\n"


def _knobs(method: str, strategies: Mapping[str, type]) -> list[str]:
    from edgeswarm.agent.config import SET_BY_THE_AGENT
    from edgeswarm.agent.fields import settings_of

    knobs = [setting for name, setting in settings_of(strategies[method]).items() if name not in SET_BY_THE_AGENT]
    return [f"# Knobs of {method}:", *(line for knob in knobs for line in setting_lines(knob.name, knob, None))]


def setting_lines(name: str, setting: Any, example: Any) -> list[str]:
    """A line of explanation where there is one, and the setting itself: set to `example`, else commented out."""
    import dataclasses

    help_text, unit = setting.metadata.get("help", ""), setting.metadata.get("unit", "")
    explained = [f"# {help_text}{f' [{unit}]' if unit else ''}"] if help_text else []
    if example is not None:
        return [*explained, f"{name} = {toml_value(example)}"]
    default = "" if setting.default is dataclasses.MISSING else toml_value(setting.default)
    return [*explained, f"# {name} = {default}"]


def toml_value(value: Any) -> str:
    """`value` as TOML spells it; None, which TOML has not, as nothing."""
    import json

    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return str(value)
