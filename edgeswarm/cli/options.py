"""Options that several verbs share. Imported for every `--help`, so it imports click and nothing else of weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config
    from edgeswarm.transport.settings import MqttSettings

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

QUIET = "edgeswarm.quiet"
"""Key in the context's `meta` (shared by a verb and the group above it): no words on stderr except errors."""


def _set_colour(ctx: click.Context, param: click.Parameter, off: bool) -> None:
    import os

    if off or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = ctx.find_root().color = False


def _set_quiet(ctx: click.Context, param: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.meta[QUIET] = True


def print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    """Callback of `--version`: the installed version, and the Python it runs under (asked for in every bug report)."""
    if not wanted or ctx.resilient_parsing:
        return
    import platform

    from edgeswarm import __version__

    click.echo(f"edgeswarm {__version__}, Python {platform.python_version()}, {platform.machine()}")
    ctx.exit()


_COMMON = (
    click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet,
        help="Say nothing but errors on stderr.",
    ),
    click.option(
        "--no-color", is_flag=True, expose_value=False, callback=_set_colour,
        help="No colour; so does NO_COLOR=1.",
    ),
)  # fmt: skip


def common(function: F) -> F:
    """`-q` and `--no-color`, understood before and after the verb."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


def as_json(function: F) -> F:
    """`--json`, passed on as `json_wanted`."""
    return click.option("--json", "json_wanted", is_flag=True, help="One JSON object on stdout, for programs.")(
        function
    )


def config(function: F) -> F:
    """`--config FILE`, passed on as `config_file` (a Path or None)."""
    return click.option(
        "--config", "config_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
        help="Config file. Without it: ./edgeswarm.toml, then the user's, then the machine's.",
    )(function)  # fmt: skip


def state(function: F) -> F:
    """`--state FOLDER`, passed on as `state_folder` (a Path or None)."""
    return click.option(
        "--state", "state_folder", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path),
        help="State folder of the agent. Without it: the one the config names.",
    )(function)  # fmt: skip


def load_config(config_file: Path | None, overrides: dict[str, Any] | None = None, *, complete: bool = False) -> Config:
    """The config as the agent would see it. complete: refuse one that an agent cannot run with. Raises ConfigError."""
    import os

    from edgeswarm.agent.config import load

    return load(config_file, overrides or {}, os.environ, complete=complete)[0]


def state_folder_of(state_folder: Path | None, config_file: Path | None) -> Path:
    """The folder named by `--state`, else the one the config names. Raises ConfigError.

    A config is checked in full, which brings NumPy, only where that folder is not there.
    """
    if state_folder is not None and config_file is not None:
        raise click.UsageError("give --state or --config, not both")
    if state_folder is not None:
        return state_folder
    import os

    from edgeswarm.agent.config import state_folder as of_the_agent

    folder = of_the_agent(config_file, os.environ)
    try:
        there = folder.is_dir()
    except OSError:  # whoever reads it says why not
        there = True
    if not there:  # then whatever else is wrong with the config is worth a word
        load_config(config_file)
    return folder


def mqtt_settings(config: Config) -> MqttSettings:
    """How to reach the broker, exactly as the agent would. Raises ConfigError for an address we will not use."""
    from edgeswarm.agent.broker import mqtt_settings as of_the_agent

    settings = of_the_agent(config)
    settings.check()
    return settings
