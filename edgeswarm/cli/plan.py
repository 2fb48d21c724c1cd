"""`edgeswarm plan`: which method for a site, and the figures that speak for it, before anything is rolled out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm import readable
from edgeswarm.cli import options, output
from edgeswarm.cli.simulate import backend_option, parsed, scenario_options

if TYPE_CHECKING:
    from edgeswarm.sim.data import DataSet
    from edgeswarm.sim.estimate import Demand, Estimate, Place
    from edgeswarm.sim.plan import Plan
    from edgeswarm.sim.scenario import Scenario

GOALS = ("common", "own")
"""`sim.methods.GOALS`, here again because that brings NumPy."""


@click.command(short_help="Which method for a site, with reasons and figures.")
@scenario_options
@click.option("--nodes", type=click.IntRange(1, 100_000), help="Devices. Without it: the config's, else 8.")
@click.option("--data", metavar="FILE", type=click.Path(path_type=Path),
              help="Your samples: .csv, .npz or a folder of images by class.")  # fmt: skip
@click.option("--label", metavar="COLUMN", default="", help="The column of --data that holds the class.")
@click.option("--features", type=click.IntRange(1, 65_536), help="Without samples: numbers in one.")
@click.option("--classes", type=click.IntRange(2, 256), help="Without samples: how many classes.")
@click.option("--model", metavar="FILE", type=click.Path(path_type=Path),
              help="The model to share. Without it: a perceptron for the data.")  # fmt: skip
@click.option("--board", "boards", metavar="PROFILE", multiple=True,
              help="Firmware profile of the devices; again for several kinds (edgeswarm profiles).")  # fmt: skip
@click.option("--graph", metavar="KIND", default="", help="Who hears whom: ring, regular, ... (edgeswarm graph).")
@click.option("--link", "link_bytes_per_s", metavar="BYTES/S", type=click.FloatRange(min=0, min_open=True),
              help="What a device's link carries, each way.")  # fmt: skip
@click.option("--samples-per-day", type=click.FloatRange(min=0, min_open=True),
              help="Labelled samples of a device: what methods send that speak when there is news.  "
              "[default: the config's rate, else 1,000]")  # fmt: skip
@click.option("--traffic-per-day", metavar="MB", type=click.FloatRange(min=0, min_open=True), default=100.0,
              show_default=True, help="Most that a device may send and receive.")  # fmt: skip
@click.option("--goal", type=click.Choice(GOALS), default="common", show_default=True,
              help="Every device knows all classes alike, or those it sees, as often as it sees them.")  # fmt: skip
@click.option("--no-simulation", is_flag=True, help="Formulas alone.")
@click.option("--model-out", metavar="FILE", type=click.Path(path_type=Path),
              help="Keep the perceptron made for the data: the file for every device's [model] path.")  # fmt: skip
@click.option("--write", "target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Keep what is recommended as sections of a device's config.")  # fmt: skip
@backend_option
@options.as_json
@options.common
def command(
    config_file: Path | None, settings: tuple[str, ...], nodes: int | None, data: Path | None, label: str,
    features: int | None, classes: int | None, model: Path | None, boards: tuple[str, ...], graph: str,
    link_bytes_per_s: float | None, samples_per_day: float | None, traffic_per_day: float, goal: str,
    no_simulation: bool, model_out: Path | None, target: Path | None, backend: str, json_wanted: bool,
) -> None:  # fmt: skip
    """Say which method fits a site, and why.

    The site is a file as `edgeswarm simulate` reads it, or options, or both. For every method: what it sends and
    receives in a day, how old what it knows of others is, memory and time of a step by board, all by formula; then a
    short simulation on a sample of your data of those that fit. With --features and --classes instead of data, nothing
    is simulated. Boards' figures are estimates from the profiles. It ends with the sections for the devices' config.
    """
    from edgeswarm.models.file import check_place
    from edgeswarm.sim.estimate import SAMPLES_PER_DAY, Demand
    from edgeswarm.sim.plan import plan
    from edgeswarm.sim.stage import read_data
    from edgeswarm.sim.traffic import DAY_S

    if (features is None) != (classes is None) or (features is not None and data is not None):
        raise click.UsageError("give --data, or both --features and --classes")
    overrides: dict[str, object] = {
        "swarm.nodes": nodes,
        "data.path": str(data) if data is not None else None,
        "data.label": label or None,
        "model.path": str(model) if model is not None else None,
        "graph.kind": graph or None,
        "network.uplink_bytes_per_s": link_bytes_per_s,
        "network.downlink_bytes_per_s": link_bytes_per_s,
        **{f"boards.{name}": 1.0 for name in boards},
        **parsed(settings),
    }
    scenario = _scenario(config_file, {key: value for key, value in overrides.items() if value is not None})
    if model_out is not None:
        if features is not None or scenario.model.path:
            why = "there is a model already" if scenario.model.path else "without samples none is made: give --data"
            raise click.UsageError(f"--model-out keeps the perceptron made for the data, and {why}")
        check_place(model_out)
    rows = read_data(scenario) if features is None else None
    place = _place(scenario, rows.x.shape[1] if rows else features or 0, len(rows.classes) if rows else classes or 0)
    rate = samples_per_day or scenario.data.rate_per_s * DAY_S or SAMPLES_PER_DAY
    demand = Demand(traffic_per_day * 1e6, goal, rate)
    found = plan(place, demand, None if no_simulation else rows, backend, output.say)
    whole = rows is not None and len(rows.y) < scenario.data.limit_rows
    days = len(rows.y) / scenario.swarm.nodes / samples_per_day if rows and whole and samples_per_day else None
    made = _model(model_out, scenario, found.choice, rows, backend) if model_out is not None and rows else None
    sections = _sections(scenario, found, made, Path.cwd() if target is None else target.absolute().parent)
    if json_wanted:
        kept = {"config": sections, "model_file": None if made is None else str(made)}
        site = {**_site(place, traffic_per_day, goal), "samples_per_day": rate, "days_of_data": days}
        output.emit({**site, **found.plain(), **kept})
    else:
        _print(found, place, demand, days, assumed=samples_per_day is None)
        click.echo()
        click.secho(f"for every device's config, {found.choice}:", bold=True)
        for line in _lines(sections, scenario):
            click.echo(line)
    if target is not None:
        output.save(target, _lines(sections, scenario), "the sections")


def _scenario(path: Path | None, overrides: Mapping[str, object]) -> Scenario:
    from edgeswarm.sim.scenario import load

    return load(path, overrides)


def _place(scenario: Scenario, features: int, classes: int) -> Place:
    """What the formulas need."""
    import numpy as np

    from edgeswarm.cli.model.board import load
    from edgeswarm.models.limits import Limits
    from edgeswarm.models.perceptron import perceptron
    from edgeswarm.sim.estimate import Place

    if scenario.model.path:
        card = headed = load(Path(scenario.model.path), Limits()).card
    else:
        names = [f"class {number}" for number in range(classes)]
        flat = np.zeros(features, np.float32)
        card, headed = (
            perceptron(names, flat, flat + 1, scenario.model.hidden, heads=heads).card
            for heads in (0, scenario.model.heads)
        )
    graph = scenario.topology().graph(scenario.names[0], scenario.names)
    return Place(scenario, graph, features, classes, card, headed, scenario.public.rows)


def _site(place: Place, traffic_mb: float, goal: str) -> dict[str, Any]:
    scenario = place.scenario
    return {
        "nodes": scenario.swarm.nodes,
        "features": place.features,
        "classes": place.classes,
        "model": {"name": place.card.name, "parameters": place.card.size},
        "graph": {"kind": scenario.graph.kind, "mean_degree": float(place.graph.degrees().mean())},
        "boards": [name for name, _ in scenario.boards],
        "traffic_per_day_mb": traffic_mb,
        "goal": goal,
    }


def _print(plan: Plan, place: Place, demand: Demand, days: float | None, assumed: bool) -> None:
    click.secho(f"take {plan.choice}", bold=True, fg="green")
    for reason in plan.reasons:
        click.echo(f"  {reason}")
    click.echo()
    scenario = place.scenario
    head = f"{scenario.swarm.nodes:,} devices, {place.features:,} features, {place.classes} classes, "
    head += f"{place.card.name} of {place.card.size:,} parameters, graph {scenario.graph.kind}"
    click.secho(head, bold=True)
    output.table(
        ["method", "right", "a day, by formula", "simulated", "a link", "period", "age", "memory", "step", "fits"],
        [_row(each, plan, demand.goal) for each in plan.estimates],
        right="right simulated link period age memory step",
    )
    click.echo()
    click.echo("a day: sent and received by one device; <: at most. age: of what it knows of a neighbour, on average.")
    if scenario.boards:
        boards = ", ".join(name for name, _ in scenario.boards)
        click.echo(f"memory, step: the largest on {boards}; estimates from the profiles, not measured there.")
    if plan.played:
        rows = readable.counted(plan.examined_rows, "row")
        click.echo(f"simulated: {readable.span(plan.duration_s)} of virtual time on a sample, examined with {rows}.")
        click.echo("a tie: less than a point or than two standard errors of the difference; then the cheaper is taken.")
        click.echo("What another seed (--set swarm.seed) changes in how devices learn is not in this error.")
        where = " (assumed: --samples-per-day says otherwise)" if assumed else ""
        samples = readable.counted(demand.samples_per_day, "sample")
        click.echo(f"its bytes: of a day with {samples} of each device{where}; of prototypes,")
        click.echo("what is sent at news counts by samples, what is sent all the same by time.")
    if days is not None:
        click.echo(f"the samples at hand are what a device sees in {readable.number(days)} days.")


def _row(each: Estimate, plan: Plan, goal: str) -> list[str]:
    played = plan.played.get(each.method)
    steps = [step for step in each.step_s.values() if step is not None]
    verdict = "yes"
    if each.refused:
        verdict = click.style("no", fg="yellow")
    elif each.method in plan.failed:
        verdict = click.style("failed", fg="red")
    elif each.method in plan.over:
        verdict = click.style("over", fg="yellow")  # the traffic limit, when played
    return [
        each.method,
        readable.percent(played.accuracy(goal)) if played else "-",
        ("< " if each.most else "") + readable.size(each.day_bytes),
        readable.size(played.day_bytes) if played else "-",
        readable.size(each.link_bytes),
        readable.brief(each.period_s),
        readable.brief(each.age_s),
        readable.size(max(each.memory_bytes.values())) if each.memory_bytes else "-",
        readable.brief(max(steps, default=None)),
        verdict,
    ]


# ---- what the devices are to be told --------------------------------------------------------------------------------

UNNAMED = (
    "# names: every device, the same list on each. Only then is the graph fixed, as in the simulation: it and mu are",
    "# checked at the start, and who is away keeps its place. Without names it is built anew of whoever is present.",
)


def _model(path: Path, scenario: Scenario, method: str, rows: DataSet, backend: str) -> Path | None:
    """Write the model that devices start from; where it is, None for a method without one."""
    from edgeswarm.models.file import write
    from edgeswarm.sim.plan import model_for

    model = model_for(scenario, method, rows, backend)
    if model is None:
        output.say(f"{method} trains no model: nothing is written to {path}")
        return None
    write(model, path)
    output.say(f"{path}: {model.card.name} of {model.card.size:,} parameters, hash {model.card.hash[:12]}")
    return path


def _sections(scenario: Scenario, plan: Plan, model: Path | None, folder: Path) -> dict[str, dict[str, Any]]:
    """Of a device's config in `folder`; [model] and [public] without a path where there is no file yet."""
    from edgeswarm.agent.settings import EncoderConfig, GraphConfig
    from edgeswarm.strategies import STRATEGIES
    from edgeswarm.strategies.base import wants_model, wants_neighbours, wants_public

    def beside(path: str | Path) -> str:
        whole = Path(path).absolute()
        return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)

    def told(section: Any, default: Any) -> dict[str, Any]:
        unlike = {key: value for key, value in vars(section).items() if value != getattr(default, key)}
        return {key: beside(value) if key in ("file", "path") else value for key, value in unlike.items()}

    method = STRATEGIES[plan.choice]()
    found = {"strategy": {"name": plan.choice, **plan.estimate(plan.choice).settings}}
    if wants_model(method):
        path = model or scenario.model.path
        found["model"] = {"path": beside(path)} if path else {}
    graph = told(scenario.graph, GraphConfig())
    if scenario.swarm.names and not scenario.graph.file:  # what was simulated is the graph of these
        graph = {"names": scenario.graph.names or scenario.names, **graph}
    if graph and wants_neighbours(method):
        found["graph"] = graph
    if wants_public(method):
        found["public"] = {"path": beside(scenario.public.path)} if scenario.public.path else {}
    if encoder := told(scenario.encoder, EncoderConfig()):
        found["encoder"] = encoder
    return found


def _lines(sections: Mapping[str, Mapping[str, Any]], scenario: Scenario) -> list[str]:
    """As TOML; a remark where a file has to be made first."""
    from edgeswarm.cli.config import toml_value

    data = Path(scenario.data.path).name or "DATA"
    label = f" --label {scenario.data.label}" if scenario.data.label else ""
    remarks = {
        "model": "# path: a model for your samples, the same file on every device; --model-out FILE makes it",
        "public": "# path: samples that every device has, the same file; made by "
        f"edgeswarm public make {data}{label} --rows {scenario.public.rows} -o public.npz",
    }
    lines: list[str] = []
    for name, section in sections.items():
        lines += [*([""] if lines else []), f"[{name}]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in section.items()] or [remarks[name]]
        if name == "graph" and not section.keys() & {"names", "file"}:
            lines += UNNAMED
    return lines
