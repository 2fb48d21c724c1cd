"""What simulated devices learn from: the reader's own file, read as an agent reads it, or one that needs no network."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources import FileSource, Labelled, Pace, labelled, labelled_file, open_source
from edgeswarm.agent.sources.base import Schema
from edgeswarm.errors import DataError
from edgeswarm.messages import Array

BUILT_IN = ("digits",)
"""Names of sets that need no file."""
TASK = "default"
"""Task of the agent's configuration, unless it says another."""
MOST_BROKEN_CLASSES = 10
"""Numbers with a fraction that may be classes all the same: marks from 0 to 5 in halves."""
LEFT_OUT = {
    "no_label": "have no label", "missing_value": "have an empty cell", "bad_label": "have an unusable label",
    "non_finite": "hold a number that is not finite",
}  # fmt: skip
"""Why rows are not used, by the source's name of it."""
_TRAIN, _TEST = ("x_train", "y_train"), ("x_test", "y_test")


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Labelled rows. x: (n, d) float32, finite; y: n class names; features: d names; notes: what was left out.

    form, encoder: as in `agent.sources.base.Schema`.  test: rows and labels that are for examination alone, where such
    are kept apart.  parts: where each device has a file of its own, by that file's name, the places of its rows.
    """

    name: str
    x: Array
    y: tuple[str, ...]
    features: tuple[str, ...]
    notes: tuple[str, ...] = ()
    form: str = ""
    test: tuple[Array, tuple[str, ...]] | None = None
    parts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    encoder: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names: numbers in their order, words in theirs."""
        return tuple(
            sorted(set(self.y), key=lambda name: (not name.isdigit(), name.zfill(20) if name.isdigit() else name))
        )

    @property
    def schema(self) -> Schema:
        """What an agent would say of these rows."""
        return Schema(TASK, self.features, self.encoder, self.form)


def digits() -> DataSet:
    """The 1797 handwritten digits that come with scikit-learn (8 x 8 pixels, 0 to 16). Raises DataError without it.

    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "the built-in digits come with scikit-learn: pip install scikit-learn, or bring data of your own"
        ) from None
    found = load_digits()
    names = tuple(f"pixel_{i // 8}_{i % 8}" for i in range(64))
    return DataSet("handwritten digits", found.data.astype(np.float32), tuple(str(v) for v in found.target), names)


def read(path: Path, label: str = "", limit_rows: int = 20_000, seed: int = 0) -> DataSet:
    """The labelled rows of a file: .csv, .npz with x and y, or with x_train, y_train, x_test, y_test; a folder of
    images by class. Of more than `limit_rows` an even sample is taken, the same for the same seed.

    label: column or array that holds the class; "": label, y.  Raises DataError, one line, naming the file.
    """
    data, found = _read(path, label, limit_rows, seed)
    return replace(data, notes=_unused([found]))


def _read(path: Path, label: str, limit_rows: int, seed: int) -> tuple[DataSet, Labelled]:
    """The rows of a file, with nothing noted yet, and how they were found."""
    if path.suffix.lower() == ".npz" and _arrays(path) >= set(_TRAIN):
        return _split_archive(path, limit_rows, seed)
    kind = "images" if path.is_dir() else path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "npz", "images"):
        raise DataError(f"{path}: data is a .csv file, an .npz file or a folder of images by class")
    source = open_source(SourceConfig(kind=kind, path=str(path), label=label), TASK, seed=seed, pace=Pace(0.0))
    assert isinstance(source, FileSource)
    schema, found = source.schema(), labelled(source, limit_rows, seed)
    _check_classes(path, found.y)
    return DataSet(path.stem, found.x, found.y, schema.features, form=schema.form, encoder=schema.encoder), found


def _unused(files: Sequence[Labelled]) -> tuple[str, ...]:
    """Notes: rows of some files that cannot be used, and those that are more than were asked for."""
    dropped = sum((each.dropped for each in files), Counter[str]())
    of, used = sum(each.of for each in files), sum(len(each.y) for each in files)
    why = ", ".join(f"{count:,} {LEFT_OUT.get(reason, reason)}" for reason, count in sorted(dropped.items()))
    lost = (f"{dropped.total():,} of {of + dropped.total():,} rows are left out: {why}",) if why else ()
    return (*lost, *((f"{used:,} of {of:,} rows are used, drawn evenly",) if used < of else ()))


def read_parts(folder: Path, label: str = "", limit_rows: int = 20_000, seed: int = 0) -> DataSet:
    """One .csv or .npz for each device, in the order of their names; of each, `limit_rows` at most.

    Raises DataError, one line: no such file, or files that do not go together.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".csv", ".npz"))
    if not paths:
        raise DataError(f"{folder}: holds no .csv and no .npz")
    pairs = [_read(path, label, limit_rows, seed) for path in paths]
    found, notes = [data for data, _ in pairs], _unused([each for _, each in pairs])
    odd = next((at for at, each in enumerate(found) if each.features != found[0].features), None)
    if odd is not None:
        raise DataError(f"{paths[odd]}: its features are not those of {paths[0].name}")
    ends = np.cumsum([len(each.y) for each in found])
    parts = {
        path.stem: np.arange(end - len(each.y), end)
        for path, end, each in zip(paths, ends.tolist(), found, strict=True)
    }
    rows, labels = np.concatenate([each.x for each in found]), tuple(label for each in found for label in each.y)
    return DataSet(folder.name, rows, labels, found[0].features, notes, found[0].form, None, parts)


def with_test(data: DataSet, path: Path, label: str, limit_rows: int, seed: int, same_form: bool) -> DataSet:
    """`data`, to be examined on the rows of a file, which is read as a device reads that of its [evaluate] path.

    same_form: as of `labelled_file`.  Raises DataError: it cannot be read, or has not the features of `data`.
    """
    found = labelled_file(
        SourceConfig(), path, label, data.schema, limit_rows=limit_rows, seed=seed, same_form=same_form
    )
    notes = (f"{path.name}: {note}" for note in _unused([found]))
    return replace(data, test=(found.x, found.y), notes=(*data.notes, *notes))


def _check_classes(path: Path, labels: tuple[str, ...]) -> None:
    """Raises DataError where the labels are readings of something: many different numbers, and not whole ones."""
    different = sorted(set(labels))
    if len(different) <= max(MOST_BROKEN_CLASSES, len(labels) // 10):
        return
    try:
        broken = next((label for label in different if not float(label).is_integer()), "")
    except ValueError:  # a word
        return
    if broken:
        raise DataError(
            f"{path}: {len(different):,} different labels in {len(labels):,} rows, such as {broken!r}: these look like "
            "measurements, not classes; name the column that holds the class (label), or cut the values into ranges"
        )


def _arrays(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()  # whoever reads it says what is wrong


def _split_archive(path: Path, limit_rows: int, seed: int) -> tuple[DataSet, Labelled]:
    """An archive that keeps rows for examination apart, as MNIST's does."""
    found, form = _part(path, _TRAIN, limit_rows, seed)
    _check_classes(path, found.y)
    test = None
    if _arrays(path) >= set(_TEST):
        held, _ = _part(path, _TEST, limit_rows, seed)
        test = held.x, held.y
        if held.x.shape[1] != found.x.shape[1]:
            raise DataError(f"{path}: x_test has {held.x.shape[1]} numbers a row, x_train {found.x.shape[1]}")
    features = tuple(f"x{at}" for at in range(found.x.shape[1]))
    return DataSet(path.stem, found.x, found.y, features, form=form, test=test), found


def _part(path: Path, keys: tuple[str, str], limit_rows: int, seed: int) -> tuple[Labelled, str]:
    """Rows (n, d) and labels of the two arrays, and their form."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive[keys[0]], archive[keys[1]]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a NumPy archive of plain numbers ({str(error)[:100]})") from None
    except MemoryError:
        raise DataError(f"{path}: too large for this machine's memory; give fewer rows") from None
    if x.ndim < 2 or x.dtype.kind not in "fiub" or not x.size or y.shape != (len(x),):
        raise DataError(f"{path}: {keys[0]} is {x.dtype} {x.shape}, {keys[1]} {y.shape}; rows of numbers and labels")
    places: NDArray[Any] = np.arange(len(y))
    if len(y) > limit_rows:
        places = np.sort(np.random.default_rng(seed).choice(len(y), limit_rows, replace=False))
    form = f"{x.dtype.name}:{'x'.join(map(str, x.shape[1:]))}" if x.ndim > 2 or x.dtype == np.uint8 else ""
    rows = x[places].reshape(len(places), -1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise DataError(f"{path}: {keys[0]} holds numbers that are not finite")
    return Labelled(rows, tuple(str(label) for label in y[places].tolist()), len(y), Counter()), form
