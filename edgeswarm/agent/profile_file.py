"""Reading a firmware profile: every key of `profile_tables`, none besides, each checked; errors name file and line."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.fields import Setting, checked, settings_of
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.profile_tables import SCHEMA, TABLES, Profile
from edgeswarm.agent.toml_lines import KeyPath, key_lines
from edgeswarm.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

FILE_LIMIT_BYTES = 100_000
_TOP = ("schema", "id", "title", "tier", "verified")
_OWN = settings_of(Profile)
_ENV_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ID = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
_RANGE = re.compile(r"(>=|<=|<|>|==)(\d{1,4}(?:\.\d{1,4})*)")
_ACCELERATED = ("cuda", "tensorrt")


def in_range(version: tuple[int, ...], text: str) -> bool:
    """Whether a version lies in a range such as ">=36.2, <37"; a missing part counts as 0.

    Raises ValueError for text that is no such range.
    """
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip().replace(" ", ""))
        if found is None:
            raise ValueError(f"must be a range such as '>=36.2, <37', not {text!r}")
        bound = tuple(map(int, found[2].split(".")))
        width = max(len(version), len(bound))
        one, other = version + (0,) * (width - len(version)), bound + (0,) * (width - len(bound))
        order = (one > other) - (one < other)
        if order not in {">=": (0, 1), "<=": (-1, 0), "<": (-1,), ">": (1,), "==": (0,)}[found[1]]:
            return False
    return True


def read(path: Path) -> Profile:
    """The profile in a file.

    Raises ConfigError, one line with file, line and key: not readable, not TOML, another schema, a key that is
    unknown, missing, of the wrong type or out of range, or two values that contradict each other.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(fault_text("read the firmware profile", path, error)) from None
    if len(data) > FILE_LIMIT_BYTES:
        raise ConfigError(f"{path}: larger than {FILE_LIMIT_BYTES} bytes, so hardly a firmware profile")
    try:
        text = data.decode("utf-8")
        tree: dict[str, Any] = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        said = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise ConfigError(f"{path}: not TOML: {said}") from None
    return _Reader(path, tree, key_lines(text)).profile(sha256(data).hexdigest())


class _Reader:
    def __init__(self, path: Path, tree: dict[str, Any], lines: Mapping[KeyPath, int]) -> None:
        self.path = path
        self.tree = tree
        self.lines = lines

    def fail(self, key: KeyPath, text: str) -> ConfigError:
        named = f"[{key[0]}] {key[1]}" if len(key) > 1 else key[0]
        known = self.lines.get(key, self.lines.get(key[:1]))
        return ConfigError(f"{self.path}{f':{known}' if known else ''}: {named} {text}")

    def profile(self, digest: str) -> Profile:
        """The whole file, checked."""
        schema = self.tree.get("schema")
        if schema != SCHEMA or isinstance(schema, bool):
            raise self.fail(("schema",), f"must be {SCHEMA} for this version of edgeswarm, not {str(schema)[:40]}")
        self.same_keys((), self.tree, (*_TOP, *TABLES))
        values: dict[str, Any] = {}
        for key in _TOP[1:]:
            values[key] = self.checked((key,), _OWN[key], self.tree[key])
        for name, cls in TABLES.items():
            values[name] = self.table(name, cls)
        profile = Profile(**values, hash=digest)
        self.contradictions(profile)
        return profile

    def table(self, name: str, cls: type) -> Any:
        given = self.tree[name]
        if not isinstance(given, dict):
            raise self.fail((name,), f"is a table: write [{name}] on a line of its own")
        self.same_keys((name,), given, [field.name for field in dataclasses.fields(cls)])
        settings = settings_of(cls)
        values = {key: self.checked((name, key), settings[key], given[key]) for key in settings}
        if "env" in given and name == "runtime":
            values["env"] = self.environment(given["env"])
        return cls(**values)

    def same_keys(self, above: KeyPath, given: Mapping[str, Any], known: Iterable[str]) -> None:
        known = tuple(known)
        for key in given:
            if key not in known:
                raise self.fail((*above, key), f"is unknown{did_you_mean(key, known)}")
        for key in known:
            if key not in given:
                raise self.fail((*above, key), "is missing: a profile has every key (see firmware_profiles/README.md)")

    def checked(self, key: KeyPath, setting: Setting, value: object) -> Any:
        try:
            return checked(setting, value)
        except ValueError as error:
            raise self.fail(key, str(error)) from None

    def environment(self, given: object) -> dict[str, str]:
        if not isinstance(given, dict):
            raise self.fail(("runtime", "env"), 'must be a table of text, such as { OMP_NUM_THREADS = "1" }')
        for name, value in given.items():
            if not _ENV_NAME.fullmatch(name) or not isinstance(value, str) or not value.isprintable():
                raise self.fail(
                    ("runtime", "env"), f"{name!r} must be a variable's name in capitals, and its value text"
                )
        return dict(given)

    def contradictions(self, profile: Profile) -> None:
        """Rules between keys. Raises ConfigError for the first that is broken."""
        if not _ID.fullmatch(profile.id):
            raise self.fail(("id",), f"must be of a-z, 0-9, '-' and '_', not {profile.id!r}")
        if self.path.stem != profile.id:
            raise self.fail(("id",), f"is {profile.id!r}, so the file must be called {profile.id}.toml")
        if profile.tier not in (1, 2, 3):
            raise self.fail(("tier",), f"must be 1, 2 or 3, not {profile.tier}")
        if profile.match.l4t:
            try:
                in_range((0,), profile.match.l4t)
            except ValueError as error:
                raise self.fail(("match", "l4t"), str(error)) from None
        if not profile.runtime.backends or profile.runtime.backends[-1] != "reference":
            raise self.fail(("runtime", "backends"), "must end with 'reference', which needs nothing but NumPy")
        accelerated = [name for name in profile.runtime.backends if name.endswith(_ACCELERATED)]
        if profile.accelerator.kind == "none" and accelerated:
            raise self.fail(("runtime", "backends"), f"holds {accelerated[0]!r}, but [accelerator] kind is 'none'")
        if profile.thermal.resume_margin_c <= profile.thermal.pause_margin_c:
            raise self.fail(
                ("thermal", "resume_margin_c"), "must be larger than pause_margin_c, or training would flutter"
            )
        if profile.training.threads > profile.cpu.cores:
            raise self.fail(("training", "threads"), f"must be at most the {profile.cpu.cores} cores of [cpu]")
