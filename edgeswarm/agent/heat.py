"""Is the board too hot to train? Read from the kernel's thermal zones; `root` stands for /.

A board near the temperature at which it slows itself down should not be asked for more: everything on it would become
slow, inference included, and a fanless one would stay there. Training pauses some degrees below and goes on some
degrees further below, so that it does not flutter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from edgeswarm.agent.board import number_of, text_of
from edgeswarm.agent.profile_tables import Profile, Thermal

TRIPS = ("passive", "hot", "critical")
"""Kinds of trip points at which a board slows down or stops; "active" ones merely turn a fan up."""

UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8
"""Bits of the Raspberry Pi's throttle word: now. The same shifted left by 16: since boot."""

_COLDEST_C, _HOTTEST_C = -60.0, 250.0
"""Outside of this a zone speaks nonsense: units that are powered off report -256 °C and the like."""


class Reading(NamedTuple):
    """One thermal zone: its type, its temperature, and where the board slows itself down."""

    zone: str
    temperature_c: float
    limit_c: float

    @property
    def margin_c(self) -> float:
        """Degrees left."""
        return self.limit_c - self.temperature_c


class Verdict(NamedTuple):
    """temperature_c, limit_c: of the zone nearest its limit; None where the board reports none. reason: one clause,
    "" while training may go on."""

    too_hot: bool
    temperature_c: float | None
    limit_c: float | None
    reason: str


def readings(thermal: Thermal, root: Path = Path("/")) -> list[Reading]:
    """Every zone that the profile heeds and that answers, nearest its limit first. Never raises."""
    found = []
    try:
        zones = sorted((root / thermal.read.lstrip("/")).glob("thermal_zone*"))
    except OSError:
        return []
    for zone in zones:
        name = text_of(zone / "type") or zone.name
        if thermal.zones and not any(fnmatchcase(name.casefold(), known.casefold()) for known in thermal.zones):
            continue
        milli_c = number_of(zone / "temp")  # some zones answer with an error: they are skipped
        if milli_c is None or milli_c == 0 or not _COLDEST_C < milli_c / 1000 < _HOTTEST_C:
            continue
        limit_c = min([thermal.limit_c, *(trip / 1000 for trip in _trips(zone))])
        found.append(Reading(name, milli_c / 1000, limit_c))
    return sorted(found, key=lambda reading: reading.margin_c)


def _trips(zone: Path) -> list[int]:
    """Thousandths of a degree at which this zone slows the board down. Points that are switched off say 0 or less."""
    found = []
    for place in zone.glob("trip_point_*_temp"):
        milli_c = number_of(place)
        kind = text_of(place.with_name(place.name.removesuffix("_temp") + "_type"))
        if kind in TRIPS and milli_c is not None and milli_c > 0:
            found.append(milli_c)
    return found


def throttle_word(source: str, root: Path = Path("/")) -> int | None:
    """The Raspberry Pi's throttle word; None where `source` is empty, absent or no such word."""
    try:
        return int(text_of(root / source.lstrip("/")), 16) if source else None
    except ValueError:
        return None


class Heat:
    """Whether training has to pause, asked as often as one likes: the zones are read once in `thermal.poll_s`.

    A board that reports no temperature is never too hot. Not safe for several threads at once.
    """

    def __init__(self, thermal: Thermal, root: Path = Path("/"), now_s: Callable[[], float] = time.monotonic) -> None:
        self._thermal = thermal
        self._root = root
        self._now_s = now_s
        self._read_at_s: float | None = None
        self._last = Verdict(False, None, None, "")

    @classmethod
    def of(cls, profile: Profile, root: Path = Path("/")) -> Heat:
        """With the margins and sensors of a firmware profile."""
        return cls(profile.thermal, root)

    def verdict(self) -> Verdict:
        """What the sensors say now, or said less than `poll_s` ago. Never raises."""
        now_s = self._now_s()
        if self._read_at_s is None or now_s - self._read_at_s >= self._thermal.poll_s:
            self._read_at_s = now_s
            self._last = self._look()
        return self._last

    def _look(self) -> Verdict:
        thermal = self._thermal
        word = throttle_word(thermal.throttle_source, self._root) or 0
        # A weak power supply throttles too (under-voltage), and a pause would not cure that.
        slowed = bool(word & THROTTLED) and not word & UNDER_VOLTAGE
        nearest = next(iter(readings(thermal, self._root)), None)
        if nearest is None:
            return Verdict(slowed, None, None, "the firmware has slowed the processor down" if slowed else "")
        # Once paused, the wider margin counts.
        wanted_c = thermal.resume_margin_c if self._last.too_hot else thermal.pause_margin_c
        near = nearest.margin_c < wanted_c if self._last.too_hot else nearest.margin_c <= wanted_c
        text = ""
        if near or slowed:
            left = nearest.margin_c
            side = f"{left:.0f} °C below" if left >= 0 else f"{-left:.0f} °C above"
            text = f"{nearest.zone} is at {nearest.temperature_c:.0f} °C, {side} its limit of {nearest.limit_c:.0f} °C"
            if slowed:
                text += ", and the firmware has slowed the processor down"
        return Verdict(near or slowed, nearest.temperature_c, nearest.limit_c, text)
