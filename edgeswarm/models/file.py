"""A model file: a folder or a zip archive of a card, graphs, start vector and reference values.

Reading believes nothing: every member is of a known name, a plain file, no larger than the limits and as the card's
sha256 says; nothing is unpickled, followed elsewhere or unpacked beyond what was declared. Writing is whole or not at
all, and the same model gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.models.content import (
    CARD,
    COPY,
    Model,
    Unusable,
    is_member,
    pack,
    read_head,
    seal,
    too_large,
    unpack,
)
from edgeswarm.models.limits import Limits
from edgeswarm.whole_file import beside, force_folder, whole

__all__ = ["SUFFIX", "Model", "check_place", "read", "seal", "write"]

SUFFIX = ".esm"
"""Of a model archive; a path without it is a folder when written."""

_ONE_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time zip knows; every member carries it, so that archives of one model are equal."""

_PLAIN_FILE = 0o100644 << 16
_END = struct.Struct("<4s4H2LH")
_LOCATOR_BYTES = 20
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip
"""What zipfile raises for bytes it does not like."""


def read(path: Path | str, limits: Limits | None = None, allowed: Collection[str] | None = None) -> Model:
    """The model in a folder or an archive, checked throughout.

    limits: `Limits()` by default.  allowed: operators the graphs may use, None for any (`backends.operators` has the
    table). Raises ModelError, one line with file, member and what to do.
    """
    path, limits = Path(path), limits or Limits()
    try:
        members = _read_folder(path, limits) if path.is_dir() else _read_archive(path, limits)
        return unpack(members, limits, allowed)
    except Unusable as error:
        raise ModelError(f"{path}: {error.member}: {error}" if error.member else f"{path}: {error}") from None
    except MemoryError:
        raise OutOfMemory(f"{path}: no memory to read this model; choose a smaller one, or free some") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None


def check_place(path: Path | str) -> None:
    """Whether a model could be written to `path`, by trying: called before hours of work, not after.

    Raises ModelError, as `write` would: something else is in the way, no rights, a read-only disk.
    """
    path = _named(path)
    try:
        _check_way(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = beside(path, "try")
        _write_file(probe, b"")
        probe.unlink()
    except OSError as error:
        raise _unwritten(path, error) from None


def write(model: Model, path: Path | str) -> None:
    """Store a sealed model: as an archive when the path ends in `.esm`, otherwise as a folder.

    A model that is there already is replaced as a whole; anything else there is left alone and refused. Raises
    ModelError: not sealed, something else is in the way, the disk refuses.
    """
    path = _named(path)
    members = pack(model)
    try:
        _check_way(path)
        if path.suffix == SUFFIX:
            _write_archive(members, path)
        else:
            _write_folder(members, path)
    except OSError as error:
        raise _unwritten(path, error) from None


# ---- folder ---------------------------------------------------------------------------------------------------------


def _read_folder(path: Path, limits: Limits) -> dict[str, bytes]:
    """Members by name. Raises Unusable, OSError."""
    names = []
    with os.scandir(path) as found:
        for file in found:
            names.append(file.name)
            if len(names) > limits.members:
                raise Unusable("", f"the folder has more than {limits.members} files; it is no model file")
    _check_names(names)
    members = {CARD: _read_file(path / CARD, limits.card_bytes)}
    card = read_head(members[CARD], limits)
    _check_listed(names, card.files)
    for name, entry in card.files.items():
        if name in names:
            members[name] = _read_file(path / name, entry.size_bytes)
    return members


def _read_file(path: Path, most_bytes: int) -> bytes:
    """A plain file of at most `most_bytes`; links, devices and pipes are refused. Raises Unusable, OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unusable(path.name, f"it cannot be read ({error.strerror}); it must be a plain file: {COPY}") from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise Unusable(path.name, f"it is no plain file; {COPY}")
    with os.fdopen(handle, "rb") as file:
        if about.st_size > most_bytes:
            raise Unusable(path.name, f"it has {about.st_size} bytes where at most {most_bytes} belong; {COPY}")
        return file.read(about.st_size + 1)[: most_bytes + 1]


def _write_folder(members: dict[str, bytes], path: Path) -> None:
    fresh = beside(path, "new")
    old = beside(path, "old")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fresh.mkdir()
        for name, data in members.items():
            _write_file(fresh / name, data)
        force_folder(fresh)
        if path.exists():
            path.replace(old)  # a folder that is not empty cannot be replaced in one step
        try:
            fresh.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        force_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# ---- archive --------------------------------------------------------------------------------------------------------


def _read_archive(path: Path, limits: Limits) -> dict[str, bytes]:
    """Members by name. Raises Unusable, OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise Unusable("", "it is neither a file nor a folder; give the path of a model")
        if about.st_size > limits.file_bytes:
            raise Unusable("", too_large(about.st_size, limits))
        data = file.read(about.st_size + 1)  # reading more would take the memory for it beforehand
        if len(data) != about.st_size:
            raise Unusable("", f"it changed while it was read; {COPY}")
    _check_end(data, limits)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            _check_names(names)
            by_name = dict(zip(names, entries, strict=True))
            members = {CARD: _unpacked(archive, by_name[CARD], limits.card_bytes)}
            card = read_head(members[CARD], limits)
            _check_listed(names, card.files)
            for name, listed in card.files.items():
                if name in by_name:
                    members[name] = _unpacked(archive, by_name[name], listed.size_bytes)
            return members
    except _DAMAGED as error:
        text = " ".join(ascii(str(error))[1:-1].split())
        raise Unusable("", f"the archive is cut short or damaged ({text:.120}); {COPY}") from None


def _check_end(data: bytes, limits: Limits) -> None:
    """The archive's end record (APPNOTE.TXT 4.3.16), before zipfile makes an object for each entry it promises.

    It must be the last thing in the file, of few entries, and not refer to a 64-bit record that would say otherwise.
    """
    if len(data) < _END.size or not data.startswith(b"PK\x03\x04"):
        raise Unusable("", f"it is no model archive, or cut short; {COPY}")
    magic, _, _, here, entries, size, _, comment = _END.unpack(data[-_END.size :])
    if magic != b"PK\x05\x06" or comment:
        raise Unusable("", f"the archive is cut short, or has something after its end; {COPY}")
    if data[-_END.size - _LOCATOR_BYTES :].startswith(b"PK\x06\x07"):
        raise Unusable("", f"it is an archive with 64-bit sizes, which a model never needs; {COPY}")
    if here != entries or entries > limits.members or size > entries * 512:
        raise Unusable("", f"the archive has {entries} members; at most {limits.members} short names belong in it")


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most_bytes: int) -> bytes:
    """One member, no more of it than it declares and no more than `most_bytes`."""
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unusable(entry.filename, f"it is encrypted or compressed in a way that is not read here; {COPY}")
    if entry.file_size > most_bytes:
        raise Unusable(entry.filename, f"it has {entry.file_size} bytes where at most {most_bytes} belong; {COPY}")
    with archive.open(entry) as member:
        return member.read(entry.file_size + 1)


def _write_archive(members: dict[str, bytes], path: Path) -> None:
    """Stored, not compressed: weights hardly shrink, and compressed bytes differ between versions of zlib."""
    store = BytesIO()
    with zipfile.ZipFile(store, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _ONE_TIME)
            entry.external_attr, entry.create_system = _PLAIN_FILE, 3
            archive.writestr(entry, members[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as fresh:
        _write_file(fresh, store.getvalue())
    force_folder(path.resolve().parent)


def _named(path: Path | str) -> Path:
    path = Path(path).absolute()
    if path.name in ("", ".."):
        raise ModelError(f"{path}: a model cannot be written under this name; choose another")
    return path


def _unwritten(path: Path, error: OSError) -> ModelError:
    why = error.strerror or error
    return ModelError(f"{path}: cannot be written ({why}); check the path, its rights and the free space")


def _check_way(path: Path) -> None:
    """Raises ModelError when something is at `path` that is no model. Raises OSError."""
    if path.suffix == SUFFIX:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; remove it, or choose a name without {SUFFIX}")
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is in the way and is no model; choose another name")
    elif path.exists() or path.is_symlink():
        here = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else None
        if here is None or (here and CARD not in here) or not all(map(is_member, here)):
            raise ModelError(f"{path} is in the way and is no model; remove it, or choose another name")


# ---- both -----------------------------------------------------------------------------------------------------------


def _check_names(names: list[str]) -> None:
    """Raises Unusable: no card, a name twice, a name that no member has (paths, links elsewhere, anything unknown)."""
    if len(set(names)) < len(names):
        raise Unusable("", f"it has one member twice; {COPY}")
    for name in sorted(names):
        if not is_member(name):
            raise Unusable("", f"{name!r:.80} does not belong in a model file; remove it, or {COPY}")
    if CARD not in names:
        raise Unusable(CARD, f"it is absent; this is no model, or {COPY}")


def _check_listed(names: list[str], listed: Collection[str]) -> None:
    for name in sorted(set(names) - set(listed) - {CARD}):
        raise Unusable(name, f"the card does not list it; remove it, or {COPY}")


def _write_file(path: Path, data: bytes) -> None:
    """Write a whole file that was not there and force it to the disk. Raises OSError."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
