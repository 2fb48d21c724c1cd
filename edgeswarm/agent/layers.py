"""One place that settings come from (a file, the environment, the command line), as checked values with their origin.

A key is "node" at the top and "broker.url" in a section. Knobs of a strategy ("strategy.<knob>") are carried along
unchecked: which ones exist is known only when every layer has been read and the strategy's name is settled.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.fields import Setting, checked, from_text, settings_of
from edgeswarm.agent.names import did_you_mean, nearest
from edgeswarm.agent.settings import SECTIONS, Config
from edgeswarm.agent.toml_lines import key_lines
from edgeswarm.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

FILE_LIMIT_BYTES = 1_000_000
PREFIX = "EDGESWARM_"

TOP: Mapping[str, Setting] = settings_of(Config)
BY_SECTION: Mapping[str, Mapping[str, Setting]] = {name: settings_of(cls) for name, cls in SECTIONS.items()}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from. kind: built-in, file, environment or command line."""

    kind: str
    place: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.place}:{self.line}"
        return f"{self.kind} {self.place}".strip()


@dataclass(frozen=True)
class Layer:
    """Values of one place by dotted key. folder: what relative paths in it are meant from."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def fail(origin: Origin | str, key: str, text: str) -> ConfigError:
    """The error for `key`: "agent.toml:12: [broker] url <text>"."""
    section, _, name = key.rpartition(".")
    return ConfigError(f"{origin}: [{section}] {name} {text}" if section else f"{origin}: {name} {text}")


def setting_of(key: str) -> Setting | None:
    """The setting a dotted key names; None for knobs of a strategy and for keys that do not exist."""
    section, _, name = key.rpartition(".")
    return BY_SECTION.get(section, {}).get(name) if section else TOP.get(name)


def read_file(path: Path) -> Layer:
    """The settings in one TOML file. Raises ConfigError naming file, line and key, and the nearest right one."""
    tree, lines = read_tree(path)
    layer = Layer(path.absolute().parent)
    for name, value in tree.items():
        origin = Origin("file", str(path), lines.get((name,), 1))
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{origin}: {name!r} is a section: write [{name}] on a line of its own")
            for key, inner in value.items():
                inner_origin = Origin("file", str(path), lines.get((name, key), origin.line))
                _take(layer, name, key, inner, inner_origin)
        elif isinstance(value, dict) and name not in TOP:
            raise ConfigError(f"{origin}: unknown section [{name}]{did_you_mean(name, SECTIONS)}")
        else:
            _take(layer, "", name, value, origin)
    return layer


def read_tree(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A TOML file's tables, and the line of each key. Raises ConfigError: unreadable, too large, no TOML."""
    text = _text_of(path)
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax(path, text, str(error))) from None
    except RecursionError:
        raise ConfigError(f"{path}: not usable as TOML: nested too deeply") from None
    return tree, key_lines(text)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(fault_text("read the configuration", path, error)) from None
    if len(data) > FILE_LIMIT_BYTES:
        raise ConfigError(f"{path}: larger than {FILE_LIMIT_BYTES} bytes, so hardly a configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None


def _syntax(path: Path, text: str, said: str) -> str:
    """The parser's complaint with the line in front, where editors look for it."""
    where = re.search(r"\s*\((?:at line (\d+), column (\d+)|at end of document)\)", said)
    if where is None:
        return f"{path}: not TOML: {said}"
    line = int(where[1]) if where[1] else text.count("\n") + (not text.endswith("\n"))
    column = f", column {where[2]}" if where[2] else ", at the end of the file"
    return f"{path}:{max(line, 1)}: not TOML: {said[: where.start()]}{column}"


def _take(layer: Layer, section: str, name: str, value: object, origin: Origin) -> None:
    """Check one value and put it into the layer."""
    key = f"{section}.{name}" if section else name
    setting = setting_of(key)
    if setting is not None:
        try:
            layer.values[key] = checked(setting, value)
        except ValueError as error:
            raise fail(origin, key, str(error)) from None
    elif section == "strategy":
        layer.values[key] = value
    else:
        raise ConfigError(f"{origin}: {_unknown(section, name)}")
    layer.origins[key] = origin


def _unknown(section: str, name: str) -> str:
    """What to say about a key that is not in `section`: perhaps it belongs elsewhere, perhaps it is misspelt."""
    known = BY_SECTION[section] if section else TOP
    said = f"[{section}] unknown key {name!r}" if section else f"unknown key {name!r}"
    homes = [f"[{other}]" for other, settings in BY_SECTION.items() if name in settings and other != section]
    if section and name in TOP:
        return f"{said}; it belongs above the first [section]"
    if nearest(name, known) is None and homes:
        return f"{said}; it belongs in {' or '.join(homes)}"
    return said + did_you_mean(name, known if section else [*known, *SECTIONS])


def read_environ(environ: Mapping[str, str], folder: Path) -> Layer:
    """EDGESWARM_NODE, EDGESWARM_BROKER_URL and so on: section and key joined by an underscore, in capitals.

    Raises ConfigError for an unknown key of a known section and for a wrong value. Other EDGESWARM_ variables may be
    somebody else's; they are listed in `unused`. Empty variables count as not set.
    """
    layer = Layer(folder)
    unused = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or not environ[variable]:
            continue
        words = variable[len(PREFIX) :].lower()
        section = next((name for name in SECTIONS if words.startswith(f"{name}_")), "")
        key = f"{section}.{words[len(section) + 1 :]}" if section else words
        if section or words in TOP:
            _take_text(layer, key, environ[variable], Origin("environment", variable))
        else:
            unused.append(variable)
    return Layer(folder, layer.values, layer.origins, tuple(unused))


def read_overrides(overrides: Mapping[str, object], folder: Path) -> Layer:
    """Values by dotted key from the command line; None means not given. Text is read as from the environment.

    Raises ConfigError as `read_file` does.
    """
    layer = Layer(folder)
    for key, value in overrides.items():
        if value is None or value == ():
            continue
        origin = Origin("command line")
        if isinstance(value, str):
            _take_text(layer, key, value, origin)
        else:
            section, _, name = key.rpartition(".")
            if section and section not in SECTIONS:
                raise ConfigError(f"{origin}: unknown section [{section}]{did_you_mean(section, SECTIONS)}")
            _take(layer, section, name, value, origin)
    return layer


def _take_text(layer: Layer, key: str, text: str, origin: Origin) -> None:
    section, _, name = key.rpartition(".")
    setting = setting_of(key)
    if setting is not None:
        try:
            layer.values[key] = from_text(setting, text)
        except ValueError as error:
            raise fail(origin, key, str(error)) from None
    elif section == "strategy":
        layer.values[key] = Text(text)
    elif section and section not in SECTIONS:
        raise ConfigError(f"{origin}: unknown section [{section}]{did_you_mean(section, SECTIONS)}")
    else:
        raise ConfigError(f"{origin}: {_unknown(section, name)}")
    layer.origins[key] = origin


class Text(str):
    """A knob's value that came as text and is still to be read as a number, a list or whatever the knob is."""

    __slots__ = ()
