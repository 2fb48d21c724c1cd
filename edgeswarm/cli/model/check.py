"""`edgeswarm model check`: does this board compute what the builder's machine computed, how quickly, in what memory?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.model import board
from edgeswarm.errors import EXIT_CHECK_FAILED

if TYPE_CHECKING:
    from edgeswarm.backends.base import Backend
    from edgeswarm.cli.model.board import Here
    from edgeswarm.cli.model.measure import Measured
    from edgeswarm.models.file import Model
    from edgeswarm.models.reference import ReferenceCase


@dataclass(frozen=True, slots=True)
class Compared:
    """One output of one reference case. difference: relative L2, infinity when it is not finite.  limit: allowed."""

    case: str
    output: str
    difference: float
    limit: float

    @property
    def good(self) -> bool:
        """Whether this board's answer counts as the same."""
        return self.difference <= self.limit


@click.command()
@board.file_argument
@board.backend
@board.profile
@click.option("--batch", type=click.IntRange(1, 65_536), help="Rows of the measured step. Without it: the profile's.")
@click.option("--no-timing", is_flag=True, help="Compare only; measure nothing.")
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, file: Path, backend_name: str, profile_name: str, batch: int | None, no_timing: bool,
    json_wanted: bool,
) -> None:  # fmt: skip
    """Recompute the reference values in FILE on this board, and measure a training step and an answer.

    Needs neither torch nor onnx. FILE is read within the limits of the board's profile. Ends with 0 when every value
    is within its limit, with 6 when one is not or when step or memory exceed the profile, with 2 when FILE is refused.
    """
    from edgeswarm.errors import EdgeswarmError

    try:
        place = board.here(profile_name)
        model = board.load(file, place.limits)
        backend, reasons = board.start_backend(place, backend_name)
        if not json_wanted:
            board.say_backend(backend, reasons, place)
        backend.load(model)
        compared = [each for case in model.reference for each in compare(backend, model, case)]
        measured = None if no_timing else _measured(backend, model, batch or place.budget.batch)
    except EdgeswarmError as error:
        if not json_wanted:
            raise
        output.emit({"file": str(file), "ok": False, "error": str(error)})
        ctx.exit(error.exit_code)
    faults = _faults(compared, measured, place)
    if json_wanted:
        output.emit(_data(file, model, backend.name, reasons, compared, measured, place, faults))
    else:
        _print(file, model, compared, measured, place, faults)
    ctx.exit(EXIT_CHECK_FAILED if faults else 0)


def compare(backend: Backend, model: Model, case: ReferenceCase) -> list[Compared]:
    """Each output of `case` as `backend` computes it, against what the file says. Raises ModelError, OutOfMemory."""
    from edgeswarm.backends.base import Gradient, Predict

    name = model.card.hash
    if case.graph != "forward":
        slope = backend.answer(Gradient(name, case.graph, model.initial, case.inputs))
        found = {**slope.outputs, "gradient": slope.gradient, "loss": slope.loss}
        return _against(case, case.name, found)
    compared = _against(case, case.name, backend.answer(Predict(name, case.inputs["x"])))
    if model.card.size:  # with parameters handed over, as in the middle of training, it is another graph
        found = backend.answer(Predict(name, case.inputs["x"], model.initial))
        compared += _against(case, f"{case.name}, parameters given", found)
    return compared


def _against(case: ReferenceCase, name: str, found: dict[str, Any]) -> list[Compared]:
    import numpy as np

    compared = []
    for key, wanted in case.outputs.items():
        value = np.asarray(found[key], np.float64)
        reference = np.asarray(wanted, np.float64)
        if value.shape != reference.shape or not np.isfinite(value).all():
            difference = float("inf")
        else:
            length = float(np.linalg.norm(reference))
            gap = float(np.linalg.norm(value - reference))
            difference = gap / length if length > 0 else gap
        compared.append(Compared(name, key, difference, case.tolerance))
    return compared


def _measured(backend: Backend, model: Model, batch: int) -> Measured:
    from edgeswarm.cli.model.measure import measure

    return measure(backend, model, batch)


def _faults(compared: list[Compared], measured: Measured | None, place: Here) -> list[str]:
    """Where the board falls short, one line each."""
    faults = []
    wrong = [each for each in compared if not each.good]
    if wrong:
        worst = max(wrong, key=lambda each: each.difference / each.limit if each.limit > 0 else each.difference)
        faults.append(
            f"{len(wrong)} of {len(compared)} values differ too much, {worst.output} of {worst.case} most "
            f"({worst.difference:.1e}, limit {worst.limit:.0e}); try another --backend, and report it with the versions"
        )
    if not compared:
        faults.append("the file holds no reference values to compare with; build it again")
    if measured is None:
        return faults
    budget = place.budget
    if measured.step_s is not None and measured.step_s > budget.max_step_s:
        faults.append(
            f"a step takes {readable.brief(measured.step_s)}, the profile allows {readable.brief(budget.max_step_s)}; "
            "use a smaller batch or model"
        )
    if budget.memory_bytes is not None and measured.peak_bytes > budget.memory_bytes:
        faults.append(
            f"{readable.size(measured.peak_bytes)} of memory were taken, "
            f"{readable.size(budget.memory_bytes)} are allowed ({budget.memory_reason}); use a smaller batch or model"
        )
    return faults


def _print(
    file: Path, model: Model, compared: list[Compared], measured: Measured | None, place: Here, faults: list[str]
) -> None:
    card = model.card
    trains = f"{card.size:,} parameters" if card.size else "an encoder, does not train"
    click.echo(f"{file}: {card.name}, {trains}, hash {card.hash[:12]}\n")
    rows = [
        [each.case, each.output, f"{each.difference:.1e}", f"{each.limit:.0e}", _verdict(each)] for each in compared
    ]
    output.table(["case", "value", "difference", "limit", ""], rows, right="difference limit")
    if measured is not None:
        click.echo()
        items = []
        if measured.step_s is not None:
            items.append((f"training step, batch {measured.batch}", readable.brief(measured.step_s)))
        items.append(("one answer", readable.brief(measured.inference_s)))
        items.append(("peak memory of this process", readable.size(measured.peak_bytes)))
        output.pairs(items)
    click.echo()
    for fault in faults:
        click.secho(f"failed: {fault}", fg="red")
    if not faults:
        click.secho(f"good: {len(compared)} values within their limits on {place.profile.id}", fg="green")


def _verdict(each: Compared) -> str:
    return click.style("ok", fg="green") if each.good else click.style("too far", fg="red")


def _data(
    file: Path, model: Model, backend: str, reasons: list[str], compared: list[Compared], measured: Measured | None,
    place: Here, faults: list[str],
) -> dict[str, Any]:  # fmt: skip
    return {
        "file": str(file),
        "ok": not faults,
        "error": None,
        "faults": faults,
        "model": model.card.name,
        "hash": model.card.hash,
        "backend": backend,
        "backend_reasons": reasons,
        "profile": place.profile.id,
        "values": [
            {"case": e.case, "value": e.output, "difference": e.difference, "limit": e.limit, "ok": e.good}
            for e in compared
        ],
        "batch": measured.batch if measured else None,
        "step_s": measured.step_s if measured else None,
        "inference_s": measured.inference_s if measured else None,
        "peak_memory_bytes": measured.peak_bytes if measured else None,
    }
