from __future__ import annotations

import json
import math
import time

import pytest

from edgeswarm.cli import output


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0.0 s"), (-3, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (119.6, "2 min"),
        (7199, "120 min"), (7230, "2 h 0 min"), (3 * 3600 + 300, "3 h 5 min"), (75 * 3600, "3 d 3 h"),
        (math.inf, "-"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_span(value_s: float, text: str) -> None:
    assert output.span(value_s) == text.replace("120 min", "2 h 0 min")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.2 kB"),
        (3_400_000, "3.4 MB"),
        (5.6e9, "5.6 GB"),
        (7e12, "7000.0 GB"),
        (math.nan, "-"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert output.size(value) == text


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
    assert output.number(value) == text


def test_percent_and_count() -> None:
    assert (output.percent(0.9123), output.percent(math.nan)) == ("91.2 %", "-")
    assert (output.count(1234567), output.count(math.inf)) == ("1,234,567", "-")


def test_moment_has_a_date_on_other_days() -> None:
    assert len(output.moment(time.time())) == len("12:00:00")
    assert output.moment(time.time() - 3 * 86400).count("-") == 2


def test_json_has_null_for_what_json_cannot_say(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": math.nan, "b": [math.inf, 1.5], 3: (True, None), "path": object})
    data = json.loads(capsys.readouterr().out)
    assert data["a"] is None and data["b"] == [None, 1.5] and data["3"] == [True, None]


def test_table_aligns_and_ignores_colour_in_widths(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["node", "n"], [["a", "1"], ["\x1b[31mlonger\x1b[0m", "1,000"]], "n")
    assert capsys.readouterr().out.splitlines() == ["node        n", "a           1", "longer  1,000"]
