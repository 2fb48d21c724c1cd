"""`edgeswarm model quantise`: an int8 encoder out of a model file, written only if it is as good on local data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.model import board, data
from edgeswarm.errors import EXIT_CHECK_FAILED

if TYPE_CHECKING:
    from edgeswarm.backends.base import Backend
    from edgeswarm.cli.model.data import Rows
    from edgeswarm.models.file import Model


@dataclass(frozen=True, slots=True)
class Quality:
    """accuracy: 0 to 1, of held-out rows.  size_bytes: of what an agent needs to serve.  inference_s: one sample."""

    accuracy: float
    size_bytes: int
    inference_s: float


@click.command()
@board.file_argument
@data.options
@board.out("Where the int8 encoder goes.")
@click.option(
    "--allow",
    "points",
    metavar="POINTS",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Percentage points of accuracy that may be lost.",
)
@board.profile
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    data_path: Path,
    label: str,
    limit_rows: int,
    held_share: float,
    seed: int,
    out_file: Path,
    points: float,
    profile_name: str,
    json_wanted: bool,
) -> None:
    """Make an int8 encoder of FILE, calibrated on local samples, if it is as good as FILE on held-out ones.

    Needs onnxruntime and the onnx package. Good means: names at most one point (--allow) fewer of the held-out samples
    rightly, by its logits, or without any by the nearest class mean of its embeddings. Otherwise nothing is written
    and the verb ends with 6. The encoder serves and does not train.
    """
    _need_onnx()
    from edgeswarm.export.quantise import quantise
    from edgeswarm.models.file import check_place, write

    check_place(out_file)
    place = board.here(profile_name)
    model = board.load(file, place.limits)
    rows = data.read(data_path, model.card.input, model.card.labels, label, limit_rows, seed)
    known, held_out = data.split(rows, held_share, seed)
    output.say(f"calibrating on {len(known.y):,} samples, measuring on {len(held_out.y):,}")
    backend, _ = board.start_backend(place, "onnx")
    smaller = quantise(model, known.x, place.limits)
    before, after = (_quality(backend, each, known, held_out) for each in (model, smaller))
    lost = 100 * (before.accuracy - after.accuracy)
    good = lost <= points + 1e-9
    if good:
        write(smaller, out_file)
    if json_wanted:
        output.emit(_data(out_file, smaller, before, after, lost, good))
    else:
        _print(out_file, smaller, before, after, lost, points, good)
    ctx.exit(0 if good else EXIT_CHECK_FAILED)


def _need_onnx() -> None:
    """Raises ConfigError naming what to install."""
    from importlib.util import find_spec

    from edgeswarm.errors import ConfigError

    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"quantising needs {' and '.join(missing)}: pip install onnx onnxruntime")


def _quality(backend: Backend, model: Model, known: Rows, held_out: Rows) -> Quality:
    from edgeswarm.cli.model.measure import inference_s
    from edgeswarm.export.quantise import Labelled, accuracy

    backend.load(model)
    share = accuracy(backend, model, Labelled(known.x, known.y), Labelled(held_out.x, held_out.y))
    size = len(model.graphs["forward"]) + model.initial.nbytes
    return Quality(share, size, inference_s(backend, model))


def _print(
    out_file: Path, smaller: Model, before: Quality, after: Quality, lost: float, points: float, good: bool
) -> None:
    output.table(
        ["numbers", "right", "size", "answer"],
        [[name, f"{100 * q.accuracy:.2f} %", readable.size(q.size_bytes), readable.brief(q.inference_s)]
         for name, q in (("float32", before), ("int8", after))],
        right="right size answer",
    )  # fmt: skip
    click.echo()
    change = f"{lost:.2f} points lost" if lost > 0 else f"{-lost:.2f} points gained" if lost < 0 else "nothing lost"
    if good:
        click.echo(f"{change}; written: {out_file}, hash {smaller.card.hash[:12]}")
    else:
        click.secho(
            f"refused: {change}, {points:g} allowed; nothing was written. Calibrate on more or more typical samples, "
            "or serve float32", fg="red",
        )  # fmt: skip


def _data(out_file: Path, smaller: Model, before: Quality, after: Quality, lost: float, good: bool) -> dict[str, Any]:
    def told(quality: Quality) -> dict[str, Any]:
        return {
            "accuracy": quality.accuracy, "size_bytes": quality.size_bytes, "inference_s": quality.inference_s,
        }  # fmt: skip

    return {
        "file": str(out_file) if good else None,
        "hash": smaller.card.hash if good else None,
        "ok": good,
        "points_lost": lost,
        "before": told(before),
        "after": told(after),
    }
