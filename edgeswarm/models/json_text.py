"""JSON from strangers, read strictly: known keys only, exact types, bounded sizes; and written in one way only."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_MOST_DIGITS = 19


class Bad(ValueError):
    """The text says something it must not. One line, names the place, no final stop.

    complete: it also says what to do about it; otherwise the file is to be copied or built again.
    """

    def __init__(self, text: str, complete: bool = False) -> None:
        super().__init__(text)
        self.complete = complete

    def line(self) -> str:
        """The text with what to do."""
        return str(self) if self.complete else f"{self}; copy the model file again, or build the model again"


def parse(data: bytes, most_bytes: int) -> Any:
    """The value a JSON text stands for. Raises Bad: too long, not UTF-8, not JSON, a key twice, NaN, long numbers."""
    if len(data) > most_bytes:
        raise Bad(f"it has {len(data)} bytes; at most {most_bytes} are allowed here")
    try:
        text = data.decode("utf-8")
        hooks: dict[str, Any] = {"parse_constant": _constant, "parse_int": _int, "parse_float": _float}
        return json.loads(text, object_pairs_hook=_unique, **hooks)
    except Bad:
        raise
    except UnicodeDecodeError:
        raise Bad("it is not UTF-8 text") from None
    except RecursionError:
        raise Bad("it is nested too deeply") from None
    except ValueError as error:
        raise Bad(f"it is not JSON ({error}); it is cut short or damaged") from None


def canonical(value: Any) -> bytes:
    """The one form that is hashed: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def write(value: Any) -> bytes:
    """The one form that is stored: keys sorted, indented, ASCII, a line break at the end."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Reader:
    """A JSON object whose keys have been checked. path: where it stands, for errors ("losses.ce.inputs[0]").

    Every method takes a key of the object and raises Bad when the value is not of the type or range.
    """

    values: dict[str, Any]
    path: str

    @staticmethod
    def of(value: Any, path: str, keys: Collection[str]) -> Reader:
        """Raises Bad: no object, a key that is missing or unknown."""
        if type(value) is not dict:
            raise Bad(f"{path or 'it'} must be a JSON object")
        for key in sorted(set(keys) - value.keys()):
            raise Bad(f"{key if not path else f'{path}.{key}'} is missing")
        for key in sorted(value.keys() - set(keys)):
            raise Bad(f"{path + ': ' if path else ''}the key {key!r:.80} is unknown")
        return Reader(value, path)

    def at(self, key: str) -> str:
        """The place of a key."""
        return f"{self.path}.{key}" if self.path else key

    def text(self, key: str, most: int, least: int = 1) -> str:
        """A text of `least` to `most` printable characters, no line breaks."""
        return _text(self.values[key], self.at(key), most, least)

    def one_of(self, key: str, words: Collection[str]) -> str:
        """One of the words."""
        word = self.values[key]
        if type(word) is not str or word not in words:
            raise Bad(f"{self.at(key)} must be one of {', '.join(sorted(words))}")
        return word

    def integer(self, key: str, least: int, most: int) -> int:
        """A whole number from least to most."""
        return _integer(self.values[key], self.at(key), least, most)

    def number(self, key: str, least: float, most: float) -> float:
        """A number from least to most."""
        value = self.values[key]
        if type(value) not in (int, float) or not least <= value <= most:
            raise Bad(f"{self.at(key)} must be a number from {least:g} to {most:g}")
        return float(value)

    def truth(self, key: str) -> bool:
        """true or false."""
        value = self.values[key]
        if type(value) is not bool:
            raise Bad(f"{self.at(key)} must be true or false")
        return value

    def shape(self, key: str, axes: int, longest: int, least: int = 0) -> tuple[int, ...]:
        """Up to `axes` lengths, each `least` to `longest`."""
        lengths = self._list(key, axes)
        return tuple(_integer(length, f"{self.at(key)}[{at}]", least, longest) for at, length in enumerate(lengths))

    def texts(self, key: str, count: int, most: int) -> tuple[str, ...]:
        """Up to `count` different texts of 1 to `most` characters."""
        words = [_text(word, f"{self.at(key)}[{at}]", most, 1) for at, word in enumerate(self._list(key, count))]
        if len(set(words)) < len(words):
            raise Bad(f"{self.at(key)} has one entry twice")
        return tuple(words)

    def entries(self, key: str, keys: Collection[str], count: int) -> Iterator[Reader]:
        """Up to `count` objects of a list, each with just these keys."""
        for at, value in enumerate(self._list(key, count)):
            yield Reader.of(value, f"{self.at(key)}[{at}]", keys)

    def table(self, key: str, count: int) -> dict[str, Any]:
        """An object of up to `count` keys that are data themselves."""
        value = self.values[key]
        if type(value) is not dict or len(value) > count:
            raise Bad(f"{self.at(key)} must be a JSON object of at most {count} keys")
        return value

    def _list(self, key: str, count: int) -> list[Any]:
        value = self.values[key]
        if type(value) is not list or len(value) > count:
            raise Bad(f"{self.at(key)} must be a list of at most {count} entries")
        return value


def _text(value: Any, path: str, most: int, least: int) -> str:
    if type(value) is not str or not least <= len(value) <= most or not value.isprintable():
        raise Bad(f"{path} must be a text of {least} to {most} printable characters")
    return value


def _integer(value: Any, path: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise Bad(f"{path} must be a whole number from {least} to {most}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Bad("an object has a key twice")
    return found


def _constant(word: str) -> float:
    raise Bad(f"{word} is no number")


def _int(word: str) -> int:
    if len(word) > _MOST_DIGITS:
        raise Bad(f"a number of {len(word)} digits")
    return int(word)


def _float(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise Bad("a number that is too large")
    return number
