"""The agent's state on disk: whole or not at all, whenever the power goes.

# Theory. A new state is written to a file of its own and forced to the disk; then two renames, each of which happens
# or does not, make the current state the previous one and the new state the current one; then the folder itself is
# forced to the disk. Power cut before the first rename: the current state is there. Between the two: the previous one
# is, and it is the newest that was ever complete. After: both are. Each file carries its length and a checksum, so a
# card that lies about what it has written costs one generation, not the node.

Writes are as seldom as the caller makes them (ops: storage that wears out); nothing is pickled, see `snapshot`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.snapshot import Unreadable, pack, unpack
from edgeswarm.errors import ConfigError, StateError
from edgeswarm.whole_file import force_folder
from edgeswarm.wire.envelope import MOST_EPOCH

MAGIC = b"edgeswrm"
FORMAT = 1
LIMIT_BYTES = 64 * 1024 * 1024
EPOCH_FLOOR = 1_000_000

CURRENT, PREVIOUS, FRESH = "state.msgpack", "state.previous.msgpack", "state.msgpack.new"
EPOCH, EPOCH_FRESH, LOCK = "epoch", "epoch.new", "lock"

# magic, format, unused, boot epoch, generation, wall-clock seconds, length of what follows, its checksum
_HEADER = struct.Struct("<8sHHIQdQ16s")


@dataclass(frozen=True, slots=True)
class Generation:
    """What a state file says about itself. saved_at_s: wall clock, for people; never used to order anything."""

    number: int
    epoch: int
    saved_at_s: float
    bytes: int


class Store:
    """One agent's state folder. Not to be entered by two threads at once; `save` may run in a worker thread.

    faults: one line for everything found wrong with the folder's files, to be reported by the caller.
    loaded: what the state last loaded or saved says about itself.

    Raises StateError when the folder cannot be used; learning goes on without it and a later `save` tries afresh.
    """

    def __init__(
        self, folder: Path | str, wall_s: Callable[[], float] = time.time, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self.folder = Path(folder)
        self.faults: list[str] = []
        self.loaded: Generation | None = None
        self.epoch = 0
        self._wall_s = wall_s
        self._limit_bytes = limit_bytes
        self._number = 0
        self._surveyed = False
        self._lock: int | None = None

    def __enter__(self) -> Store:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the folder if need be and claim it for this process; a no-op when it is claimed already.

        Raises ConfigError when another agent uses the folder, StateError when it cannot be made or written.
        """
        if self._lock is not None:
            return
        path = self.folder / LOCK
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(fault_text("use the state folder", self.folder, error)) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise ConfigError(
                f"state folder {self.folder} is in use by another agent (process {owner or 'unknown'}); "
                "give each agent its own [state] folder"
            ) from None
        except OSError as error:
            os.close(lock)
            raise StateError(fault_text("lock the state folder", self.folder, error)) from None
        self._lock = lock
        with contextlib.suppress(OSError):  # the number is a help for people; on a full disk the lock holds without it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        for left_over in (FRESH, EPOCH_FRESH):  # an interrupted write; never complete enough to be trusted
            with contextlib.suppress(OSError):
                (self.folder / left_over).unlink()

    def close(self) -> None:
        """Let the folder go. The files stay."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ---- state -------------------------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> int:
        """Make `state` the current generation; returns its bytes on disk.

        state: as `snapshot.pack` takes it. Raises StateError when it could not be written (what was saved before is
        untouched then), ValueError when it holds what cannot be saved.
        """
        body = pack(state)
        if _HEADER.size + len(body) > self._limit_bytes:
            raise StateError(f"the state is {len(body)} bytes, the limit is {self._limit_bytes}; it was not saved")
        self.open()
        if not self._surveyed:  # nobody has loaded: an unusable file must not push out the good one behind it
            self._survey()
        number, saved_at_s = self._number + 1, self._wall_s()
        check = _checksum(FORMAT, self.epoch, number, saved_at_s, body)
        header = _HEADER.pack(MAGIC, FORMAT, 0, self.epoch, number, saved_at_s, len(body), check)
        current = self.folder / CURRENT
        try:
            _write(self.folder / FRESH, header + body)
            with contextlib.suppress(FileNotFoundError):  # the first save, or the one after a cut between two renames
                current.replace(self.folder / PREVIOUS)
            (self.folder / FRESH).replace(current)
            force_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):  # a half-written file would keep a full disk full
                (self.folder / FRESH).unlink()
            raise StateError(fault_text("save the state in", self.folder, error)) from None
        self._number = number
        self.loaded = Generation(number, self.epoch, saved_at_s, len(header) + len(body))
        return len(header) + len(body)

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, or None when there is none; `faults` says what was wrong with the others.

        A file that is not whole is moved aside (never deleted), so that no later save can write over it.
        """
        for name, generation, body in self._survey():
            try:
                state = unpack(body)
            except Unreadable as error:
                self.faults.append(f"{self.folder / name}: {error}; {self._set_aside(name)}")
                continue
            self.loaded = generation
            return state
        return None

    def _survey(self) -> list[tuple[str, Generation, bytes]]:
        """(file name, what it says, state) of the state files that are whole, the newest first."""
        whole: list[tuple[str, Generation, bytes]] = []
        for name in (CURRENT, PREVIOUS):
            try:
                whole.append((name, *self._read(name)))
            except FileNotFoundError:
                continue
            except Unreadable as error:
                self.faults.append(f"{self.folder / name}: {error}; {self._set_aside(name)}")
            except OSError as error:
                self.faults.append(fault_text("read", self.folder / name, error))
        whole.sort(key=lambda found: found[1].number, reverse=True)
        if self._lock is not None:
            self._surveyed = True
        self._number = max([self._number, *(generation.number for _, generation, _ in whole)])
        return whole

    def _read(self, name: str) -> tuple[Generation, bytes]:
        """What one state file holds. Raises Unreadable when it is not whole, OSError when it cannot be read."""
        with (self.folder / name).open("rb") as file:
            data = file.read(self._limit_bytes + 1)
        if len(data) > self._limit_bytes:
            raise Unreadable(f"larger than {self._limit_bytes} bytes")
        if len(data) < _HEADER.size:
            raise Unreadable(f"cut short: {len(data)} bytes, the header alone has {_HEADER.size}")
        magic, form, _, epoch, number, saved_at_s, length, check = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise Unreadable("not a state file")
        if form != FORMAT:
            raise Unreadable(f"written in format {form} by another version; this one reads format {FORMAT}")
        body = data[_HEADER.size :]
        if len(body) != length:
            raise Unreadable(f"cut short: {len(body)} bytes of state where {length} were written")
        if _checksum(form, epoch, number, saved_at_s, body) != check:
            raise Unreadable("damaged: its checksum does not hold")
        return Generation(number, epoch, saved_at_s, len(data)), body

    def _set_aside(self, name: str) -> str:
        """Rename an unusable file to the first free <name>.unusable-N; what became of it, in words.

        Only the agent that holds the folder does so; somebody who merely looks in leaves everything as it is.
        """
        if self._lock is None:
            return "left where it is"
        for number in range(1, 10_000):
            aside = self.folder / f"{name}.unusable-{number}"
            if not aside.exists():
                try:
                    (self.folder / name).replace(aside)
                except OSError:
                    return "left where it is"
                return f"kept as {aside.name}"
        return "left where it is"

    # ---- boot epoch --------------------------------------------------------------------------------------------------

    def next_epoch(self, at_least: int = 0) -> int:
        """The number of this start, greater than at any earlier one, on disk before it is returned; the first is 1.

        at_least: the result is not below it; for a caller that knows more than the disk (a retained birth of its own,
        an earlier start with `epoch_without_disk`). Should the counter's file be damaged, the states' own record is
        used, and where there is none, `epoch_without_disk`.

        Raises StateError when it cannot be written: an epoch that might be given out twice is not given out at all.
        """
        self.open()
        known = self._epochs_of_states()
        path = self.folder / EPOCH
        try:
            known.append(_read_epoch(path))
        except FileNotFoundError:
            pass
        except Unreadable as error:
            self.faults.append(f"{path}: {error}; {self._set_aside(EPOCH)}")
            if not known:
                known.append(epoch_without_disk(self._wall_s()))
        except OSError as error:
            raise StateError(fault_text("read", path, error)) from None
        epoch = max(max([0, *known]) + 1, at_least)
        if epoch > MOST_EPOCH:
            raise StateError(f"{path}: the boot epoch has reached {MOST_EPOCH}; set the node up under a new name")
        try:
            _write(self.folder / EPOCH_FRESH, _epoch_text(epoch))
            (self.folder / EPOCH_FRESH).replace(path)
            force_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                (self.folder / EPOCH_FRESH).unlink()
            raise StateError(fault_text("count this start in", self.folder, error)) from None
        self.epoch = epoch
        return epoch

    def _epochs_of_states(self) -> list[int]:
        epochs = []
        for name in (CURRENT, PREVIOUS):
            with contextlib.suppress(OSError, Unreadable):
                epochs.append(self._read(name)[0].epoch)
        return epochs


def epoch_without_disk(wall_s: float) -> int:
    """A boot epoch for a node that cannot keep count: tens of minutes of the wall clock, at least EPOCH_FLOOR.

    More than any counted one, so peers do not take the node for its own past. It is the last resort: on a board whose
    clock stands still two starts may get the same number.
    """
    return min(max(EPOCH_FLOOR, int(wall_s // 600)), MOST_EPOCH)


def _epoch_text(epoch: int) -> bytes:
    check = blake2b(str(epoch).encode(), digest_size=4).hexdigest()
    return f"{epoch} {check}\n".encode()


def _read_epoch(path: Path) -> int:
    with path.open("rb") as file:
        data = file.read(64)
    word = data.split(b" ")[0]
    if not word.isdigit() or _epoch_text(int(word)) != data or int(word) > MOST_EPOCH:
        raise Unreadable("damaged: not a boot epoch with its checksum")
    return int(word)


def _checksum(form: int, epoch: int, number: int, saved_at_s: float, body: bytes) -> bytes:
    check = blake2b(struct.pack("<HIQd", form, epoch, number, saved_at_s), digest_size=16)
    check.update(body)
    return check.digest()


def _write(path: Path, data: bytes) -> None:
    """Write a whole file and force it to the disk. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            written = os.write(handle, view)
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            view = view[written:]
        os.fsync(handle)
    finally:
        os.close(handle)
