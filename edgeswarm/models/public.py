"""A public set: unlabelled samples that every node of a swarm has, known by their place, and by one hash for all.

Predictions are exchanged about samples, never samples: nodes that hold another set, or order its classes in another
way, have another hash and do not understand one another (2211.15774, section 2).

In a file it is a NumPy archive without pickled objects: `classes` and `version` as UTF-8 bytes, `hash`, and `x` as
float32 or, where that gives the same numbers back, as one byte each (`units`: 1 for whole numbers k, 255 for k / 255).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgeswarm.errors import ModelError
from edgeswarm.maths.clustering import plus_plus
from edgeswarm.messages import Array
from edgeswarm.models.limits import MEBIBYTE
from edgeswarm.whole_file import whole

MOST_ROWS = 65_536
"""As many as a message can speak of."""
MOST_BYTES = 64 * MEBIBYTE
"""Of the file, and of the rows in it when unpacked."""
MOST_TEXT_BYTES = 64 * 1024
CANDIDATES, DIRECTIONS = 8, 24
MEMBERS = ("classes", "hash", "units", "version", "x")
HEAD_BYTES = 1024
"""Of an array's own header in the archive, at most."""


@dataclass(frozen=True, eq=False)
class PublicSet:
    """x: (n, d) float32, finite, rows as the nodes' own samples come.  classes: names, in the order that predictions
    use.  version: chosen by whoever made it, for people.  hash: sha256 of all of it, in hex.

    Raises ValueError: shapes or numbers that cannot be used.
    """

    x: Array
    classes: tuple[str, ...]
    version: str = "1"
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.x.dtype != np.float32 or not self.x.size or not np.isfinite(self.x).all():
            raise ValueError("a public set is (n, d) float32, finite, with at least one row")
        if len(self.x) > MOST_ROWS:
            raise ValueError(f"a public set has at most {MOST_ROWS} rows, not {len(self.x)}")
        if not 2 <= len(self.classes) <= 256 or len(set(self.classes)) != len(self.classes):
            raise ValueError("a public set names 2 to 256 different classes")
        if any(not name or "\n" in name for name in (self.version, *self.classes)):
            raise ValueError("version and classes of a public set are names of one line")
        digest = hashlib.sha256("\n".join((self.version, *self.classes, str(self.x.shape))).encode())
        digest.update(np.ascontiguousarray(self.x, "<f4").tobytes())
        object.__setattr__(self, "hash", digest.hexdigest())

    @property
    def number(self) -> int:
        """First 64 bits of the hash, which messages carry."""
        return int(self.hash[:16], 16)

    def prepared(self, x: Array) -> PublicSet:
        """The same set, its rows brought to what a strategy is given (n, e). Raises ValueError: other rows."""
        if len(x) != len(self.x):
            raise ValueError(f"{len(x)} prepared rows are not the {len(self.x)} of the public set")
        made = PublicSet(np.ascontiguousarray(x, np.float32), self.classes, self.version)
        object.__setattr__(made, "hash", self.hash)
        return made

    @cached_property
    def metric(self) -> Array | None:
        """(d,) factor of each feature in a distance: 1 / its standard deviation, 0 for a constant one. None where all
        numbers lie in 0..1 or 0..255, as those of images do, which have one unit already."""
        low, high = float(self.x.min()), float(self.x.max())
        if low >= 0 and (high <= 1 or (high <= 255 and bool((self.x == np.rint(self.x)).all()))):
            return None
        spread = self.x.std(axis=0, dtype=np.float64)
        return np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0).astype(np.float32)

    @cached_property
    def scaled(self) -> Array:
        """x in units of `metric`."""
        return self.x if self.metric is None else self.x * self.metric


def spread(x: Array, rows: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `rows` rows of x (n, d) that cover it well, ascending: the start of k-means++, each row the
    one of a few drawn that brings all others nearest to a chosen one (2211.15774, idea 13 of the project's note).

    They are sought among CANDIDATES x rows of x, in DIRECTIONS random directions, which keep distances well enough.
    """
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(len(x))[: CANDIDATES * rows])
    points = x[places].astype(np.float64)
    if x.shape[1] > DIRECTIONS:
        points = points @ rng.normal(size=(x.shape[1], DIRECTIONS))
    if len(places) > rows:
        points -= points.mean(axis=0)
        places = places[plus_plus(points, np.einsum("ij,ij->i", points, points), np.ones(len(points)), rows, rng)]
    return np.sort(places)


def write(public: PublicSet, path: Path) -> None:
    """Write the file, whole or not at all; its bytes depend on nothing but the set. Raises OSError."""
    with whole(path) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
        codes, units = _codes(public.x)
        parts: dict[str, NDArray[np.generic]] = {
            "classes": _text("\n".join(public.classes)),
            "hash": _text(public.hash),
            "units": np.array(units, np.int64),
            "version": _text(public.version),
            "x": codes,
        }
        for name, value in parts.items():
            held = io.BytesIO()
            npy.write_array(held, value, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, held.getvalue())


def read(path: Path, most_bytes: int = MOST_BYTES) -> PublicSet:
    """The set in a file. Raises ModelError, one line: no such file, damaged, larger than `most_bytes`, not what its
    hash says."""
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise _refused(path, f"{size:,} bytes are more than the {most_bytes:,} this board takes: choose fewer rows")
        with zipfile.ZipFile(path) as archive:
            parts = {name: _member(path, archive, name, most_bytes) for name in MEMBERS}
    except OSError as error:
        raise _refused(path, (error.strerror or str(error)).lower()) from None
    except _DAMAGE as error:
        raise _refused(path, f"no public set, or damaged ({error}): write it with `edgeswarm public make`") from None
    try:
        classes, version, name = (_read_text(parts[part]) for part in ("classes", "version", "hash"))
        units, x = parts["units"], parts["x"]
        if units.shape != () or units.dtype != np.int64 or x.ndim != 2 or (x.dtype, int(units)) not in _KINDS:
            raise ValueError("rows of an unknown kind")
        public = PublicSet(_rows(x, int(units)), tuple(classes.split("\n")), version)
    except ValueError as error:
        raise _refused(path, str(error)) from None
    if public.hash != name:
        raise _refused(path, f"damaged: its hash is {public.hash[:12]}, not {name[:12]}: fetch the file again")
    return public


_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What the standard library raises at archives that are none."""
_KINDS = ((np.dtype(np.uint8), 1), (np.dtype(np.uint8), 255), (np.dtype(np.float32), 0))


def _codes(x: Array) -> tuple[NDArray[np.generic], int]:
    """Rows in one byte per number where that loses nothing, and the unit; else as they are, and 0."""
    for units in (255, 1):
        with np.errstate(over="ignore"):
            codes = np.clip(np.rint(x * np.float32(units)), 0, 255).astype(np.uint8)
        if bool((_rows(codes, units) == x).all()):
            return codes, units
    return np.ascontiguousarray(x, "<f4"), 0


def _rows(codes: NDArray[np.generic], units: int) -> Array:
    x: Array = np.asarray(codes, np.float32)
    return x / np.float32(255) if units == 255 else x


def _text(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _read_text(held: NDArray[np.generic]) -> str:
    if held.dtype != np.uint8 or held.ndim != 1:
        raise ValueError("a text is not bytes")
    return held.tobytes().decode()  # UnicodeDecodeError is a ValueError


def _member(path: Path, archive: zipfile.ZipFile, name: str, most_bytes: int) -> NDArray[np.generic]:
    """One array. Its size is known from its header before memory is spent on it."""
    entry = archive.getinfo(f"{name}.npy")
    most = most_bytes if name == "x" else MOST_TEXT_BYTES
    if entry.file_size > most + HEAD_BYTES:
        raise _refused(path, f"{name} has {entry.file_size:,} bytes, more than the {most:,} this board takes")
    with archive.open(entry) as held:
        if npy.read_magic(held) != (1, 0):
            raise ValueError(f"{name} is of another format")
        shape, _, dtype = npy.read_array_header_1_0(held)
        count = int(np.prod(shape, dtype=object))
        if dtype.hasobject or count * dtype.itemsize > entry.file_size or dtype.kind not in "uif":
            raise ValueError(f"{name} is of another kind")
        wide = 4 * count if name == "x" else 0
        if wide > most_bytes:
            raise _refused(path, f"unpacked, its rows take {wide:,} bytes: choose fewer rows")
        data = held.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype, count).reshape(shape)


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"public set {path}: {why}")
