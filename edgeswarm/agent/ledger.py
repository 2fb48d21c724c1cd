"""Why things were done or not: the node's decisions, kept for `edgeswarm why` in a bounded amount of space.

One JSON object a line, appended in batches when the state is saved (never per decision: cards wear out). At half of
the limit the file becomes the previous one and a new one begins, so the two together never exceed it. Without a
folder, or while the disk refuses, the newest decisions are kept in memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeswarm.agent.faults import fault_text
from edgeswarm.decision import Decision

NAME, PREVIOUS_NAME = "decisions.jsonl", "decisions.previous.jsonl"
MEMORY_ENTRIES = 2_000
LINE_LIMIT_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision with the boot it was taken in and the wall-clock time (a clock may be wrong; `epoch` never is)."""

    decision: Decision
    epoch: int
    wall_s: float


class Ledger:
    """Decisions of one node. `fault` holds the last trouble with the disk as one line, None when all is well.

    lost: decisions that neither disk nor memory had room for.
    """

    def __init__(
        self,
        folder: Path | str | None,
        limit_bytes: int = 1_000_000,
        *,
        epoch: int = 0,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.epoch = epoch
        self.lost = 0
        self.fault: str | None = None
        self._folder = None if folder is None else Path(folder)
        self._half_bytes = limit_bytes // 2
        self._wall_s = wall_s
        self._waiting: deque[Entry] = deque(maxlen=MEMORY_ENTRIES)
        self._guard = threading.Lock()

    def record(self, decision: Decision) -> None:
        """Keep `decision`; it reaches the disk with the next `flush`. Never fails, never waits for the disk."""
        entry = Entry(decision, self.epoch, self._wall_s())
        with self._guard:
            if len(self._waiting) == MEMORY_ENTRIES:
                self.lost += self._folder is not None  # in memory alone, forgetting the oldest is the design
            self._waiting.append(entry)

    def flush(self) -> bool:
        """Append what was recorded to the file; False when the disk refused (`fault` says why; it is tried again).

        May run in a worker thread while `record` is called, but not twice at once.
        """
        if self._folder is None:
            return True
        with self._guard:
            taken = list(self._waiting)
            self._waiting.clear()
        while taken:
            batch, count = self._batch(taken)
            try:
                self._append(self._folder / NAME, batch)
            except OSError as error:
                self.fault = fault_text("write the ledger in", self._folder, error)
                with self._guard:
                    kept = [*taken, *self._waiting]
                    self.lost += max(0, len(kept) - MEMORY_ENTRIES)
                    self._waiting = deque(kept, maxlen=MEMORY_ENTRIES)
                return False
            taken = taken[count:]
        self.fault = None
        return True

    def _batch(self, entries: list[Entry]) -> tuple[bytes, int]:
        """The first entries as lines, not more than fit half the limit, and how many they are."""
        lines: list[bytes] = []
        size_bytes = 0
        for entry in entries:
            line = _to_line(entry)
            if len(line) > min(LINE_LIMIT_BYTES, self._half_bytes - 1):  # would crowd out everything else
                self.lost += 1
                line = b""
            if size_bytes + len(line) > self._half_bytes - 1:
                break
            lines.append(line)
            size_bytes += len(line)
        return b"".join(lines), len(lines)

    def _append(self, path: Path, batch: bytes) -> None:
        """Add whole lines to the file, or nothing; begin a new file when this one is full. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size + len(batch) + 1 > self._half_bytes:
                path.replace(path.with_name(PREVIOUS_NAME))
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size_bytes = os.fstat(handle).st_size
            if size_bytes and os.pread(handle, 1, size_bytes - 1) != b"\n":
                batch = b"\n" + batch  # a power cut tore the last line; do not tear the next one with it
            try:
                written = 0
                while written < len(batch):
                    written += os.write(handle, batch[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size_bytes)
                raise
        finally:
            os.close(handle)

    def read(
        self,
        *,
        kind: str = "",
        outcome: str = "",
        peer: str = "",
        since_s: float = -math.inf,
        limit: int | None = None,
    ) -> list[Entry]:
        """Decisions, newest first. Empty filters match all; since_s: wall-clock seconds; limit: at most so many.

        Lines that cannot be read (torn by a power cut) are left out.
        """
        found: list[Entry] = []
        for entry in self._newest_first():
            if limit is not None and len(found) >= limit:
                break
            decision = entry.decision
            wanted = (
                (not kind or decision.kind == kind)
                and (not outcome or decision.outcome == outcome)
                and (not peer or decision.peer == peer)
                and entry.wall_s >= since_s
            )
            if wanted:
                found.append(entry)
        return found

    def _newest_first(self) -> Iterator[Entry]:
        with self._guard:
            waiting = list(self._waiting)
        yield from reversed(waiting)
        if self._folder is None:
            return
        for name in (NAME, PREVIOUS_NAME):
            try:
                lines = (self._folder / name).read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                self.fault = fault_text("read", self._folder / name, error)
                continue
            for line in reversed(lines):
                entry = _from_line(line)
                if entry is not None:
                    yield entry


def _to_line(entry: Entry) -> bytes:
    decision = entry.decision
    record = {
        "wall_s": round(entry.wall_s, 3),
        "epoch": entry.epoch,
        "at": round(float(decision.at), 3),
        "kind": decision.kind,
        "outcome": decision.outcome,
        "reason": decision.reason,
        # JSON has no infinity: such facts travel as text that float() reads back.
        "facts": {name: _number(float(value)) for name, value in decision.facts.items()},
    }
    if decision.peer:
        record["peer"] = decision.peer
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _from_line(line: bytes) -> Entry | None:
    try:
        record = json.loads(line)
        facts = {str(name): float(value) for name, value in record["facts"].items()}
        decision = Decision(
            at=float(record["at"]),
            kind=str(record["kind"]),
            outcome=str(record["outcome"]),
            reason=str(record["reason"]),
            facts=facts,
            peer=str(record.get("peer", "")),
        )
        return Entry(decision, int(record["epoch"]), float(record["wall_s"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
