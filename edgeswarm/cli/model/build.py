"""`edgeswarm model build`: a model file from an architecture, the user's torch module, or his ONNX encoder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.model import board

if TYPE_CHECKING:
    from edgeswarm.models.file import Model

BUILT_IN = ("mlp", "lenet5", "cnn", "resnet8", "resnet20", "mobilenet")
"""As in export.build; a test compares."""


LISTS = ("hidden", "channels")
"""Options of built-in architectures that are lists, of one number too."""

LICENCE = "Apache-2.0"

UNITS = "0 to 1"
"""Of images, unless --units says otherwise: what the readers of images bring."""


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Lengths with commas between, 1 or more each: "1,28,28"."""
    if value is None:
        return None
    try:
        lengths = tuple(int(part) for part in value.split(","))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise click.BadParameter(f"{value!r} is not a list of lengths such as 1,28,28", ctx, param)
    return lengths


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """Numbers with commas between: "0.49,0.48,0.45"."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a list of numbers such as 0.5 or 0.49,0.48,0.45", ctx, param
        ) from None


@click.command()
@click.argument("architecture", metavar="[ARCHITECTURE|MODULE:FUNCTION]", required=False)
@board.out("Where the model goes.")
@click.option("--classes", type=click.IntRange(min=2), help="How many classes, called 0, 1, ... Default: 10.")
@click.option("--labels", metavar="A,B,...", default="", help="The classes by name instead, in the logits' order.")
@click.option(
    "--heads",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="Auxiliary heads that learn from peers; with some, the model carries the loss distill.",
)
@click.option(
    "--input",
    "shape",
    metavar="C,H,W",
    callback=_shape,
    help="Shape of one sample, channels first. Without it: the architecture's own.",
)
@click.option(
    "--mean",
    metavar="NUMBERS",
    callback=_numbers,
    default="0",
    show_default=True,
    help="Taken from each number of the input, inside the graph; one, or one per channel.",
)
@click.option(
    "--std",
    metavar="NUMBERS",
    callback=_numbers,
    default="1",
    show_default=True,
    help="Divides the input after that.",
)
@click.option(
    "--units", metavar="TEXT", default="", help="What the input's numbers are, for people. Default for images: 0 to 1."
)
@click.option("--normalise", is_flag=True, help="Scale embeddings to length 1, inside the graph.")
@click.option(
    "--option",
    "extras",
    metavar="NAME=VALUE",
    multiple=True,
    help="Of the architecture (width=8, hidden=100,50) or your function; may be given again.",
)
@click.option(
    "--encoder",
    metavar="FILE.onnx",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Wrap this trained ONNX network as an encoder instead; needs onnx, not torch.",
)
@click.option("--embedding", metavar="NAME", default="", help="With --encoder: the output that is the embedding.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the start vector.")
@click.option("--name", default="", metavar="NAME", help="Of the model. Without it: the architecture's.")
@click.option("--licence", default="", metavar="SPDX", help="Of the model: an SPDX name. Default: Apache-2.0.")
@click.option(
    "--licence-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its whole text, to travel with the model.",
)
@options.as_json
@options.common
def command(
    architecture: str | None,
    out_file: Path,
    classes: int | None,
    labels: str,
    heads: int,
    shape: tuple[int, ...] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    units: str,
    normalise: bool,
    extras: tuple[str, ...],
    encoder: Path | None,
    embedding: str,
    seed: int,
    name: str,
    licence: str,
    licence_file: Path | None,
    json_wanted: bool,
) -> None:
    """Make a model file from an architecture or from your own torch module; any board then trains and serves it.

    \b
    edgeswarm model build lenet5 -o digits.esm
    edgeswarm model build mynet:create --labels cat,dog --input 3,64,64 -o pets.esm
    edgeswarm model build --encoder mobilenet.onnx -o encoder.esm

    ARCHITECTURE is mlp, lenet5, cnn, resnet8, resnet20 or mobilenet. MODULE:FUNCTION is called with classes, heads and
    shape where it takes them, and returns a torch module that gives logits, or logits and embedding. Gradients are
    compared with torch's own before anything is written. Needs the torch extra; a board never does.
    """
    start = time.monotonic()
    if (architecture is None) == (encoder is None):
        raise click.UsageError(
            f"say what to build: one of {', '.join(BUILT_IN)}, module:function, or --encoder FILE.onnx"
        )
    from edgeswarm.models.file import check_place

    check_place(out_file)
    text = _licence_text(licence_file)
    if encoder is not None:
        wrong = _not_for_encoders(classes, labels, heads, extras, mean, std)
        if wrong:
            raise click.UsageError(f"{wrong} says how to make a new model; --encoder takes a finished one")
        model = _wrapped(encoder, embedding, shape, units, normalise, name, licence or "unknown", text)
    else:
        assert architecture is not None
        if embedding:
            raise click.UsageError("--embedding belongs to --encoder")
        if not units and _takes_images(architecture, shape):
            units = UNITS
        model = _built(architecture, _labels(classes, labels), heads, shape, mean, std, units, normalise,
                       _options(extras, ":" not in architecture), seed, name, licence or LICENCE, text)  # fmt: skip
    _finish(model, out_file, time.monotonic() - start, json_wanted)


def _built(
    architecture: str, labels: tuple[str, ...] | int, heads: int, shape: tuple[int, ...] | None,
    mean: tuple[float, ...], std: tuple[float, ...], units: str, normalise: bool, extras: dict[str, Any], seed: int,
    name: str, licence: str, text: str,
) -> Model:  # fmt: skip
    from edgeswarm.export.build import build

    return build(
        architecture, labels, heads=heads, shape=shape, mean=mean, std=std, units=units, seed=seed, name=name,
        licence=licence, licence_text=text, options=extras, normalised=normalise, progress=output.say,
    )  # fmt: skip


def _wrapped(
    encoder: Path, embedding: str, shape: tuple[int, ...] | None, units: str, normalise: bool, name: str,
    licence: str, text: str,
) -> Model:  # fmt: skip
    from importlib.util import find_spec

    from edgeswarm.errors import ConfigError

    missing = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
    if missing:
        raise ConfigError(f"wrapping an encoder needs {' and '.join(missing)}: pip install onnx onnxruntime")
    from edgeswarm.export.encoder import wrap

    output.say(f"wrapping {encoder}")
    return wrap(
        encoder, name, shape=shape or (), output=embedding, units=units, normalise=normalise, licence=licence,
        licence_text=text,
    )  # fmt: skip


def _finish(model: Model, out_file: Path, took_s: float, json_wanted: bool) -> None:
    """Recompute the reference values with onnxruntime, write the file, and say both."""
    from edgeswarm.backends.onnx import OnnxBackend
    from edgeswarm.cli.model.check import compare
    from edgeswarm.errors import ModelError
    from edgeswarm.models.file import write

    backend = OnnxBackend()
    backend.load(model)
    compared = [each for case in model.reference for each in compare(backend, model, case)]
    wrong = [each for each in compared if not each.good]
    if wrong:
        raise ModelError(
            f"{model.card.name}: {wrong[0].output} of {wrong[0].case} is off by {wrong[0].difference:.1e} when it is "
            f"computed again (limit {wrong[0].limit:.0e}); nothing was written"
        )
    write(model, out_file)
    card = model.card
    worst = max(compared, key=lambda each: each.difference)
    size = sum(entry.size_bytes for entry in card.files.values())
    if json_wanted:
        output.emit({
            "file": str(out_file),
            "name": card.name,
            "hash": card.hash,
            "size": card.size,
            "size_bytes": size,
            "losses": list(card.losses),
            "embedding": card.embedding,
            "verified": len(compared),
            "worst_difference": worst.difference,
            "seconds": took_s,
        })  # fmt: skip
        return
    trains = f"{card.size:,} parameters, losses {', '.join(card.losses)}" if card.losses else "an encoder"
    output.pairs([
        ("model", f"{card.name}: {trains}, embedding {card.embedding}"),
        ("verified", f"{len(compared)} values by onnxruntime, worst relative error {worst.difference:.1e} "
                     f"({worst.output} of {worst.case})"),
        ("written", f"{out_file}, {readable.size(size)}, hash {card.hash[:12]}, in {readable.span(took_s)}"),
    ])  # fmt: skip


def _takes_images(architecture: str, shape: tuple[int, ...] | None) -> bool:
    return len(shape) == 3 if shape else architecture in BUILT_IN and architecture != "mlp"


def _labels(classes: int | None, labels: str) -> tuple[str, ...] | int:
    if labels and classes is not None:
        raise click.UsageError("give --classes or --labels, not both")
    return tuple(label.strip() for label in labels.split(",")) if labels else classes or 10


def _options(extras: tuple[str, ...], built_in: bool) -> dict[str, Any]:
    """NAME=VALUE as keyword arguments: numbers as numbers, lists with commas (and what built-ins list) as tuples."""
    found = {}
    for extra in extras:
        name, equals, value = extra.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--option is NAME=VALUE, not {extra!r}")
        parts = [_value(part) for part in value.split(",")]
        alone = len(parts) == 1 and not (built_in and name in LISTS)
        found[name] = parts[0] if alone else tuple(part for part in parts if part != "")
    return found


def _value(text: str) -> Any:
    if text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _licence_text(file: Path | None) -> str:
    from edgeswarm.agent.faults import fault_text
    from edgeswarm.errors import DataError

    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(fault_text("read the licence from", file, error)) from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text; save it as UTF-8") from None


def _not_for_encoders(
    classes: int | None, labels: str, heads: int, extras: tuple[str, ...], mean: tuple[float, ...],
    std: tuple[float, ...],
) -> str:  # fmt: skip
    """The first option given that only makes sense for a new model, or ""."""
    given = {"--classes": classes is not None, "--labels": bool(labels), "--heads": bool(heads),
             "--option": bool(extras), "--mean": mean != (0.0,), "--std": std != (1.0,)}  # fmt: skip
    return next((name for name, present in given.items() if present), "")
