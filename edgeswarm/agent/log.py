"""What the agent says while it runs: one line for an event a person acts on, to stderr.

Three looks. Under systemd each line starts with <N>, the syslog level, which the journal reads and removes (and it
knows the time itself). On a terminal: time, level, words. As JSON: one object a line, with the same keys always, for
containers. Payloads, keys and passwords are never logged.

A caller adds facts with `extra={"peer": "node-2"}`; they become keys of the JSON object and `key=value` elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

FORMATS = ("text", "json")

_SYSLOG = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def syslog_level(level: int) -> int:
    """The syslog number (2 critical ... 7 debug) of a level of Python's."""
    return next((number for least, number in _SYSLOG if level >= least), 7)


def under_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if `stream` goes to the systemd journal: JOURNAL_STREAM holds the device and inode of what it gave us.

    The variable is inherited by everything the service starts, so its presence alone says nothing.
    """
    try:
        device, inode = environ.get("JOURNAL_STREAM", "").split(":")
        found = os.fstat(stream.fileno())
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (ValueError, OSError):  # io.UnsupportedOperation (no real file) is both
        return False


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _sentence(record: logging.LogRecord) -> str:
    facts = "".join(f" {key}={value}" for key, value in _facts(record).items())
    return f"{record.getMessage()}{facts}"


class _Formatter(logging.Formatter):
    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback, empty if there is none."""
        return self.formatException(record.exc_info) if record.exc_info else ""


class JournalFormatter(_Formatter):
    """`<6>words`; every line of a traceback gets its level too, or the journal would take it for an info line."""

    def format(self, record: logging.LogRecord) -> str:
        text = "\n".join(part for part in (_sentence(record), self.trouble(record)) if part)
        return "\n".join(f"<{syslog_level(record.levelno)}>{line}" for line in text.splitlines() or [""])


class TextFormatter(_Formatter):
    """`12:03:04 warning  words`, local time."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<8} {_sentence(record)}"
        return "\n".join(part for part in (line, self.trouble(record)) if part)


class JsonFormatter(_Formatter):
    """{"at_unix", "level", "source", "text", facts..., "traceback"}, one line; `traceback` only where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "at_unix": round(record.created, 3),
            "level": record.levelname.lower(),
            "source": record.name,
            "text": record.getMessage(),
            **_facts(record),
        }
        if trouble := self.trouble(record):
            said["traceback"] = trouble
        return json.dumps(said, ensure_ascii=False, default=str)


def formatter_for(look: str, stream: TextIO, environ: Mapping[str, str]) -> logging.Formatter:
    """The formatter for `stream`. look: one of FORMATS; "text" means the journal's form where the journal listens."""
    if look == "json":
        return JsonFormatter()
    return JournalFormatter() if under_journal(stream, environ) else TextFormatter()


def set_up(
    look: str = "text",
    level: int = logging.INFO,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> logging.Handler:
    """Send everything the package logs at `level` or above to `stream` (stderr). A second call replaces the first.

    Only the package's own logger is touched: a program that embeds edgeswarm keeps its root logger. The handler comes
    back.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter_for(look, stream, os.environ if environ is None else environ))
    handler.set_name("edgeswarm")
    logger = logging.getLogger("edgeswarm")
    for old in [old for old in logger.handlers if old.get_name() == "edgeswarm"]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return handler
