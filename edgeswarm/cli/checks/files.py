"""What is on the disk: the config, the file the samples come from, the state folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config

_LEAST_FREE_MB, _LITTLE_FREE_MB = 10, 100
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


def config(config_file: Path | None) -> tuple[Finding, Config | None]:
    """The config as the agent would read it, and the finding about it."""
    from edgeswarm.agent.config import load
    from edgeswarm.errors import ConfigError

    try:
        settings, origins = load(config_file, {}, os.environ, complete=False)
        if not origins.files and not settings.node:
            todo = "edgeswarm config init > edgeswarm.toml, or name one with --config"
            return Finding("config", SKIP, "no config file found", todo), None
        load(config_file, {}, os.environ)
    except ConfigError as error:
        return Finding(
            "config", FAIL, str(error), "correct it; `edgeswarm config check FILE` says when it is good"
        ), None
    facts: dict[str, Any] = {"files": [str(file) for file in origins.files], "unused": list(origins.unused)}
    if origins.unused:
        return Finding(
            "config", WARN, f"these variables set nothing: {', '.join(origins.unused)}", "check their spelling", facts
        ), settings
    named = ", ".join(facts["files"]) or "the environment"
    return Finding("config", OK, f"{named}: node {settings.node} at site {settings.site}", "", facts), settings


def source(settings: Config) -> Finding:
    """Whether the file or folder of samples is there."""
    kind, path = settings.source.kind, settings.source.path
    if kind == "mqtt":
        return Finding("source", OK, f"samples come over MQTT, topic {settings.source.topic}")
    if not os.access(path, os.R_OK):
        why = "cannot be read" if Path(path).exists() else "does not exist"
        return Finding("source", FAIL, f"{path} {why}", "correct [source] path, or its permissions")
    return Finding("source", OK, f"{path} ({kind})")


def lock_holder(folder: Path) -> int | None:
    """Process number of the agent that uses `folder` now (0 if it did not leave one), None when none does."""
    import fcntl

    from edgeswarm.agent.store import LOCK

    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        return int(owner) if owner.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def state_folder(folder: Path, root: Path = Path("/")) -> list[Finding]:
    """Whether the state folder can be used, has room, outlives a reboot, and whether an agent holds it."""
    findings = [_writable(folder)]
    if findings[0].status == FAIL:
        return findings
    findings.append(_room(_standing(folder), root))
    holder = lock_holder(folder)
    if holder is not None:
        owner = f"process {holder}" if holder else "a process"
        findings.append(Finding("state-lock", OK, f"an agent is running on it ({owner})", "", {"pid": holder}))
    else:
        findings.append(Finding("state-lock", OK, "free: no agent is running on it", "", {"pid": None}))
    damaged = sorted(place.name for place in folder.glob("*.unusable-*"))
    if damaged:
        todo = "the storage may be failing; delete them when you have looked"
        findings.append(
            Finding("state-files", WARN, f"damaged and set aside: {', '.join(damaged)}", todo, {"damaged": damaged})
        )
    return findings


def _standing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _writable(folder: Path) -> Finding:
    import tempfile

    place = _standing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        from edgeswarm.agent.faults import fault_text

        return Finding(
            "state-folder",
            FAIL,
            fault_text("write to", place, error),
            f"give {place} to this user, or set another [state] folder",
        )
    return Finding(
        "state-folder", OK, f"{folder}, writable" if place == folder else f"{folder} will be made in {place}"
    )


def _room(place: Path, root: Path) -> Finding:
    info = os.statvfs(place)
    free_mb = info.f_bavail * info.f_frsize // 1_000_000
    kind = file_system(place, root)
    facts = {"free_mb": free_mb, "file_system": kind}
    text = f"{free_mb:,} MB free" + (f" ({kind})" if kind else "")
    if free_mb < _LEAST_FREE_MB:
        return Finding("state-space", FAIL, text, "free some space, or set another [state] folder", facts)
    if kind in _MEMORY_FILE_SYSTEMS:
        return Finding("state-space", WARN, f"{text}: gone after a reboot", "set a [state] folder on a disk", facts)
    if free_mb < _LITTLE_FREE_MB:
        return Finding("state-space", WARN, text, "free some space", facts)
    return Finding("state-space", OK, text, "", facts)


def file_system(place: Path, root: Path = Path("/")) -> str:
    """Kind of the file system that `place` is on, by the longest mount point above it; empty if that is not known."""
    try:
        mounts = (root / "proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = ("", "")
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        above = point == "/" or place.resolve().is_relative_to(point)
        if above and len(point) >= len(found[0]):
            found = (point, fields[2])
    return found[1]
