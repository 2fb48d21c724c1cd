"""Numbers as people read them, at the borders of their units above all."""

from __future__ import annotations

import math
import time

import pytest

from edgeswarm import readable


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0.0 s"), (-3, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (119.6, "2 min"),
        (200, "3 min 20 s"), (599, "9 min 59 s"), (599.6, "10 min"), (640, "11 min"), (7230, "2 h 0 min"),
        (7199, "2 h 0 min"), (3 * 3600 + 300, "3 h 5 min"), (48 * 3600 - 1, "2 d 0 h"), (75 * 3600, "3 d 3 h"),
        (math.inf, "-"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_span(value_s: float, text: str) -> None:
    assert readable.span(value_s) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0 s"), (24e-6, "24 µs"), (0.00251, "2.51 ms"), (0.0009996, "1 ms"), (0.9996, "1 s"), (7.25, "7.25 s"),
        (9.996, "10 s"), (200, "3 min 20 s"), (None, "-"), (math.inf, "-"),
    ],
)  # fmt: skip
def test_brief(value_s: float | None, text: str) -> None:
    assert readable.brief(value_s) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"), (999, "999 B"), (999.6, "1.0 kB"), (1234, "1.2 kB"), (99_949, "99.9 kB"), (99_960, "100 kB"),
        (386_000, "386 kB"), (999_960, "1.0 MB"), (3_400_000, "3.4 MB"), (-2_000, "-2.0 kB"), (5.6e9, "5.6 GB"),
        (2e12, "2.0 TB"), (5e15, "5,000 TB"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_size(value: float, text: str) -> None:
    assert readable.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345, "12,345"),
        (0.08123, "0.0812"),
        (1234.5, "1,234"),
        (1e-6, "1e-06"),
        (math.nan, "-"),
        (-0.5, "-0.5"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert readable.number(value) == text


def test_percent_and_count() -> None:
    assert [readable.percent(part) for part in (0.9123, math.nan, None)] == ["91.2 %", "-", "-"]
    assert (readable.percent(0.873, 0), readable.percent(1.0, 0)) == ("87 %", "100 %")
    assert (readable.count(1234567), readable.count(math.inf)) == ("1,234,567", "-")


def test_moment_has_a_date_on_other_days() -> None:
    assert len(readable.moment(time.time())) == len("12:00:00")
    assert readable.moment(time.time() - 3 * 86400).count("-") == 2
