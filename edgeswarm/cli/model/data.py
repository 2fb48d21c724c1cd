"""Labelled samples for a model, read with the agent's own readers, in the shape and units that the model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeswarm.models.card import InputSpec

F = TypeVar("F", bound=Callable[..., Any])

TASK = "model"
ROWS = 20_000


def options(function: F) -> F:
    """`--data`, `--label`, `--rows`, `--held-out` and `--seed`."""
    for option in reversed((
        click.option(
            "--data", "data_path", metavar="PATH", required=True, type=click.Path(path_type=Path),
            help="Samples: .npz with x and y, .csv with a header, or a folder <class>/*.png or *.jpg.",
        ),
        click.option("--label", default="", metavar="NAME", help="Column or array with the class. csv: label; npz: y."),
        click.option(
            "--rows", "limit_rows", type=click.IntRange(min=1), default=ROWS, show_default=True,
            help="Use at most so many, drawn evenly from all.",
        ),
        click.option(
            "--held-out", "held_share", type=click.FloatRange(0.01, 0.9), default=0.2, show_default=True,
            help="Share of the samples that is only used to measure.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every draw."),
    )):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """x (n, *shape) float32, y (n,) int64: positions in `labels`.

    from_bytes: images came as bytes and were divided by 255.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    labels: tuple[str, ...]
    from_bytes: bool = False


def read(path: Path, spec: InputSpec, labels: tuple[str, ...], label: str, limit_rows: int, seed: int) -> Rows:
    """Samples that fit a model. labels: the model's classes, in order; () takes those of the data, sorted.

    Raises DataError: cannot be read, of another shape, a class the model does not know.  OutOfMemory.
    """
    import numpy as np

    from edgeswarm.agent.encoder import too_bright
    from edgeswarm.errors import DataError, OutOfMemory

    try:
        x, names, scaled = _numbers(path, spec, label, limit_rows, seed)
        if scaled:
            x = x / np.float32(255.0)
        if text := too_bright(x, spec):
            raise DataError(f"{path}: {text}")
        known = labels or tuple(sorted(set(names)))
        return Rows(x, _positions(path, names, known), known, scaled)
    except MemoryError:
        raise OutOfMemory(f"{path}: the samples do not fit into memory; take fewer with --rows") from None


def split(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """(to learn from, held out): the same draw for the same seed. Raises DataError when one would be empty."""
    import numpy as np

    from edgeswarm.errors import DataError

    order = np.random.default_rng(seed).permutation(len(rows.y))
    held = max(1, round(share * len(order)))
    if held >= len(order):
        raise DataError(f"{len(order)} samples are too few to hold some out; bring more")
    return _taken(rows, np.sort(order[held:])), _taken(rows, np.sort(order[:held]))


def _taken(rows: Rows, at: NDArray[np.int64]) -> Rows:
    return Rows(rows.x[at], rows.y[at], rows.labels, rows.from_bytes)


def _numbers(
    path: Path, spec: InputSpec, label: str, limit_rows: int, seed: int
) -> tuple[NDArray[np.float32], tuple[str, ...], bool]:
    """(n, *shape) numbers, n class names, and whether the numbers are bytes where the model wants them from 0 to 1."""
    from edgeswarm.agent.encoder import in_bytes, order_of
    from edgeswarm.agent.settings import SourceConfig
    from edgeswarm.agent.sources import Pace, labelled_file, open_source
    from edgeswarm.errors import DataError

    kind = "images" if path.is_dir() else path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "npz", "images"):
        raise DataError(f"{path}: samples are a .csv file, an .npz file or a folder of images")
    settings = SourceConfig(kind=kind, path=str(path), label=label)
    if kind == "images":
        settings = _image_settings(path, spec)
    schema = open_source(settings, TASK, pace=Pace(0.0)).schema()
    if schema is None or len(schema.features) != spec.size:
        width = len(schema.features) if schema else 0
        shape = ",".join(map(str, spec.shape))
        raise DataError(
            f"{path}: {width:,} numbers a sample, but the model takes {shape} ({spec.size:,}); "
            "bring samples of that shape, or build a model for these"
        )
    found = labelled_file(settings, path, label, schema, limit_rows=limit_rows, seed=seed)
    order = order_of(schema, spec, str(path))
    return (found.x if order is None else found.x[:, order]).reshape(-1, *spec.shape), found.y, in_bytes(schema, spec)


def _image_settings(path: Path, spec: InputSpec) -> Any:
    from edgeswarm.agent.settings import SourceConfig
    from edgeswarm.errors import DataError

    shape = spec.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        text = ",".join(map(str, shape))
        raise DataError(
            f"{path}: a folder of images gives grey or colour squares, but the model takes {text}; use .npz"
        )
    mode = "grey" if shape[0] == 1 else "rgb"
    return SourceConfig(kind="images", path=str(path), image_size=shape[1], image_mode=mode)


def _positions(path: Path, names: tuple[str, ...], labels: tuple[str, ...]) -> NDArray[np.int64]:
    import numpy as np

    from edgeswarm.agent.names import did_you_mean
    from edgeswarm.errors import DataError

    places = {name: at for at, name in enumerate(labels)}
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise DataError(f"{path}: the model knows no class {unknown!r}{did_you_mean(unknown, labels)}")
    return np.array([places[name] for name in names], np.int64)
