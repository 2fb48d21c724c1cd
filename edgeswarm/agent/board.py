"""Facts about the machine this runs on, from the kernel's files alone. `root` stands for /: a copy of them will do."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT_BYTES = 1 << 60
"""Control groups of version 1 write "no limit" as a number above this."""
_FILE_LIMIT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Board:
    """What the kernel says. None, "" and () where it does not say.

    machine: as `uname -m`, of the interpreter: a 32-bit one on a 64-bit kernel is "armv7l".  model, compatible: of the
    device tree.  l4t: Jetson Linux release, e.g. (36, 4, 3).  os: ("debian", "12").  features: words of the
    processor's Features (flags) line.  cgroup_limit_bytes: the smallest memory limit of this process's control group
    and of those above it.  limit_enforced: whether the kernel heeds such limits.
    """

    machine: str
    model: str
    compatible: tuple[str, ...]
    l4t: tuple[int, ...]
    os: tuple[str, str]
    cores: int
    features: frozenset[str]
    ram_bytes: int | None
    cgroup_limit_bytes: int | None
    limit_enforced: bool | None


def board(root: Path = Path("/"), machine: str | None = None) -> Board:
    """The facts below `root`. Never raises: a file that is missing or cannot be read says nothing."""
    memory = _meminfo(root)
    model, compatible = _device_tree(root)
    cores, features = _cpuinfo(root)
    return Board(
        machine=_machine() if machine is None else machine,
        model=model,
        compatible=compatible,
        l4t=_l4t(text_of(root / "etc/nv_tegra_release")),
        os=_os(text_of(root / "etc/os-release")),
        cores=cores,
        features=features,
        ram_bytes=memory.get("MemTotal"),
        cgroup_limit_bytes=_cgroup_limit(root),
        limit_enforced=limit_enforced(root),
    )


def text_of(path: Path) -> str:
    """Contents of a small file without the zeros and blanks at the end; "" if it cannot be read.

    Files of the kernel answer with errors when a sensor sleeps, and with zeros at the end of device-tree texts.
    """
    try:
        with path.open("rb") as file:
            return file.read(_FILE_LIMIT_BYTES).decode("utf-8", "replace").rstrip("\0 \n")
    except (OSError, ValueError):
        return ""


def number_of(path: Path) -> int | None:
    """The whole number in a small file; None if there is none."""
    try:
        return int(text_of(path))
    except ValueError:
        return None


def limit_enforced(root: Path = Path("/")) -> bool | None:
    """Whether MemoryMax= of a service means anything; None without control groups.

    Raspberry Pi kernels start with memory accounting off; /proc/cgroups misleads, the list of controllers does not.
    """
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    if controllers.exists():
        return "memory" in text_of(controllers).split()
    return True if (root / "sys/fs/cgroup/memory").is_dir() else None


def _machine() -> str:
    """`uname -m`, but of this interpreter: Raspberry Pi OS runs 32-bit programs on a 64-bit kernel."""
    machine = platform.machine()
    if machine in ("aarch64", "arm64"):
        return "aarch64" if sys.maxsize > 2**32 else "armv7l"
    return "x86_64" if machine.casefold() in ("x86_64", "amd64") else machine


def _device_tree(root: Path) -> tuple[str, tuple[str, ...]]:
    for folder in (root / "proc/device-tree", root / "sys/firmware/devicetree/base"):
        model, compatible = text_of(folder / "model"), text_of(folder / "compatible")
        if model or compatible:
            return model, tuple(entry for entry in compatible.split("\0") if entry)
    return "", ()


def _l4t(text: str) -> tuple[int, ...]:
    """(36, 4, 3) from "# R36 (release), REVISION: 4.3, ...": the first line of /etc/nv_tegra_release."""
    found = re.match(r"#?\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4})*)", text)
    return (int(found[1]), *map(int, found[2].split("."))) if found else ()


def _os(text: str) -> tuple[str, str]:
    """ID and VERSION_ID of os-release(5)."""
    words = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return words.get("ID", "").strip("\"'"), words.get("VERSION_ID", "").strip("\"'")


def _cpuinfo(root: Path) -> tuple[int, frozenset[str]]:
    """Processors that may be used (at least 1) and the words all of them know."""
    count, features = 0, None
    for line in text_of(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "processor":
            count += 1
        elif name.strip() in ("Features", "flags"):  # ARM, x86
            words = frozenset(value.split())
            features = words if features is None else features & words
    if root == Path("/"):  # only about this very machine can the kernel be asked what this process may use
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(count, allowed) if count else allowed
    return max(count, 1), features or frozenset()


def _meminfo(root: Path) -> dict[str, int]:
    """Bytes by name, from lines such as "MemTotal:  931456 kB"."""
    found = {}
    for line in text_of(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * 1024
    return found


def _cgroup_limit(root: Path) -> int | None:
    """The smallest memory limit that holds for this process: a service obeys those of its slice too."""
    limits = []
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in inner.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            limit = number_of(top.joinpath(*parts[:depth], name))  # "max": no number, no limit
            if limit is not None and 0 < limit < _NO_LIMIT_BYTES:
                limits.append(limit)
    return min(limits, default=None)
