"""status.json beside the state, for `edgeswarm status` and for whoever watches a node from its own machine.

Written whole and renamed, so a reader never sees half of one; not forced to the disk, since it is of no use after a
crash. On a full disk, of all times, it must still say so: then the file that is there is overwritten in place, which
takes no new block. For that it is padded with spaces, which JSON allows, to a whole number of blocks.
"""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

from edgeswarm.whole_file import whole

NAME = "status.json"
_BLOCK_BYTES = 4096


def write_status(folder: Path | str, status: dict[str, Any]) -> None:
    """Replace the folder's status.json. Numbers that are not finite are left out (JSON has none).

    Raises OSError when it could not be written in either way.
    """
    path = Path(folder, NAME)
    try:
        with whole(path, one_writer=True) as fresh:
            fresh.write_bytes(_padded(status))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _overwrite(path, status)


def _overwrite(path: Path, status: dict[str, Any]) -> None:
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, 2)
        data = _padded(status)
        if len(data) > size:  # what a person needs to mend it comes first
            data = _padded({**status, "links": {}})
        if len(data) <= size:
            file.seek(0)
            file.write(data.ljust(size))


def _padded(status: dict[str, Any]) -> bytes:
    data = json.dumps(_finite(status), allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
    return data.ljust(math.ceil((len(data) + 1) / _BLOCK_BYTES) * _BLOCK_BYTES - 1) + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items() if not _is_unusable(inner)}
    return value.item() if hasattr(value, "item") else value


def _is_unusable(value: Any) -> bool:
    return hasattr(value, "__float__") and not math.isfinite(value)
