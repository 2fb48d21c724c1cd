"""Samples from a NumPy archive: x (n, d) or (n, ...) numbers and an array of n labels.

x is streamed out of the archive in blocks, so a file larger than the board's memory can be read; the labels are held.
Pickled objects are refused.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.sources.base import MOST_FEATURES, FileSource, Pace, Sample, Schema, check_width
from edgeswarm.errors import DataError

X = "x"
_BLOCK_BYTES = 1 << 16


class NpzSource(FileSource):
    """x flattened to (n, d); the label array is named by `label`; features are called x0, x1, ... unless named.

    Samples with NaN or infinity are dropped and counted. A label that is NaN or empty makes an unlabelled sample.
    Raises DataError naming the file and the array.
    """

    def __init__(
        self,
        path: Path,
        task: str,
        label: str = "y",
        features: tuple[str, ...] = (),
        classes: tuple[str, ...] = (),
        repeat: bool = False,
        pace: Pace | None = None,
        most: int = MOST_FEATURES,
    ) -> None:
        super().__init__(path, classes, repeat, pace or Pace(0.0))
        with _reading(path), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            for name, key in ((X, ""), (label, " (`label` says which holds the class)")):
                if name not in names:
                    raise DataError(f"{path}: no array {name!r}{did_you_mean(name, names)}{key}")
            with archive.open(f"{X}.npy") as file:
                shape, _, dtype = _header(path, file)
            with archive.open(f"{label}.npy") as file:
                self._labels = _labels(path, label, file)
        if len(shape) < 2 or 0 in shape[1:]:
            raise DataError(f"{path}: array {X!r} has shape {shape}; (samples, features) is needed")
        if dtype.kind not in "fiub":
            raise DataError(f"{path}: array {X!r} holds {dtype}, not numbers")
        if len(self._labels) != shape[0]:
            raise DataError(f"{path}: {shape[0]} samples in {X!r} but {len(self._labels)} labels in {label!r}")
        width = math.prod(shape[1:])
        check_width(path, width, most)
        if features and len(features) != width:
            raise DataError(f"{path}: {len(features)} `features` are named, array {X!r} has {width}")
        form = f"{dtype.name}:{'x'.join(map(str, shape[1:]))}" if len(shape) > 2 or dtype == np.uint8 else ""
        self._schema = Schema(task, features or tuple(f"x{at}" for at in range(width)), form=form)

    def schema(self) -> Schema:
        """One dimension per number in a row of x."""
        return self._schema

    def rows(self, turn: int = 0) -> Iterator[Sample | None]:
        """Each row once; None for one that was dropped and counted. Raises DataError."""
        at = 0
        with _reading(self.path), contextlib.closing(_blocks(self.path)) as blocks:
            for block in blocks:
                for row in block:
                    yield self._sample(row, self._labels[at])
                    at += 1


def _blocks(path: Path) -> Generator[NDArray[Any], None, None]:
    """x in blocks of (some rows, d)."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{X}.npy") as file:
        shape, fortran, dtype = _header(path, file)
        width = math.prod(shape[1:])
        if fortran:  # column after column: a row is everywhere, so there is no way but to hold it all
            flat = np.frombuffer(_exactly(file, math.prod(shape) * dtype.itemsize), dtype)
            yield flat.reshape(shape, order="F").reshape(shape[0], width)
            return
        row_bytes = width * dtype.itemsize
        many = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, shape[0], many):
            count = min(many, shape[0] - start)
            yield np.frombuffer(_exactly(file, count * row_bytes), dtype).reshape(count, width)


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{path}: an array is stored in NPY format {version[0]}.{version[1]}, which is for records")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{path}: an array holds Python objects; save it again as plain numbers or text")
    return shape, fortran, dtype


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError("an array is cut short")
    return data


def _labels(path: Path, name: str, file: IO[bytes]) -> list[str | None]:
    """The labels as text: whole numbers without a point, text as it is, None for NaN and for nothing."""
    shape, _, dtype = _header(path, file)
    if len(shape) != 1:
        raise DataError(f"{path}: array {name!r} has shape {shape}; one label per sample is needed")
    values = np.frombuffer(_exactly(file, shape[0] * dtype.itemsize), dtype)
    if dtype.kind in "iub":
        return [str(int(value)) for value in values]
    if dtype.kind == "f":
        return [_text(float(value)) for value in values]
    if dtype.kind == "U":
        return [str(value) or None for value in values]
    if dtype.kind == "S":
        return [bytes(value).decode("utf-8", "replace") or None for value in values]
    raise DataError(f"{path}: array {name!r} holds {dtype}; labels are whole numbers or text")


def _text(value: float) -> str | None:
    if math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() else str(value)


class _reading:
    """Turns what can go wrong with reading an archive into DataError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, zipfile.BadZipFile):
            raise DataError(f"{self._path}: not an npz file, or a damaged one: {error}") from None
        if isinstance(error, OSError):
            raise DataError(fault_text("read samples from", self._path, error)) from None
        if isinstance(error, (ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError)):
            raise DataError(f"{self._path}: damaged: {error}") from None
