"""Files that are written whole or not at all: on a full disk, or after a kill, what was there before stays."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path, *, one_writer: bool = False) -> Iterator[Path]:
    """What to write in place of `path`, in the same folder: it takes that place when the block ends. If that fails,
    nothing of it is left, for a full disk needs the room. Nothing is forced to the disk. Raises OSError.

    A link stays, and the file it names is replaced. What is no plain file (a pipe, /dev/null) is written to as it is.

    one_writer: nobody else writes this file meanwhile. Its name until then is always the same, so that however often
    the writer is killed, one file at most is left over.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    fresh = path.with_name(f"{path.name}.new") if one_writer else beside(path, "new")
    try:
        yield fresh
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def beside(path: Path, word: str) -> Path:
    """A name of nobody's in the same folder."""
    return path.with_name(f".{path.name}.{word}-{os.urandom(4).hex()}")


def force_folder(folder: Path) -> None:
    """Force the names in a folder to the disk. File systems that cannot do this for folders are left to their own.

    Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
