"""What the operating system says about a file, as one line a person can act on."""

from __future__ import annotations

import errno
from pathlib import Path

_WHY = {
    errno.ENOSPC: ("disk full", "free some space there, or choose another place"),
    errno.EDQUOT: ("disk quota used up", "free some space there, or raise the quota"),
    errno.EROFS: (
        "read-only file system",
        "mount it writable, or choose another place; a worn card can turn read-only",
    ),
    errno.EACCES: ("no permission", "give this user the right to it, or choose another place"),
    errno.EPERM: ("no permission", "give this user the right to it, or choose another place"),
    errno.EIO: ("the storage fails (I/O error)", "look at the kernel log; the card or disk may be worn out"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "check the path"),
    errno.EEXIST: ("a file is in the way", "move it, or choose another place"),
    errno.EISDIR: ("this is a folder, not a file", "check the path"),
    errno.ENAMETOOLONG: ("the path is too long", "choose another place"),
    errno.EFBIG: ("the file would be larger than this process may write", "raise its file size limit"),
    errno.EMFILE: ("too many open files", "raise the limit of this process"),
    errno.ELOOP: ("a link stands where a plain file belongs", "remove it"),
}


def fault_text(doing: str, path: Path, error: OSError) -> str:
    """One line: what is wrong, what could not be done and where, what to do about it.

    doing: a verb with its object, "write the state to", that goes before the path.
    """
    why, remedy = _WHY.get(error.errno or 0, (error.strerror or str(error), "look at the system log"))
    return f"{why}: cannot {doing} {path}; {remedy}"
