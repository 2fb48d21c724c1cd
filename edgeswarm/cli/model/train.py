"""`edgeswarm model train`: go on training a model file's start vector on local data, with what the board runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.model import board, data

if TYPE_CHECKING:
    from edgeswarm.backends.fit import Epoch, Fit
    from edgeswarm.cli.model.data import Rows
    from edgeswarm.maths.optimisers import Optimiser
    from edgeswarm.models.file import Model

KINDS = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
SCHEDULES = ("constant", "step", "cosine", "inverse_sqrt")
"""As in maths.optimisers, which brings NumPy along; a test compares."""

_INTERRUPTED = 130


@click.command()
@board.file_argument
@data.options
@board.out("Where the trained model goes.")
@click.option("--epochs", type=click.IntRange(min=1), default=5, show_default=True, help="Passes over the samples.")
@click.option("--batch", type=click.IntRange(1, 65_536), help="Samples per step. Without it: the profile's.")
@click.option(
    "--optimiser",
    "kind",
    type=click.Choice(KINDS),
    default="momentum",
    show_default=True,
    help="How a gradient becomes a step.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=0.01,
    show_default=True,
    help="Learning rate, before the schedule.",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Of momentum and nesterov; adam's first beta.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Added to the gradient, times the parameters.",
)
@click.option("--clip", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Longest gradient; 0: any.")
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default="constant",
    show_default=True,
    help="How the rate changes. cosine: to 0 at the end; step: divided by 10 at 1/2 and 3/4.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Steps over which the rate rises at the start.",
)
@click.option(
    "--proximal",
    metavar="MU",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Stay near the start vector: adds MU/2 times the squared distance.",
)
@board.backend
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
    epochs: int,
    batch: int | None,
    kind: str,
    rate: float,
    momentum: float,
    weight_decay: float,
    clip: float,
    schedule: str,
    warmup: int,
    proximal: float,
    backend_name: str,
    profile_name: str,
    json_wanted: bool,
) -> None:
    """Train the start vector of FILE on labelled samples; the result is a model file with a hash of its own.

    Plain onnxruntime is enough: no torch. FILE is left as it is. Ctrl-C writes what was trained so far and ends with
    130. An error (a loss that is no number, out of memory) writes nothing.
    """
    from edgeswarm.backends.fit import Fit, accuracy, with_vector
    from edgeswarm.backends.operators import OPERATORS
    from edgeswarm.errors import ModelError
    from edgeswarm.models.file import check_place

    check_place(out_file)
    place = board.here(profile_name)
    model = board.load(file, place.limits)
    if "ce" not in model.card.losses:
        raise ModelError(f"{file}: {model.card.name} does not train: it has no gradient of a labelled loss")
    rows = data.read(data_path, model.card.input, model.card.labels, label, limit_rows, seed)
    training, held_out = data.split(rows, held_share, seed)
    rows_per_step = min(batch or place.budget.batch, len(training.y))
    backend, reasons = board.start_backend(place, backend_name)
    board.say_backend(backend, reasons, place)
    backend.load(model)
    _say_rows(rows, training, held_out)
    steps = -(-len(training.y) // rows_per_step) * epochs
    optimiser = _optimiser(kind, rate, momentum, weight_decay, clip, schedule, warmup, steps)
    fit = Fit(backend, model, training.x, training.y, optimiser, rows_per_step, proximal, seed)
    before = accuracy(backend, model, held_out.x, held_out.y, model.initial)
    output.say(f"before: {readable.percent(before)} of the held-out samples are right")
    start = time.monotonic()
    history, whole = _epochs(fit, epochs, lambda: accuracy(backend, model, held_out.x, held_out.y, fit.params))
    took_s = time.monotonic() - start
    if not fit.steps:
        output.say("interrupted before the first steps were done: nothing was written")
        ctx.exit(_INTERRUPTED)
    if not whole:
        output.say(f"interrupted after {fit.steps:,} steps: writing what was trained so far")
    after = history[-1].accuracy if whole else accuracy(backend, model, held_out.x, held_out.y, fit.params)
    trained = with_vector(backend, model, fit.params, place.limits, OPERATORS, **_origin(model, training, fit))
    _keep(trained, out_file)
    _report(trained, out_file, before, after, history, fit, took_s, backend.name, whole, json_wanted)
    ctx.exit(0 if whole else _INTERRUPTED)


def _keep(trained: Model, out_file: Path) -> None:
    """Write the result; where the disk refuses by now, keep it in the folder for temporary files and say so."""
    from tempfile import gettempdir

    from edgeswarm.errors import ModelError
    from edgeswarm.models.file import write

    try:
        write(trained, out_file)
    except ModelError as error:
        spare = Path(gettempdir()) / f"{trained.card.name}-{trained.card.hash[:12]}.esm"
        write(trained, spare)
        raise ModelError(f"{error}; what was trained is in {spare}") from None


def _optimiser(
    kind: str, rate: float, momentum: float, weight_decay: float, clip: float, schedule: str, warmup: int, steps: int
) -> Optimiser:
    """The settings of `maths.optimisers`; where the schedule has places, they follow from the steps there will be."""
    from edgeswarm.maths.optimisers import Optimiser

    milestones = tuple(sorted({max(1, steps // 2), max(1, 3 * steps // 4)})) if schedule == "step" else ()
    horizon = max(1, steps) if schedule == "cosine" else 0
    decay = 0.999 if kind == "adam" else 0.99
    try:
        return Optimiser(
            kind, rate=rate, momentum=momentum, decay=decay, weight_decay=weight_decay, clip=clip, schedule=schedule,
            warmup=warmup, milestones=milestones, horizon=horizon,
        )  # fmt: skip
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _epochs(fit: Fit, epochs: int, measured: Any) -> tuple[list[Epoch], bool]:
    """The epochs that were finished, and whether that is all: False after Ctrl-C."""
    from edgeswarm.backends.fit import Epoch

    history: list[Epoch] = []
    ctx = click.get_current_context()
    quiet = bool(ctx.meta.get(options.QUIET))
    try:
        for number in range(1, epochs + 1):
            if quiet or not sys.stderr.isatty():
                loss = fit.epoch(number, lambda done: None)
            else:
                with click.progressbar(
                    length=fit.steps_per_epoch, label=f"epoch {number}/{epochs}", file=sys.stderr, show_pos=True
                ) as bar:
                    loss = fit.epoch(number, bar.update)
            history.append(Epoch(number, loss, measured()))
            share = readable.percent(history[-1].accuracy)
            output.say(
                f"epoch {number}/{epochs}: loss {readable.number(loss)}, {share} of the held-out samples are right"
            )
    except KeyboardInterrupt:
        return history, False
    return history, True


def _origin(model: Model, training: Rows, fit: Fit) -> dict[str, str]:
    """What the new file says of how it came about."""
    from edgeswarm import __version__

    return {
        "edgeswarm": __version__,
        "trained_from": model.card.hash,
        "trained_on": f"{len(training.y)} samples, {fit.steps} steps",
    }


def _say_rows(rows: Rows, training: Rows, held_out: Rows) -> None:
    note = "; bytes 0 to 255 are taken as 0 to 1" if rows.from_bytes else ""
    output.say(f"{len(training.y):,} samples to learn from, {len(held_out.y):,} held out{note}")


def _report(
    trained: Model, out_file: Path, before: float, after: float, history: list[Epoch], fit: Fit, took_s: float,
    backend: str, whole: bool, json_wanted: bool,
) -> None:  # fmt: skip
    if json_wanted:
        output.emit({
            "file": str(out_file),
            "hash": trained.card.hash,
            "backend": backend,
            "steps": fit.steps,
            "seconds": took_s,
            "interrupted": not whole,
            "accuracy_before": before,
            "accuracy": after,
            "epochs": [{"epoch": e.number, "loss": e.loss, "accuracy": e.accuracy} for e in history],
        })  # fmt: skip
        return
    output.pairs([
        ("held out", f"{readable.percent(after)} right, {readable.percent(before)} before"),
        ("steps",
         f"{fit.steps:,} in {readable.span(took_s)}, {readable.brief(took_s / fit.steps)} each, with measuring"),
        ("written", f"{out_file}, hash {trained.card.hash[:12]}"),
    ])  # fmt: skip
