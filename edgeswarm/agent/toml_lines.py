"""On which line of a TOML text each key stands: the standard parser gives values only, error messages want lines.

The scanner knows just enough TOML to walk over it: tables, dotted and quoted keys, comments, strings on one or many
lines, arrays over many lines, inline tables. It is meant for text that the real parser has accepted; on other text it
still ends, and says what it has seen so far.
"""

from __future__ import annotations

import contextlib
import json

KeyPath = tuple[str, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line number (from 1) of each table header and key, by its full path; the first where there are several."""
    scanner = _Scanner(text)
    with contextlib.suppress(IndexError):  # ran past the end: not TOML; what was found so far still helps
        scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> None:
        prefix: KeyPath = ()
        self.blank(newlines=True)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                self.skip(2 if self.text.startswith("[[", self.at) else 1)
                prefix = self.key("]")
                self.found((), prefix)
                while self.text.startswith("]", self.at):
                    self.skip(1)
            else:
                self.pair(prefix)
            self.blank(newlines=True)

    def pair(self, prefix: KeyPath) -> None:
        path = self.key("=")
        self.found(prefix, path)
        self.skip(1)
        self.value(prefix + path)

    def found(self, prefix: KeyPath, path: KeyPath) -> None:
        for depth in range(1, len(path) + 1):
            self.lines.setdefault(prefix + path[:depth], self.line)

    def key(self, end: str) -> KeyPath:
        """A dotted key up to, not including, the character `end`."""
        parts: list[str] = []
        while True:
            self.blank()
            start = self.at
            if self.text[self.at] in "\"'":
                parts.append(self.string())
            else:
                while self.text[self.at] not in ".=]\n \t":
                    self.skip(1)
                parts.append(self.text[start : self.at])
            self.blank()
            if self.text[self.at] == ".":
                self.skip(1)
                continue
            while self.text[self.at] not in (end, "\n"):
                self.skip(1)
            return tuple(parts)

    def value(self, path: KeyPath) -> None:
        self.blank(newlines=True)
        mark = self.text[self.at]
        if mark in "\"'":
            self.string()
        elif mark == "[":
            self.skip(1)
            self.members("]", path)
        elif mark == "{":
            self.skip(1)
            self.members("}", path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.skip(1)

    def members(self, end: str, path: KeyPath) -> None:
        """What an array or inline table holds, and its closing mark."""
        while True:
            self.blank(newlines=True)
            if self.text[self.at] == end:
                self.skip(1)
                return
            if self.text[self.at] == ",":
                self.skip(1)
            elif end == "}":
                self.pair(path)
            else:
                before = self.at
                self.value(path)
                if self.at == before:  # a stray bracket: not TOML
                    raise IndexError

    def string(self) -> str:
        quote = self.text[self.at]
        many = quote * 3
        if self.text.startswith(many, self.at):
            start = self.at
            self.skip(3)
            while not self.text.startswith(many, self.at):
                self.skip(2 if quote == '"' and self.text[self.at] == "\\" else 1)
            while self.text.startswith(quote, self.at):  # up to two more quotes belong to the text before the end
                self.skip(1)
            return self.text[start + 3 : self.at - 3]
        self.skip(1)
        start = self.at
        while self.text[self.at] != quote:
            self.skip(2 if quote == '"' and self.text[self.at] == "\\" else 1)
        body = self.text[start : self.at]
        self.skip(1)
        if quote == '"' and "\\" in body:
            try:
                return str(json.loads(f'"{body}"'))
            except ValueError:  # \U and other escapes that JSON does not know: the line is what matters here
                return body
        return body

    def blank(self, newlines: bool = False) -> None:
        """Step over white space, and with `newlines` over comments and line ends too."""
        while self.at < len(self.text):
            mark = self.text[self.at]
            if mark in " \t\r" or (newlines and mark == "\n"):
                self.skip(1)
            elif newlines and mark == "#":
                end = self.text.find("\n", self.at)
                self.skip((end if end >= 0 else len(self.text)) - self.at)
            else:
                return

    def skip(self, count: int) -> None:
        if self.at + count > len(self.text):
            raise IndexError
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count
