"""`edgeswarm compare`: all methods and controls on one's own data, at equal bytes and in equal time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm.cli import options, output
from edgeswarm.cli.simulate import EXIT_INTERRUPTED, asked_to_stop, backend_option, parsed, scenario_options
from edgeswarm.readable import counted

if TYPE_CHECKING:
    from edgeswarm.sim.compare import Curve
    from edgeswarm.sim.scenario import Scenario

FOLDER = Path("edgeswarm-compare")
SPLITS = ("iid", "dirichlet", "main_class", "primary_labels", "classes_per_agent", "files")
"""Of `sim.scenario`; here again because that brings NumPy."""
_SHORT = {"data": "data.path", "label": "data.label", "model": "model.path", "nodes": "swarm.nodes",
          "split": "data.split", "duration_s": "swarm.duration_s"}  # fmt: skip
"""Options that stand for a key of the scenario."""


@click.command()
@click.option("--data", metavar="FILE", type=click.Path(path_type=Path),
              help="Your samples: csv, npz, or a folder of images.  [default: handwritten digits]")  # fmt: skip
@click.option("--label", metavar="COLUMN", help="csv: the label's column; npz: the label's array.")
@click.option("--model", metavar="FILE", type=click.Path(path_type=Path),
              help="Model that the methods train.  [default: a perceptron made for the data]")  # fmt: skip
@click.option("--nodes", type=click.IntRange(2, 1000), help="Devices.  [default: 8]")
@click.option("--split", type=click.Choice(SPLITS), help="How the samples are dealt out.  [default: dirichlet]")
@click.option("--time", "duration_s", metavar="SECONDS", type=click.FloatRange(min=1.0),
              help="Virtual time that passes.  [default: 600]")  # fmt: skip
@click.option("--methods", metavar="A,B,..", default="", help="Only these methods.  [default: all]")
@click.option("--seeds", type=click.IntRange(1, 20), default=1, show_default=True, help="Runs of each method.")
@click.option("--bytes", "cuts", metavar="N", type=click.FloatRange(min=1.0), multiple=True,
              help="A budget of bytes for the table; may be given again.  [default: powers of ten]")  # fmt: skip
@click.option("--exam", type=click.Choice(["common", "own"]), default="common", show_default=True,
              help="Examine all classes alike, methods with auxiliary heads by the last that learns, or each device on "
                   "its own mix of classes.")  # fmt: skip
@scenario_options
@click.option("--folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), default=FOLDER,
              show_default=True,
              help="Keep runs and pictures there; runs that are there are kept, unless files changed.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time.  [default: one per core]")
@backend_option
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, /, methods: str, seeds: int, cuts: tuple[float, ...], exam: str, config_file: Path | None,
    settings: tuple[str, ...], folder: Path, jobs: int | None, backend: str, json_wanted: bool, **short: Any,
) -> None:  # fmt: skip
    """Play every method and every control on your data, and say what each reaches for equal bytes and in equal time.

    Devices are simulated: the very agents, methods and bytes of real ones, in virtual time. Two tables and two pictures
    come of it. Knobs (--set strategy.rate=0.05) are for every method that has them; where none is given, methods have
    the settings with which `edgeswarm plan` plays them, and notes say which are not the method's own. The other keys,
    and what --config may say, are those of `edgeswarm simulate`. Ctrl-C lets the runs under way end.
    """
    from edgeswarm.errors import ConfigError, EdgeswarmError
    from edgeswarm.sim.compare import budgets, cells, chosen, compare
    from edgeswarm.sim.scenario import load
    from edgeswarm.sim.stage import read_data
    from edgeswarm.sim.sweep import common_fault, files, outcome_of

    said = {"report.every_s": "0.01"} | parsed(settings)  # any that suits: `cells` says when each run is examined
    said |= {_SHORT[name]: str(value) for name, value in short.items() if value is not None}
    knobs = {key.removeprefix("strategy."): said.pop(key) for key in list(said) if key.startswith("strategy.")}
    if "name" in knobs:
        raise click.UsageError("which methods are compared is said by --methods, not by --set strategy.name")
    scenario = load(config_file, said)
    wanted = cells(scenario, chosen([name.strip() for name in methods.split(",") if name.strip()]), knobs, seeds, exam)
    if any(outcome_of(place) is None for place in files(wanted, folder, backend)):
        read_data(scenario)  # what is wrong with the samples is the same for all runs
    output.say(f"runs: {len(wanted)}, of {counted(scenario.swarm.nodes, 'device')}; each is kept in {folder}")
    died: list[str] = []
    with asked_to_stop() as asked:
        curves = compare(
            wanted, folder, jobs or -1, backend, stop=lambda: bool(asked), died=died.append, exam=exam,
            progress=lambda done, of, cell: output.say(f"{done} of {of}: {cell.scenario.strategy.name}"),
        )  # fmt: skip
    if not any(curve.runs for curve in curves) and not died and (why := common_fault(curve.failed for curve in curves)):
        raise ConfigError(why)
    amounts = tuple(sorted(cuts)) or budgets(curves)
    pictures = _drawn(curves, _title(scenario, seeds), exam, folder)
    if json_wanted:
        output.emit(_data(curves, amounts, exam, wanted[0].scenario, seeds, pictures))
    else:
        _print(curves, amounts, exam, pictures)
    if asked:
        output.say("stopped; the same command goes on with the runs that are missing")
        ctx.exit(EXIT_INTERRUPTED)
    if died:
        raise EdgeswarmError(died[0])
    if not any(curve.runs for curve in curves):
        ctx.exit(1)


def _title(scenario: Scenario, seeds: int) -> str:
    data, swarm = scenario.data, scenario.swarm
    runs = f", mean of {seeds} runs" if seeds > 1 else ""
    return (
        f"{Path(data.path).name or data.name}, {counted(swarm.nodes, 'device')}, "
        f"split {data.split}, graph {scenario.graph.kind}, {swarm.duration_s:g} s{runs}"
    )


def _drawn(curves: Sequence[Curve], title: str, exam: str, folder: Path) -> list[str]:
    from edgeswarm.sim.canvas import NoPicture
    from edgeswarm.sim.compare import draw

    try:
        return [str(path) for path in draw(curves, title, exam, folder)]
    except NoPicture as error:
        output.say(str(error))
        return []


def _data(
    curves: Sequence[Curve], amounts: Sequence[float], exam: str, scenario: Scenario, seeds: int,
    pictures: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """For JSON. scenario: of the first run; the others differ in their strategy, which `Curve.plain` says, and seed."""
    return {
        "scenario": {name: table for name, table in scenario.plain().items() if name != "strategy"},
        "seeds": [scenario.swarm.seed + at for at in range(seeds)],
        "exam": exam,
        "for_bytes": {
            curve.method: {f"{amount:.0f}": curve.for_bytes(amount, exam) for amount in amounts} for curve in curves
        },
        "methods": [curve.plain() for curve in curves],
        "pictures": list(pictures),
    }


def _print(curves: Sequence[Curve], amounts: Sequence[float], exam: str, pictures: Sequence[str]) -> None:
    from edgeswarm.sim.compare import by_bytes, by_time, sentences
    from edgeswarm.sim.methods import GOALS

    for title, (heads, rows) in (
        (f"For equal bytes of a device ({GOALS[exam]})", by_bytes(curves, amounts, exam)),
        (f"In equal time ({GOALS[exam]})", by_time(curves, exam)),
    ):
        if rows:
            click.secho(title, bold=True)
            output.table(heads, rows, heads[2:])
            click.echo()
    for line in sentences(curves):
        click.echo(f"note: {line}")
    for curve in curves:
        for why in curve.failed:
            click.echo(f"{curve.method} could not be played: {why}")
    if pictures:
        click.echo(f"Pictures: {', '.join(pictures)}")
