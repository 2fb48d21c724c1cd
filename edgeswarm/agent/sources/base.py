"""What every source of samples is: a schema, a stream, and a count of what was dropped and why."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import DataError
from edgeswarm.messages import Array
from edgeswarm.wire.envelope import DEFAULT_LIMITS, name_fault

MOST_FEATURES = DEFAULT_LIMITS.max_dimensions
"""Peers refuse messages with more dimensions, so a source with more could never share anything."""

_BREATHE_EVERY = 64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One observation. x: (d,) float32, finite.  label: None when not known (yet).  id: as given, to find it again."""

    x: Array
    label: str | None = None
    id: str | int | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """What the numbers mean. Nodes exchange prototypes only when all of it is equal.

    features: one name per dimension, in order.  encoder: what was done to the raw data ("" for nothing).
    form: how the numbers were stored, e.g. "uint8:28x28x3" for such an array, "" for plain rows. It is no part of what
    nodes have in common: whether it matters is up to the model that takes the numbers.
    """

    task: str
    features: tuple[str, ...]
    encoder: str = ""
    form: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> int:
        """See `fingerprint`."""
        return fingerprint(self.task, self.features, self.encoder)


def fingerprint(task: str, features: tuple[str, ...], encoder: str = "") -> int:
    """64 bits that stand for a schema in every message: equal schemas have equal ones on every machine and version.

    BLAKE2b with 8 bytes, read big-endian, of [1, task, [features...], encoder] as JSON without spaces, ASCII only.
    """
    text = json.dumps([1, task, list(features), encoder], separators=(",", ":"))
    return int.from_bytes(blake2b(text.encode("ascii"), digest_size=8).digest(), "big")


def usable_label(label: str) -> bool:
    """Whether peers take `label` as a class name."""
    return not name_fault(label, DEFAULT_LIMITS.max_name_bytes)


def check_width(path: Path, width: int, most: int = MOST_FEATURES) -> None:
    """Raises DataError when `width` features are more than nodes can exchange, or than the model in front takes."""
    if width > max(most, MOST_FEATURES):
        raise DataError(
            f"{path}: {width} features, nodes can exchange at most {MOST_FEATURES}; use fewer or smaller ones"
            if most <= MOST_FEATURES
            else f"{path}: {width} features, the model takes {most}; use fewer or smaller ones"
        )


class Source(Protocol):
    """Where samples come from."""

    dropped: Counter[str]
    """What was not used, by reason; grows only."""

    def schema(self) -> Schema | None:
        """What the samples look like; None as long as that is not known (a sensor that has not spoken)."""
        ...

    def samples(self) -> AsyncIterator[Sample]:
        """The samples, at the configured rate. Raises DataError where a file turns out not to be usable."""
        ...


class Pace:
    """Spreads samples over time: `rate_per_s` a second without catching up in bursts, or as fast as they are taken."""

    def __init__(
        self,
        rate_per_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gap_s = 1.0 / rate_per_s if rate_per_s > 0 else 0.0
        self._now = now
        self._sleep = sleep
        self._due = now()
        self._count = 0

    async def wait(self) -> None:
        """Until the next sample is due."""
        if self._gap_s:
            now = self._now()
            self._due = max(self._due, now - self._gap_s) + self._gap_s
            await self._sleep(max(0.0, self._due - now))
        else:
            await self.breathe()

    async def breathe(self) -> None:
        """Let others on the event loop have a turn every so often: a file read at full speed never waits by itself."""
        self._count += 1
        if self._count % _BREATHE_EVERY == 0:
            await self._sleep(0)


class FileSource:
    """A source that can be read from beginning to end, and again. Subclasses provide `schema` and `rows`."""

    in_thread = False
    """Whether one row takes so long that it is fetched in a worker thread."""

    def __init__(self, path: Path, classes: tuple[str, ...], repeat: bool, pace: Pace) -> None:
        self.path = path
        self.dropped: Counter[str] = Counter()
        self._classes = frozenset(classes)
        self._repeat = repeat
        self._pace = pace

    def schema(self) -> Schema:
        """What the samples look like."""
        raise NotImplementedError

    def rows(self, turn: int = 0) -> Iterator[Sample | None]:
        """Each sample once; None for one that was dropped and counted. turn: how many times it was read before."""
        raise NotImplementedError

    async def samples(self, skip: int = 0) -> AsyncIterator[Sample]:
        """The samples at the configured rate; without `repeat` it ends. Raises DataError.

        skip: how many to leave out at the beginning, at full speed, for who has read that far before.
        """
        turn = 0
        while True:
            usable = 0
            rows = self.rows(turn)
            while True:
                row = await asyncio.to_thread(next, rows, _END) if self.in_thread else next(rows, _END)
                if row is _END:
                    break
                if not isinstance(row, Sample):
                    await self._pace.breathe()
                    continue
                usable += 1
                if skip:
                    skip -= 1
                    await self._pace.breathe()
                    continue
                await self._pace.wait()
                yield row
            if not usable:
                why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
                raise DataError(f"{self.path}: holds no usable sample ({why or 'it is empty'})")
            if not self._repeat:
                return
            turn += 1 + skip // usable  # turns that would be left out as a whole are not even read
            skip %= usable

    def _sample(self, values: NDArray[np.float64] | Array, label: str | None, name: str | None = None) -> Sample | None:
        """A sample of one row, or None, counted, when it cannot be used."""
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is dropped as that
            x = np.asarray(values, np.float32)
        if not np.isfinite(x).all():
            self.dropped["non_finite"] += 1
            return None
        if label is not None and not usable_label(label):
            self.dropped["bad_label"] += 1
            return None
        if label is not None and self._classes and label not in self._classes:
            self.dropped["unknown_class"] += 1
            return None
        return Sample(x, label, name)


_END = object()
