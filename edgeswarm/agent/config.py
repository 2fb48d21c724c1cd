"""An agent's configuration from all the places it can stand in, each value with where it came from.

The first that has a value wins: command line, EDGESWARM_* environment, then the files: ./edgeswarm.toml (development),
$XDG_CONFIG_HOME/edgeswarm/config.toml, /etc/edgeswarm/config.toml; at last the built-in value. A file named with
`path` replaces all the other files. Every error is a ConfigError of one line that names file, line and key.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeswarm.agent.fields import Setting, checked, from_text, settings_of
from edgeswarm.agent.layers import (
    BY_SECTION,
    TOP,
    Layer,
    Origin,
    Text,
    fail,
    read_environ,
    read_file,
    read_overrides,
    setting_of,
)
from edgeswarm.agent.names import did_you_mean, nearest
from edgeswarm.agent.settings import (
    SECTIONS,
    BrokerConfig,
    ComputeConfig,
    Config,
    EncoderConfig,
    EvaluateConfig,
    GraphConfig,
    ModelConfig,
    PublicConfig,
    ReportConfig,
    SourceConfig,
    StateConfig,
    StrategyConfig,
)
from edgeswarm.errors import ConfigError

__all__ = [
    "BrokerConfig",
    "ComputeConfig",
    "Config",
    "EncoderConfig",
    "EvaluateConfig",
    "GraphConfig",
    "ModelConfig",
    "Origin",
    "Origins",
    "PublicConfig",
    "ReportConfig",
    "SourceConfig",
    "StateConfig",
    "StrategyConfig",
    "build_strategy",
    "load",
    "nearest",
    "redacted",
    "rows",
    "state_folder",
]

SET_BY_THE_AGENT = ("name", "schema", "card", "start", "topology", "public")
"""Fields of a strategy that are no knobs: what it is called, the fingerprint of this node's features, its model, whom
it hears, its public samples."""
NEEDED = (("card", "model", "trains a model"), ("public", "public", "learns from public samples"))
"""Attribute of a strategy that wants a file, the section that names it, and the words for why."""


@dataclass(frozen=True)
class Origins:
    """Where every value came from. files: those read, strongest first; unused: EDGESWARM_ variables nobody reads."""

    where: Mapping[str, Origin] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    unused: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Origin:
        """Origin of "node" or "broker.url"; built-in for what nobody has set."""
        return self.where.get(key, Origin("built-in"))


def load(
    path: Path | str | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    *,
    cwd: Path | None = None,
    strategies: Mapping[str, type] | None = None,
    complete: bool = True,
) -> tuple[Config, Origins]:
    """The settings in force and where each came from.

    path:       the one file to read, instead of looking in the usual places; it must exist.
    overrides:  values by dotted key ("node", "broker.url", "strategy.rate") from the command line; None: not given.
    environ:    the environment (default: this process's).  root: stands for / in /etc.  cwd: stands for the
                working folder.
    strategies: methods by name (default: edgeswarm.strategies.STRATEGIES); their dataclass fields are the knobs.
    complete:   refuse a configuration an agent cannot run with (no node, no broker, no source).

    Raises ConfigError, one line: unknown key or section, wrong type, out of range, something missing or contradictory,
    not TOML, unreadable file.
    """
    from edgeswarm.agent.config_rules import check_whole  # brings NumPy

    values, origins = _values(path, overrides or {}, environ, root, cwd)
    table = _strategies() if strategies is None else strategies
    name = values.get("strategy.name", BY_SECTION["strategy"]["name"].default)
    if name not in table:
        raise fail(origins["strategy.name"], "strategy.name", f"cannot be {name!r}{did_you_mean(name, table)}")
    knobs = knobs_of(name, table[name], values, origins)

    parts: dict[str, Any] = {key: values[key] for key in TOP if key in values}
    for section, cls in SECTIONS.items():
        known = BY_SECTION[section]
        chosen = {key: values[f"{section}.{key}"] for key in known if f"{section}.{key}" in values}
        parts[section] = StrategyConfig(name, knobs) if cls is StrategyConfig else cls(**chosen)
    config = Config(**parts)
    try_strategy(config.strategy, table, origins)
    check_whole(config, origins, complete)
    if complete:
        for attribute, section, does in NEEDED:
            if hasattr(table[name], attribute) and not getattr(config, section).path:
                text = f"= {name!r} {does}: set [{section}] path as well"
                raise fail(origins["strategy.name"], "strategy.name", text)
    return config, origins


def state_folder(
    path: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    *,
    cwd: Path | None = None,
) -> Path:
    """Where the agent with this configuration keeps its state; arguments as of `load`.

    Each value is checked, but neither a method's knobs nor the rules between settings: both bring NumPy, and a look at
    a folder takes a quarter of the time without. Raises ConfigError.
    """
    return Path(_values(path, {}, environ, root, cwd)[0]["state.folder"])


def _values(
    path: Path | str | None,
    overrides: Mapping[str, object],
    environ: Mapping[str, str] | None,
    root: Path,
    cwd: Path | None,
) -> tuple[dict[str, Any], Origins]:
    """The values that somebody has set, and state.folder in any case, by dotted key; arguments as of `load`."""
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    files = [Path(path)] if path is not None else _usual_files(environ, root, cwd)
    layers = [read_overrides(overrides, cwd), read_environ(environ, cwd), *(read_file(file) for file in files)]
    values, where = _merge(layers, environ)
    if not values.get("state.folder"):
        values["state.folder"], where["state.folder"] = _state_folder(values.get("node", ""), environ, root)
    return values, Origins(where, tuple(files), tuple(name for layer in layers for name in layer.unused))


def _usual_files(environ: Mapping[str, str], root: Path, cwd: Path) -> list[Path]:
    """The files that exist among the usual ones, strongest first."""
    places = [cwd / "edgeswarm.toml"]
    home = environ.get("HOME")
    if environ.get("XDG_CONFIG_HOME"):
        places.append(Path(environ["XDG_CONFIG_HOME"], "edgeswarm", "config.toml"))
    elif home:
        places.append(Path(home, ".config", "edgeswarm", "config.toml"))
    places.append(root / "etc" / "edgeswarm" / "config.toml")
    return [place for place in places if _stands_there(place)]


def _stands_there(place: Path) -> bool:
    """Whether a usual file is there. One that may not be looked at counts: reading it then says why not."""
    try:
        place.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _state_folder(node: str, environ: Mapping[str, str], root: Path) -> tuple[str, Origin]:
    """Where the state goes when nobody has said: systemd's folder, else one per node under the user's state."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].split(":")[0], Origin("environment", "STATE_DIRECTORY")
    leaf = Path("edgeswarm", node or "unnamed")
    if environ.get("XDG_STATE_HOME"):
        return str(Path(environ["XDG_STATE_HOME"], leaf)), Origin("environment", "XDG_STATE_HOME")
    if environ.get("HOME"):
        return str(Path(environ["HOME"], ".local", "state", leaf)), Origin("built-in")
    return str(root / "var" / "lib" / leaf), Origin("built-in")


def _merge(layers: list[Layer], environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The strongest value of each key, paths made absolute, and its origin."""
    values: dict[str, Any] = {}
    where: dict[str, Origin] = {}
    # Knobs belong to the method that is in force where they are written: once a stronger place has chosen another
    # method, the knobs of a weaker place mean nothing.
    methods = [BY_SECTION["strategy"]["name"].default]
    for layer in reversed(layers):
        methods.append(layer.values.get("strategy.name", methods[-1]))
    for layer, method in zip(layers, reversed(methods), strict=False):
        for key, value in layer.values.items():
            foreign = method != methods[-1] and key.startswith("strategy.")
            if key in values or foreign:
                continue
            setting = setting_of(key)
            values[key] = value if setting is None else _located(setting, value, layer.folder, environ)
            where[key] = layer.origins[key]
    return values, where


def _located(setting: Setting, value: Any, folder: Path, environ: Mapping[str, str]) -> Any:
    """`value`, or where it is a path, the path in full."""
    if not setting.metadata.get("path") or not value:
        return value
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if setting.metadata.get("credential") and credentials and Path(credentials, value).is_file():
        return str(Path(credentials, value))
    if value.startswith("~/") and environ.get("HOME"):
        return str(Path(environ["HOME"], value[2:]))
    return str(folder / value)


def _strategies() -> Mapping[str, type]:
    # Looked up when needed: the methods bring NumPy, and `--help` must stay cheap on a small board.
    table: Mapping[str, type] = importlib.import_module("edgeswarm.strategies").STRATEGIES
    return table


def knobs_of(name: str, cls: type, values: Mapping[str, Any], origins: Origins) -> dict[str, Any]:
    """The knobs among `values` ("strategy.<knob>") of strategy `name`, checked by its fields. Raises ConfigError."""
    known = {knob: setting for knob, setting in settings_of(cls).items() if knob not in SET_BY_THE_AGENT}
    knobs: dict[str, Any] = {}
    for key, value in values.items():
        section, _, knob = key.rpartition(".")
        if section != "strategy" or knob == "name":
            continue
        origin = origins[key]
        if knob not in known:
            raise ConfigError(f"{origin}: [strategy] {name} has no knob {knob!r}{did_you_mean(knob, known)}")
        try:
            knobs[knob] = from_text(known[knob], value) if isinstance(value, Text) else checked(known[knob], value)
        except ValueError as error:
            raise fail(origin, key, str(error)) from None
    return knobs


def build_strategy(config: StrategyConfig, strategies: Mapping[str, type] | None = None) -> Any:
    """The strategy that `config` asks for, with its knobs. Raises ConfigError when the strategy refuses them."""
    table = _strategies() if strategies is None else strategies
    if config.name not in table:
        raise ConfigError(f"[strategy] name cannot be {config.name!r}{did_you_mean(config.name, table)}")
    try:
        return table[config.name](**config.knobs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[strategy] {config.name}: {error}") from None


def try_strategy(config: StrategyConfig, table: Mapping[str, type], origins: Origins) -> None:
    """Make the strategy once, so that knobs which contradict one another are refused now and with their place."""
    try:
        build_strategy(config, table)
    except ConfigError as error:
        named = [knob for knob in config.knobs if knob in str(error)] or [*config.knobs, "name"]
        raise ConfigError(f"{origins[f'strategy.{named[0]}']}: {error}") from None


def rows(config: Config, origins: Origins) -> list[tuple[str, Any, Origin]]:
    """(dotted key, value, origin) of every setting in the order of the documentation, nothing secret among them."""
    plain = redacted(config)
    found: list[tuple[str, Any, Origin]] = []
    for name, value in plain.items():
        if isinstance(value, dict):
            found += [(f"{name}.{key}", inner, origins[f"{name}.{key}"]) for key, inner in value.items()]
        else:
            found.append((name, value, origins[name]))
    return found


def redacted(config: Config) -> dict[str, Any]:
    """The configuration as nested dicts of plain values, fit to be printed and published.

    Secrets are kept in files that only the transport reads, so none can be here; what a URL might hold before its @ is
    cut off all the same.
    """
    plain: dict[str, Any] = {key: getattr(config, key) for key in TOP}
    for section in SECTIONS:
        part = getattr(config, section)
        plain[section] = {
            key: list(value) if isinstance(value := getattr(part, key), tuple) else value for key in BY_SECTION[section]
        }
    plain["broker"]["url"] = [_without_user(url) for url in config.broker.url]
    plain["strategy"].update(config.strategy.knobs)
    return plain


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
