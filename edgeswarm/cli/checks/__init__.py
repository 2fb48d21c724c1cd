"""The checks behind `edgeswarm doctor`, one file for each thing looked at.

A check looks and says what it found; it changes nothing it does not put back. Names are stable: scripts rely on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. status: OK, WARN (works, but look at it), FAIL (must be fixed) or SKIP (does not apply here).

    text: what is.  todo: what to do about it, empty where nothing is to be done.  facts: the numbers, for programs.
    """

    name: str
    status: str
    text: str
    todo: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def look(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    """What `check` finds; if it breaks, that is a finding too, and the others still get their turn."""
    try:
        found = check()
        yield from [found] if isinstance(found, Finding) else found
    except Exception as error:
        yield Finding(name, WARN, f"the check itself broke: {type(error).__name__}: {error}", "report this as a bug")
