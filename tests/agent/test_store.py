"""The state on disk: whole or not at all. With real full disks, read-only mounts and kill -9."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.agent.snapshot import Unreadable, pack, unpack
from edgeswarm.agent.store import CURRENT, EPOCH, FRESH, PREVIOUS, Store, _write, epoch_without_disk
from edgeswarm.errors import ConfigError, StateError
from edgeswarm.wire.envelope import MOST_EPOCH


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own with 256 KiB; skipped where that cannot be made."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(tmp_path):
    state = {
        "text": "größer",
        "bytes": b"\x00\xff",
        "numbers": [1, -(2**63), 2**64 - 1, 0.1, True, None],
        "nested": {7: {"list": [[], {}]}},
        "scalar": np.float32(0.5),
        "arrays": [np.arange(6, dtype=np.uint16).reshape(2, 3), np.zeros((0, 4), np.float32), np.array(True)],
        "swapped": np.arange(3, dtype=">f8"),
        "strided": np.arange(10, dtype=np.int8)[::3],
    }
    with Store(tmp_path) as store:
        assert store.load() is None and store.faults == []
        size = store.save(state)
        assert size == (tmp_path / CURRENT).stat().st_size
    back = Store(tmp_path).load()
    assert back is not None
    for key in ("text", "bytes", "numbers", "nested", "scalar"):
        assert back[key] == state[key]
    for got, want in zip(back["arrays"], state["arrays"], strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape and (got == want).all()
    assert back["swapped"].tolist() == [0.0, 1.0, 2.0] and back["strided"].tolist() == [0, 3, 6, 9]
    back["arrays"][0][0, 0] = 9  # a copy that may be written to


@pytest.mark.parametrize("value", [object(), {1, 2}, 1 + 2j, np.array(["a"]), np.array([object()]), 2**64])
def test_what_cannot_be_saved_is_a_loud_bug(tmp_path, value):
    with Store(tmp_path) as store, pytest.raises(ValueError, match="cannot be saved"):
        store.save({"x": value})
    assert not (tmp_path / CURRENT).exists()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_state_or_unreadable(data):
    with contextlib.suppress(Unreadable):
        assert isinstance(unpack(data), dict)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_snapshot_never_does_worse_than_unreadable(at, byte):
    data = bytearray(pack({"x": np.arange(12.0).reshape(3, 4), "y": ["a", 1]}))
    data[at % len(data)] = byte
    with contextlib.suppress(Unreadable):
        unpack(bytes(data))


# ---- generations -----------------------------------------------------------------------------------------------------


def test_the_previous_generation_is_kept_and_used(tmp_path):
    with Store(tmp_path, wall_s=lambda: 5.0) as store:
        store.next_epoch()
        for n in range(3):
            store.save({"n": n})
    assert sorted(path.name for path in tmp_path.iterdir()) == [EPOCH, "lock", CURRENT, PREVIOUS]
    flip(tmp_path / CURRENT, -1)
    with Store(tmp_path) as store:
        assert store.load() == {"n": 1}
        assert store.loaded is not None
        assert (store.loaded.number, store.loaded.epoch, store.loaded.saved_at_s) == (2, 1, 5.0)
        assert len(store.faults) == 1 and "checksum" in store.faults[0] and "unusable-1" in store.faults[0]
        store.save({"n": 9})  # must not push out the good one: the bad one is out of the way
        assert Store(tmp_path).load() == {"n": 9}
        flip(tmp_path / CURRENT, -1)
        assert Store(tmp_path).load() == {"n": 1}
    assert (tmp_path / f"{CURRENT}.unusable-1").exists()


def test_both_damaged_is_reported_and_nothing_is_deleted(tmp_path):
    with Store(tmp_path) as store:
        store.save({"n": 0})
        store.save({"n": 1})
    (tmp_path / CURRENT).write_bytes(b"")
    flip(tmp_path / PREVIOUS, 0)
    with Store(tmp_path) as store:
        assert store.load() is None
        assert "cut short" in store.faults[0] and "not a state file" in store.faults[1]
        store.save({"n": 2})
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"{CURRENT}.unusable-1", f"{PREVIOUS}.unusable-1", CURRENT} <= names
    assert Store(tmp_path).load() == {"n": 2}


def test_saving_without_loading_spares_the_good_generation(tmp_path):
    with Store(tmp_path) as store:
        store.save({"n": 0})
        store.save({"n": 1})
    flip(tmp_path / CURRENT, -1)
    with Store(tmp_path) as store:
        store.save({"n": 2})
    flip(tmp_path / CURRENT, -1)
    assert Store(tmp_path).load() == {"n": 0}


def test_every_truncation_and_every_flipped_byte_is_noticed(tmp_path):
    with Store(tmp_path) as store:
        store.save({"x": np.arange(4.0)})
    whole = (tmp_path / CURRENT).read_bytes()
    for size in range(len(whole)):
        (tmp_path / CURRENT).write_bytes(whole[:size])
        assert Store(tmp_path).load() is None
    for at in range(len(whole)):
        if at in (10, 11):  # the two unused bytes of the header
            continue
        (tmp_path / CURRENT).write_bytes(whole)
        flip(tmp_path / CURRENT, at)
        assert Store(tmp_path).load() is None, at


def test_a_newer_format_is_kept_aside(tmp_path):
    with Store(tmp_path) as store:
        store.save({})
    flip(tmp_path / CURRENT, 8)
    with Store(tmp_path) as store:
        assert store.load() is None
        assert "another version" in store.faults[0] and "unusable-1" in store.faults[0]


def test_somebody_who_only_looks_changes_nothing(tmp_path):
    with Store(tmp_path) as store:
        store.save({"n": 0})
    flip(tmp_path / CURRENT, -1)
    looker = Store(tmp_path)
    assert looker.load() is None and "left where it is" in looker.faults[0]
    assert (tmp_path / CURRENT).exists()


def test_what_an_interrupted_write_left_is_cleared(tmp_path):
    with Store(tmp_path) as store:
        store.save({"n": 0})
    (tmp_path / FRESH).write_bytes(b"half")
    with Store(tmp_path) as store:
        assert store.load() == {"n": 0}
        assert not (tmp_path / FRESH).exists()


def test_a_cut_between_the_two_renames_loses_nothing_that_was_whole(tmp_path):
    with Store(tmp_path) as store:
        store.save({"n": 0})
        store.save({"n": 1})
    (tmp_path / CURRENT).replace(tmp_path / PREVIOUS)
    with Store(tmp_path) as store:
        assert store.load() == {"n": 1}
        store.save({"n": 2})
        assert store.loaded is not None and store.loaded.number == 3
    (tmp_path / CURRENT).unlink()
    assert Store(tmp_path).load() == {"n": 1}


def test_too_large_is_refused_and_not_read(tmp_path):
    with Store(tmp_path, limit_bytes=1000) as store:
        store.save({"n": 0})
        with pytest.raises(StateError, match="limit is 1000"):
            store.save({"x": bytes(1000)})
        assert store.load() == {"n": 0}
        (tmp_path / CURRENT).write_bytes(bytes(5000))
        assert store.load() is None and "larger than 1000" in store.faults[0]


# ---- one agent per folder, boot epoch --------------------------------------------------------------------------------


def test_two_agents_never_share_a_folder(tmp_path):
    with Store(tmp_path):
        with pytest.raises(ConfigError, match=f"in use by another agent .process {os.getpid()}."):
            Store(tmp_path).open()
        with pytest.raises(ConfigError):
            Store(tmp_path).save({})
    with Store(tmp_path) as store:
        store.open()  # again is a no-op


def test_each_start_has_a_greater_epoch(tmp_path):
    for expected in (1, 2, 3):
        with Store(tmp_path) as store:
            assert store.next_epoch() == expected
            assert (tmp_path / EPOCH).read_text().split()[0] == str(expected)
    with Store(tmp_path) as store:
        assert store.next_epoch(at_least=50) == 50
        assert store.next_epoch(at_least=50) == 51
        store.save({})
    (tmp_path / EPOCH).unlink()
    with Store(tmp_path) as store:
        assert store.next_epoch() == 52  # the state remembers


def test_a_damaged_epoch_never_goes_back(tmp_path):
    with Store(tmp_path, wall_s=lambda: 1.8e9) as store:
        store.next_epoch(at_least=7)
        (tmp_path / EPOCH).write_text("9 00000000\n")
        alone = store.next_epoch()
        assert alone == epoch_without_disk(1.8e9) + 1
        store.save({})
        (tmp_path / EPOCH).write_bytes(b"\xff" * 100)
        assert store.next_epoch() == alone + 1
        assert len(store.faults) == 2
    assert (tmp_path / f"{EPOCH}.unusable-2").exists()


def test_epochs_stay_within_what_peers_take(tmp_path):
    assert epoch_without_disk(0.0) == 1_000_000
    assert 1_000_000 < epoch_without_disk(1.8e9) < epoch_without_disk(4e9) < MOST_EPOCH
    with Store(tmp_path) as store:
        assert store.next_epoch(at_least=MOST_EPOCH) == MOST_EPOCH
        with pytest.raises(StateError, match="new name"):
            store.next_epoch()


# ---- disks that refuse -----------------------------------------------------------------------------------------------


def test_writing_to_a_full_device(tmp_path):
    (tmp_path / FRESH).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path / FRESH, b"x")


def test_a_full_disk_is_reported_and_the_old_state_survives(small_disk):
    with Store(small_disk / "state") as store:
        store.next_epoch()
        store.save({"x": bytes(50_000), "n": 0})
        (small_disk / "other").write_bytes(bytes(100_000))
        for _ in range(3):
            with pytest.raises(StateError, match=r"disk full: cannot save the state in .*; free some space there"):
                store.save({"x": bytes(150_000), "n": 1})
        assert not (small_disk / "state" / FRESH).exists()
        back = Store(small_disk / "state").load()
        assert back is not None and back["n"] == 0
        (small_disk / "other").unlink()
        store.save({"x": bytes(150_000), "n": 2})
        back = store.load()
        assert back is not None and back["n"] == 2


def test_a_disk_full_to_the_last_byte_gives_no_epoch(small_disk):
    with Store(small_disk / "state") as store:
        assert store.next_epoch() == 1
        with pytest.raises(OSError, match="No space left"), (small_disk / "other").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(StateError, match="disk full: cannot count this start"):
            store.next_epoch()
        (small_disk / "other").unlink()
        assert store.next_epoch() == 2


def test_a_disk_that_turned_read_only(small_disk):
    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    with Store(small_disk) as store:
        store.save({"n": 0})
    remount("ro")
    store = Store(small_disk)
    for attempt in (store.open, store.next_epoch, lambda: store.save({"n": 1})):
        with pytest.raises(StateError, match="read-only file system: cannot use the state folder"):
            attempt()
    assert store.load() == {"n": 0}
    remount("rw")
    store.save({"n": 1})
    store.close()
    assert Store(small_disk).load() == {"n": 1}


def test_a_path_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="a file is in the way"):
        Store(tmp_path / "file").open()
    with pytest.raises(StateError, match="part of the path is a file"):
        Store(tmp_path / "file" / "below").open()
    store = Store(tmp_path / "file" / "below")
    assert store.load() is None and "part of the path is a file" in store.faults[0]


SAVER = """
import sys
from edgeswarm.agent.store import Store
import numpy as np
with Store(sys.argv[1]) as store:
    state = store.load()
    n = 0 if state is None else int(state["x"][0])
    while True:
        n += 1
        print(n, flush=True)
        store.save({"x": np.full(20_000, n, np.float64)})
"""


@pytest.mark.slow
def test_kill_9_at_any_instant_costs_at_most_the_save_under_way(tmp_path):
    rng = random.Random(1)
    begun = 0
    for turn in range(400):  # a slow disk needs more turns for as much progress
        if turn >= 20 and begun > 20:
            break
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        begun = int(child.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.03))
        child.send_signal(signal.SIGKILL)
        for line in child.communicate()[0].splitlines():
            begun = int(line)
        with Store(tmp_path) as store:
            state = store.load()
            assert store.faults == []
        if state is None:
            assert begun == 1
            continue
        assert set(state["x"]) == {state["x"][0]}  # never a mixture
        assert begun - 1 <= state["x"][0] <= begun
    assert begun > 20
