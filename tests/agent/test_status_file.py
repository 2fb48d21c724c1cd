from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest

from edgeswarm.agent.status_file import NAME, write_status


def read(folder):
    return json.loads((folder / NAME).read_text("utf-8"))


def full(monkeypatch):
    """From here on no new file gets any block."""

    def refuse(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", refuse)


def test_numbers_that_are_none_are_left_out(tmp_path):
    notes = {"a": math.nan, "b": np.float32(0.5), "c": math.inf, "d": np.int64(3), "e": True}
    write_status(tmp_path, {"notes": notes, "node": "ä"})
    assert read(tmp_path) == {"notes": {"b": 0.5, "d": 3, "e": True}, "node": "ä"}
    assert (tmp_path / NAME).stat().st_size % 4096 == 0
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_on_a_full_disk_the_file_that_is_there_is_overwritten(tmp_path, monkeypatch):
    write_status(tmp_path, {"disk_fault": "", "links": {}})
    size = (tmp_path / NAME).stat().st_size
    full(monkeypatch)
    links = {f"peer-{n}": {"age_s": 1.0} for n in range(500)}
    write_status(tmp_path, {"disk_fault": "disk full", "links": links})
    assert read(tmp_path) == {"disk_fault": "disk full", "links": {}}
    assert (tmp_path / NAME).stat().st_size == size
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_trouble_is_the_callers(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        write_status(tmp_path / "none", {})
    full(monkeypatch)
    with pytest.raises(FileNotFoundError):
        write_status(tmp_path, {})
