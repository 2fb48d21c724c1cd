"""Values from a file, the environment or the command line, checked against the fields of a dataclass.

Any dataclass whose fields are int, float, str, bool, lists of these (tuple[str, ...]) or one of them | None can be
set this way, strategies included. A field's metadata may say "low", "high" (both allowed themselves), "choices",
"unit" and "help"; a field of any other type cannot be set from outside and is left alone.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from edgeswarm.agent.names import did_you_mean

_SCALARS: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field that may be set. kind: int, float, str or bool; many: a list of them; default: MISSING if required."""

    name: str
    kind: type
    many: bool
    default: Any
    metadata: Mapping[str, Any]

    def wanted(self) -> str:
        """What the value must be, for people: "a list of text", "a number from 0 to 1"."""
        return f"a list of {_SCALARS[self.kind]}" if self.many else _SCALARS[self.kind]


def settings_of(cls: type) -> dict[str, Setting]:
    """The fields of dataclass `cls` that may be set, by name, in their order."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(cls):
        shape = _shape(hints[field.name])
        if shape is None or not field.init:
            continue
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = Setting(field.name, shape[0], shape[1], default, field.metadata)
    return found


def _shape(hint: Any) -> tuple[type, bool] | None:
    """(scalar type, is a list) of a type hint, None for one that cannot be set from outside."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [part for part in inner if part is not type(None)]
        return _shape(rest[0]) if len(rest) == 1 else None
    if origin is typing.Literal and all(isinstance(choice, str) for choice in inner):
        return str, False
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis and inner[0] in _SCALARS:
        return inner[0], True
    return (hint, False) if hint in _SCALARS else None


def checked(setting: Setting, value: object) -> Any:
    """`value` as the field wants it. Raises ValueError whose text is the end of a sentence that begins with the key.

    A whole number is good where a number is wanted, a single value where a list is.
    """
    if setting.many:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_scalar(setting, item) for item in items)
    return _scalar(setting, value)


def from_text(setting: Setting, text: str) -> Any:
    """`text` of an environment variable or a flag as the field wants it; lists are cut at commas.

    Raises ValueError as `checked` does.
    """
    if setting.many:
        return checked(setting, [_parse(setting, part.strip()) for part in text.split(",") if part.strip()])
    return checked(setting, _parse(setting, text.strip()))


def _parse(setting: Setting, text: str) -> object:
    if setting.kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ValueError(f"must be true or false, not {text!r}")
    if setting.kind is str:
        return text
    try:
        return setting.kind(text)
    except ValueError:
        raise ValueError(f"must be {_SCALARS[setting.kind]}, not {text!r}") from None


def _scalar(setting: Setting, value: object) -> Any:
    kind = setting.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"must be {setting.wanted()}, not {_named(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    _check_range(setting, value)
    return value


def _check_range(setting: Setting, value: Any) -> None:
    choices = setting.metadata.get("choices", ())
    if choices and value not in choices:
        words = [str(choice) for choice in choices]
        raise ValueError(f"cannot be {value!r}{did_you_mean(str(value), words)}")
    low, high, unit = (setting.metadata.get(word) for word in ("low", "high", "unit"))
    unit = f" {unit}" if unit else ""
    if low is not None and value < low:
        raise ValueError(f"must be at least {low:g}{unit}, not {value:g}")
    if high is not None and value > high:
        raise ValueError(f"must be at most {high:g}{unit}, not {value:g}")


def _named(value: object) -> str:
    """A wrong value as a person would call it; long ones are cut."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return str(value)[:40]
