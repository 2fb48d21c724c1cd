"""Files that are written whole or not at all: on a full disk, or after a kill, what was there before stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """What to write in place of `path`, whose folders are made: it takes that place when the block ends. Where it
    cannot be written, nothing of it is left, for a full disk needs the room. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        with contextlib.suppress(OSError):  # as a rule it has taken its place
            fresh.unlink()
