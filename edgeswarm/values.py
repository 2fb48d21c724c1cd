"""`@value(frozen=True, ...)`: a dataclass with slots that nobody writes to once it is made."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(*, frozen: bool, slots: bool, eq: bool = True) -> Any:
        """As `dataclass`, which is what the type checker takes it for: it lets nobody write to one. When the code runs
        they are frozen in Python's development mode (`python -X dev`) alone: making a frozen one takes four times as
        long, and all that one round of a simulated node makes took an eighth of its time."""
        return dataclass(frozen=sys.flags.dev_mode, eq=eq, unsafe_hash=eq and frozen, slots=slots)
