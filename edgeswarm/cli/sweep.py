"""`edgeswarm sweep`: many simulations of one swarm with some keys set otherwise, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm.cli import options, output
from edgeswarm.cli.simulate import EXIT_INTERRUPTED, asked_to_stop, backend_option, parsed, scenario_options
from edgeswarm.readable import counted

if TYPE_CHECKING:
    from edgeswarm.sim.scenario import Scenario
    from edgeswarm.sim.sweep import Row

FOLDER = Path("edgeswarm-sweep")
MOST_NOTES = 5


@click.command()
@scenario_options
@click.option("--over", metavar="KEY=A,B,..", multiple=True, required=True,
              help="Values of a key: strategy.name=d_psgd,isolated or seed=1..5; a list is one value in brackets, "
                   "network.delay_s=0,[0.1,2]. May be given again.")  # fmt: skip
@click.option("--folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), default=FOLDER,
              show_default=True,
              help="Keep each run there; those that are there are not run again, unless files changed.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time.  [default: one per core]")
@click.option("--dask", metavar="ADDRESS", default="", help="Run them on this Dask cluster: tcp://host:8786.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    default="",
    help="Run them on this Ray cluster: host:6379, ray://host:10001, auto, local.",
)
@backend_option
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, settings: tuple[str, ...], over: tuple[str, ...], folder: Path,
    jobs: int | None, dask: str, ray: str, backend: str, json_wanted: bool,
) -> None:  # fmt: skip
    """Run every combination of the values given, and say what each setting comes to, mean ± standard deviation.

    Seeds (seed=1..5) are repetitions of a setting; everything else tells settings apart. Methods that --over names are
    played as `edgeswarm compare` plays them, but for what the file and KEY say. Ctrl-C lets the runs under
    way end; the same command goes on with those that are missing. On a cluster, edgeswarm and the data have to be on
    its machines as well.
    """
    from edgeswarm.errors import ConfigError, EdgeswarmError
    from edgeswarm.sim.methods import told
    from edgeswarm.sim.pool import check_packages
    from edgeswarm.sim.scenario import load
    from edgeswarm.sim.sweep import cells, common_fault, plain, sweep, table
    from edgeswarm.sim.sweep import parsed as values_of

    check_packages(dask, ray)
    wanted = cells(load(config_file, parsed(settings)), values_of(over))
    output.say(f"{len(wanted)} runs; each is kept in {folder}")
    died: list[str] = []
    with asked_to_stop() as asked:
        outcomes = sweep(
            wanted, folder, jobs or -1, dask=dask, ray=ray, backend=backend, stop=lambda: bool(asked), died=died.append,
            progress=lambda done, of, cell: output.say(f"{done} of {of}"),
        )  # fmt: skip
    rows = table(wanted, outcomes, folder)
    if not any(outcomes) and not died and (why := common_fault(row.failed for row in rows)):
        raise ConfigError(why)
    over_now = sum(outcome is not None for outcome in outcomes) + sum(len(row.failed) > 0 for row in rows)
    drawn = _drawn(rows, folder, _title(wanted[0].scenario, rows)) if any(outcomes) else None
    tuning = {cell.scenario.strategy.name: cell.tuning for cell in wanted}
    if json_wanted:
        data = {"folder": str(folder), "runs": len(wanted), "rows": plain(rows), "picture": drawn}
        output.emit(data | {"tuning": {method: dict(settings) for method, settings in tuning.items()}})
    else:
        notes = dict.fromkeys(note for outcome in outcomes if outcome for note in outcome.notes)
        _print(rows, drawn, [*told(tuning), *list(notes)[:MOST_NOTES]])
    if asked:
        output.say(f"stopped with {over_now} of {len(wanted)} runs; the same command goes on with the others")
        ctx.exit(EXIT_INTERRUPTED)
    if died:
        raise EdgeswarmError(died[0])
    if any(row.failed for row in rows):
        ctx.exit(1)


def _title(scenario: Scenario, rows: Sequence[Row]) -> str:
    data, swarm = scenario.data, scenario.swarm
    runs = sorted({row.runs for row in rows})
    each = f"{runs[-1]} run{'s' * (runs[-1] != 1)} each" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs each"
    return f"{Path(data.path).name or data.name}, {counted(swarm.nodes, 'device')}, {swarm.duration_s:g} s, {each}"


def _drawn(rows: Sequence[Row], folder: Path, title: str) -> str | None:
    from edgeswarm.sim.canvas import NoPicture
    from edgeswarm.sim.sweep_picture import PICTURE, draw

    try:
        return str(draw(rows, title, folder / PICTURE))
    except NoPicture as error:
        output.say(str(error))
        return None


def _print(rows: Sequence[Row], drawn: str | None, notes: Sequence[str]) -> None:
    from edgeswarm.sim.sweep import heads, words

    names = heads(rows)
    output.table(names, [words(row) for row in rows], names[len(rows[0].setting) or 1 :])
    for row in rows:
        for why in row.failed:
            setting = ", ".join(f"{key} = {value}" for key, value in row.setting) or "as it is"
            click.echo(f"{setting}: {why}")
    for note in notes:
        click.echo(f"note: {note}")
    if drawn:
        click.echo(f"Picture: {drawn}")
