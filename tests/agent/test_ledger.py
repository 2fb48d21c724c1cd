"""Decisions on disk: bounded, in order, and still readable after a cut."""

from __future__ import annotations

import json
import math
import os
import subprocess

import pytest

from edgeswarm.agent.ledger import MEMORY_ENTRIES, NAME, PREVIOUS_NAME, Ledger
from edgeswarm.strategies.base import Decision


def decision(n: int, **more) -> Decision:
    values = {"kind": "share", "outcome": "sent", "reason": "moved", "facts": {"distance": n / 2}} | more
    return Decision(at=float(n), **values)


def numbers(entries) -> list[int]:
    return [int(entry.decision.at) for entry in entries]


def test_decisions_come_back_newest_first_whole(tmp_path):
    ledger = Ledger(tmp_path, epoch=4, wall_s=lambda: 1000.25)
    facts = {"distance": 0.125, "limit": math.inf, "low": -math.inf, "odd": math.nan}
    ledger.record(decision(1, facts=facts, peer="küche"))
    ledger.record(decision(2))
    assert numbers(ledger.read()) == [2, 1]
    assert not list(tmp_path.iterdir())  # nothing is written before the state is saved
    assert ledger.flush() and ledger.fault is None
    ledger.record(decision(3))
    assert numbers(ledger.read()) == [3, 2, 1]
    entry = Ledger(tmp_path).read()[-1]
    assert (entry.epoch, entry.wall_s, entry.decision.peer) == (4, 1000.25, "küche")
    assert math.isnan(entry.decision.facts["odd"])
    assert {name: entry.decision.facts[name] for name in ("distance", "limit", "low")} == {
        name: facts[name] for name in ("distance", "limit", "low")
    }
    for line in (tmp_path / NAME).read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_filters(tmp_path):
    now = iter(range(100))
    ledger = Ledger(tmp_path, wall_s=lambda: float(next(now)))
    ledger.record(decision(0, kind="peer", outcome="muted", peer="a"))
    ledger.record(decision(1, outcome="held"))
    ledger.record(decision(2, peer="a"))
    ledger.flush()
    ledger.record(decision(3, peer="b"))
    assert numbers(ledger.read(kind="share")) == [3, 2, 1]
    assert numbers(ledger.read(outcome="held")) == [1]
    assert numbers(ledger.read(peer="a")) == [2, 0]
    assert numbers(ledger.read(peer="a", kind="peer")) == [0]
    assert numbers(ledger.read(since_s=2.0)) == [3, 2]
    assert numbers(ledger.read(limit=2)) == [3, 2]


def test_the_files_never_exceed_the_limit_and_keep_the_newest(tmp_path):
    limit_bytes = 6_000
    ledger = Ledger(tmp_path, limit_bytes)
    for n in range(500):
        ledger.record(decision(n))
        if n % 7 == 0:
            assert ledger.flush()
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit_bytes
    ledger.flush()
    kept = numbers(Ledger(tmp_path).read())
    assert kept == list(range(499, 499 - len(kept), -1))
    assert len(kept) >= 20
    assert {path.name for path in tmp_path.iterdir()} == {NAME, PREVIOUS_NAME}
    assert ledger.lost == 0


def test_a_batch_larger_than_the_limit_is_cut_into_files(tmp_path):
    ledger = Ledger(tmp_path, 6_000)
    for n in range(300):
        ledger.record(decision(n))
    assert ledger.flush()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6_000
    assert numbers(Ledger(tmp_path).read())[:3] == [299, 298, 297]


def test_a_torn_last_line_costs_only_itself(tmp_path):
    ledger = Ledger(tmp_path)
    for n in range(3):
        ledger.record(decision(n))
    ledger.flush()
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-9])
    again = Ledger(tmp_path)
    again.record(decision(7))
    again.flush()
    assert numbers(Ledger(tmp_path).read()) == [7, 1, 0]


def test_foreign_lines_are_left_out(tmp_path):
    (tmp_path / NAME).write_bytes(b'\n[]\n{}\n{"at": "x"}\n\xff\xfe\n' + b"[" * 100_000 + b"\nnull\n")
    ledger = Ledger(tmp_path)
    ledger.record(decision(1))
    ledger.flush()
    assert numbers(Ledger(tmp_path).read()) == [1]


def test_an_endless_decision_is_counted_not_kept(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.record(decision(1, reason="x" * 10_000))
    ledger.record(decision(2))
    assert ledger.flush() and ledger.lost == 1
    assert numbers(Ledger(tmp_path).read()) == [2]


def test_without_a_folder_the_newest_are_remembered():
    ledger = Ledger(None)
    for n in range(MEMORY_ENTRIES + 5):
        ledger.record(decision(n))
    assert ledger.flush()
    entries = ledger.read()
    assert len(entries) == MEMORY_ENTRIES and numbers(entries)[0] == MEMORY_ENTRIES + 4
    assert ledger.lost == 0


def test_a_folder_that_cannot_be_used_is_reported_and_the_newest_are_remembered(tmp_path):
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file")
    for n in range(MEMORY_ENTRIES):
        ledger.record(decision(n))
    assert not ledger.flush()
    assert ledger.fault is not None and "part of the path is a file" in ledger.fault
    ledger.record(decision(MEMORY_ENTRIES))
    assert ledger.lost == 1
    assert numbers(ledger.read(limit=1)) == [MEMORY_ENTRIES]
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    assert ledger.flush() and ledger.fault is None
    assert len(Ledger(tmp_path / "file").read()) == MEMORY_ENTRIES


def test_a_full_device_is_counted_and_tried_again(tmp_path):
    (tmp_path / NAME).symlink_to("/dev/full")
    ledger = Ledger(tmp_path)
    ledger.record(decision(1))
    assert not ledger.flush()
    assert ledger.fault is not None and ledger.fault.startswith("disk full: cannot write the ledger")
    (tmp_path / NAME).unlink()
    assert ledger.flush()
    assert numbers(Ledger(tmp_path).read()) == [1]


def test_a_full_disk_leaves_no_torn_line(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        ledger = Ledger(place)
        flushed = 0
        while ledger.fault is None:
            for n in range(50):
                ledger.record(decision(flushed + n))
            if ledger.flush():
                flushed += 50
        assert flushed and "disk full" in ledger.fault
        assert (place / NAME).read_bytes().endswith(b"\n")
        assert len(ledger.read()) == flushed + 50
        assert os.statvfs(place).f_bfree <= 16
    finally:
        subprocess.run(["umount", str(place)], check=True)
