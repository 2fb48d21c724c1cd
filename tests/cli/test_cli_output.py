from __future__ import annotations

import json
import math

import pytest

from edgeswarm.cli import output


def test_json_has_null_for_what_json_cannot_say(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": math.nan, "b": [math.inf, 1.5], 3: (True, None), "path": object})
    data = json.loads(capsys.readouterr().out)
    assert data["a"] is None and data["b"] == [None, 1.5] and data["3"] == [True, None]


def test_table_aligns_and_ignores_colour_in_widths(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["node", "n"], [["a", "1"], ["\x1b[31mlonger\x1b[0m", "1,000"]], "n")
    assert capsys.readouterr().out.splitlines() == ["node        n", "a           1", "longer  1,000"]
