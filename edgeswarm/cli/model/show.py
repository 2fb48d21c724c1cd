"""`edgeswarm model show`: what a model file holds, what its exchange costs, and what it would take on which board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.model import board

if TYPE_CHECKING:
    from edgeswarm.agent.profile import Profile
    from edgeswarm.cli.model.measure import Measured
    from edgeswarm.models.card import ModelCard
    from edgeswarm.models.cost import Exchange
    from edgeswarm.models.file import Model

ESTIMATE = "estimate"
MEASURED = "measured"


@click.command()
@board.file_argument
@click.option("--batch", type=click.IntRange(1, 65_536), help="Rows per step. Without it: each profile's own.")
@click.option("--profile", "only", metavar="PROFILE", default="", help="Costs on this profile alone.")
@click.option("--measure", "measure_wanted", is_flag=True, help="Measure on this machine beside the estimates.")
@board.backend
@options.as_json
@options.common
def command(
    file: Path, batch: int | None, only: str, measure_wanted: bool, backend_name: str, json_wanted: bool
) -> None:
    """Show what FILE holds, the bytes of an exchange, and memory and time per step on each board.

    Figures of boards are estimates from the profile's speed, not measurements; `edgeswarm model check` measures.
    """
    from edgeswarm.agent.profile import choose, profiles
    from edgeswarm.models.cost import exchange
    from edgeswarm.models.limits import Limits

    model = board.load(file, Limits())  # a workstation may look at what is too large for a board
    boards = [board_cost(model.card, profile, batch) for profile in ([choose(only)[0]] if only else profiles())]
    measured, backend = _measured(model, batch, backend_name) if measure_wanted else (None, "")
    exchanges = exchange(model.card.size)
    if json_wanted:
        output.emit(_data(file, model, exchanges, boards, measured, backend))
    else:
        _print(file, model, exchanges, boards, measured, backend)


def board_cost(card: ModelCard, profile: Profile, batch: int | None) -> dict[str, Any]:
    """What the model would take on a board of `profile`, and "" or why it would be refused there."""
    from edgeswarm.agent.profile import speed
    from edgeswarm.models.cost import cost

    rows = batch or profile.training.batch
    estimate = cost(card, speed(profile), rows)
    trains = bool(card.losses)
    return {
        "profile": profile.id,
        "batch": rows if trains else None,
        "step_s": estimate.step_s if trains else None,
        "inference_s": estimate.inference_s,
        "memory_bytes": estimate.memory_bytes if trains else estimate.inference_bytes,
        "kind": ESTIMATE,
        "refused": _refusal(card, profile, estimate.memory_bytes if trains else estimate.inference_bytes),
    }


def _refusal(card: ModelCard, profile: Profile, memory_bytes: int) -> str:
    training, memory = profile.training, profile.memory
    file_bytes = sum(entry.size_bytes for entry in card.files.values())
    if card.size > training.max_params:
        return f"over {training.max_params:,} parameters"
    if file_bytes > training.max_model_bytes:
        return f"file over {readable.size(training.max_model_bytes)}"
    limit_bytes = memory.memory_max_mb * 1_000_000 or int(memory.ram_mb_min * 1_000_000 * memory.memory_max_share)
    if limit_bytes and memory_bytes > limit_bytes:
        return f"over {readable.size(limit_bytes)} of memory"
    return ""


def _measured(model: Model, batch: int | None, backend_name: str) -> tuple[Measured, str]:
    from edgeswarm.cli.model.measure import measure

    place = board.here("auto")
    backend, _ = board.start_backend(place, backend_name)
    backend.load(model)
    return measure(backend, model, batch or place.budget.batch), backend.name


def _print(
    file: Path, model: Model, exchanges: list[Exchange], boards: list[dict[str, Any]], measured: Measured | None,
    backend: str,
) -> None:  # fmt: skip
    card = model.card
    output.pairs(_facts(file, model))
    if card.size:
        _heading("parameters")
        output.table(
            ["name", "shape", "part", "numbers"],
            [[p.name, " x ".join(map(str, p.shape)) or "1", p.part, f"{p.size:,}"] for p in card.parameters]
            + [["all", "", "", f"{card.size:,}"]],
            right="numbers",
        )
        _heading("one exchange of all parameters (messages: MQTT packets of 120 kB)")
        output.table(
            ["sent as", "size", "messages"],
            [[e.scheme, readable.size(e.size_bytes), f"{e.messages:,}"] for e in exchanges],
            right="size messages",
        )
    _heading("cost by board (estimates from the profiles, not measured there)")
    rows = [_board_row(each) for each in boards]
    if measured is not None:
        batch = str(measured.batch) if card.losses else "-"
        took = [readable.brief(measured.step_s), readable.brief(measured.inference_s)]
        rows.append([f"this machine, {backend}", batch, *took, readable.size(measured.peak_bytes), MEASURED, ""])
    heads = ["board", "batch", "step", "answer", "memory", "figures", "fits"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    output.table(heads, rows, right="batch step answer memory")


def _board_row(cost: dict[str, Any]) -> list[str]:
    verdict = click.style(f"no: {cost['refused']}", fg="yellow") if cost["refused"] else "yes"
    took = [readable.brief(cost["step_s"]), readable.brief(cost["inference_s"])]
    return [cost["profile"], str(cost["batch"] or "-"), *took,
            readable.size(cost["memory_bytes"]), ESTIMATE, verdict]  # fmt: skip


def _facts(file: Path, model: Model) -> list[tuple[str, str]]:
    card = model.card
    size = sum(entry.size_bytes for entry in card.files.values())
    labels = f"{len(card.labels)}: {_few(card.labels)}" if card.labels else "none: a pure encoder"
    facts = [
        ("file", f"{file} ({readable.size(size)} in {len(card.files)} members)"),
        ("model", card.name if card.name == card.architecture else f"{card.name}, {card.architecture}"),
        ("hash", card.hash),
        ("licence", card.licence),
        ("made by", ", ".join(f"{name} {_short(value)}" for name, value in card.producer.items()) or "not said"),
        ("input", f"{card.input.kind} {' x '.join(map(str, card.input.shape))}, {card.input.units}"),
        ("labels", labels),
        ("embedding", f"{card.embedding} numbers{', length 1' if card.normalised else ''}"),
        (
            "heads",
            f"{card.heads} beside the main one" if card.heads else "the main one alone" if card.labels else "none",
        ),
        ("losses", ", ".join(card.losses) or "none: serves, does not train"),
        (
            "one sample",
            f"{readable.count(card.flops)} flops, {readable.size(card.activation_bytes)} of intermediate values",
        ),
    ]
    if card.size:
        facts.append(("body, heads", f"{card.body_size:,} and {card.size - card.body_size:,} parameters"))
    return facts


def _short(value: str) -> str:
    """A hash by its beginning, as everywhere; anything else as it is."""
    return value[:12] if len(value) == 64 and not value.strip("0123456789abcdef") else value


def _few(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:10])
    return f"{shown}, ..." if len(labels) > 10 else shown


def _heading(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)


def _data(
    file: Path, model: Model, exchanges: list[Exchange], boards: list[dict[str, Any]], measured: Measured | None,
    backend: str,
) -> dict[str, Any]:  # fmt: skip
    card = model.card
    return {
        "file": str(file),
        "name": card.name,
        "architecture": card.architecture,
        "hash": card.hash,
        "licence": card.licence,
        "producer": dict(card.producer),
        "input": {"shape": list(card.input.shape), "kind": card.input.kind, "units": card.input.units},
        "labels": list(card.labels),
        "embedding": card.embedding,
        "normalised": card.normalised,
        "heads": card.heads,
        "losses": {name: {"inputs": [t.name for t in spec.inputs], "outputs": list(spec.outputs)}
                   for name, spec in card.losses.items()},
        "size": card.size,
        "body_size": card.body_size,
        "parameters": [{"name": p.name, "shape": list(p.shape), "part": p.part, "size": p.size}
                       for p in card.parameters],
        "flops": card.flops,
        "activation_bytes": card.activation_bytes,
        "files": {name: {"sha256": e.sha256, "size_bytes": e.size_bytes} for name, e in card.files.items()},
        "exchange": [{"scheme": e.scheme, "size_bytes": e.size_bytes, "messages": e.messages} for e in exchanges],
        "boards": boards,
        "measured": None if measured is None else {
            "backend": backend, "batch": measured.batch, "step_s": measured.step_s,
            "inference_s": measured.inference_s, "peak_memory_bytes": measured.peak_bytes, "kind": MEASURED,
        },
    }  # fmt: skip
