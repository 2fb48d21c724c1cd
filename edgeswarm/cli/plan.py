"""`edgeswarm plan`: which method for a site, and the figures that speak for it, before anything is rolled out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeswarm.cli import options, output
from edgeswarm.cli.simulate import backend_option, parsed, scenario_options

if TYPE_CHECKING:
    from edgeswarm.sim.data import DataSet
    from edgeswarm.sim.estimate import Estimate, Place
    from edgeswarm.sim.plan import Plan
    from edgeswarm.sim.scenario import Scenario

GOALS = ("common", "own")
"""`sim.plan.GOALS`, here again because that brings NumPy."""


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
              help="Labelled samples of a device; says how long the data at hand took.")  # fmt: skip
@click.option("--traffic-per-day", metavar="MB", type=click.FloatRange(min=0, min_open=True), default=100.0,
              show_default=True, help="Most that a device may send and receive.")  # fmt: skip
@click.option("--goal", type=click.Choice(GOALS), default="common", show_default=True,
              help="Every device knows all classes alike, or those it sees, as often as it sees them.")  # fmt: skip
@click.option("--no-simulation", is_flag=True, help="Formulas alone.")
@backend_option
@options.as_json
@options.common
def command(
    config_file: Path | None, settings: tuple[str, ...], nodes: int | None, data: Path | None, label: str,
    features: int | None, classes: int | None, model: Path | None, boards: tuple[str, ...], graph: str,
    link_bytes_per_s: float | None, samples_per_day: float | None, traffic_per_day: float, goal: str,
    no_simulation: bool, backend: str, json_wanted: bool,
) -> None:  # fmt: skip
    """Say which method fits a site, and why.

    The site is a file as `edgeswarm simulate` reads it, or options, or both. For every method: what it sends and
    receives in a day, how old what it knows of others is, memory and time of a step by board, all by formula; then a
    short simulation on a sample of your data of those that fit. With --features and --classes instead of data, nothing
    is simulated. Boards' figures are estimates from the profiles.
    """
    from edgeswarm.sim.estimate import Demand
    from edgeswarm.sim.plan import plan

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
    rows = _rows(scenario) if features is None else None
    place = _place(scenario, rows.x.shape[1] if rows else features or 0, len(rows.classes) if rows else classes or 0)
    found = plan(place, Demand(traffic_per_day * 1e6, goal), None if no_simulation else rows, backend, output.say)
    whole = rows is not None and len(rows.y) < scenario.data.limit_rows
    days = len(rows.y) / scenario.swarm.nodes / samples_per_day if rows and whole and samples_per_day else None
    if json_wanted:
        output.emit({**_site(place, traffic_per_day, goal), "days_of_data": days, **found.plain()})
    else:
        _print(found, place, goal, days)


def _scenario(path: Path | None, overrides: Mapping[str, object]) -> Scenario:
    from edgeswarm.sim.scenario import load

    return load(path, overrides)


def _rows(scenario: Scenario) -> DataSet:
    from edgeswarm.sim import data as data_sets

    chosen = scenario.data
    if not chosen.path:
        return data_sets.digits()
    return data_sets.read(Path(chosen.path), chosen.label, chosen.limit_rows, scenario.swarm.seed)


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


def _print(plan: Plan, place: Place, goal: str, days: float | None) -> None:
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
        [_row(each, plan, goal) for each in plan.estimates],
        right="right simulated link period age memory step",
    )
    click.echo()
    click.echo("a day: sent and received by one device; <: at most. age: of what it knows of a neighbour, on average.")
    if scenario.boards:
        boards = ", ".join(name for name, _ in scenario.boards)
        click.echo(f"memory, step: the largest on {boards}; estimates from the profiles, not measured there.")
    if plan.played:
        click.echo(
            f"simulated: {output.span(plan.duration_s)} of virtual time on a sample; a point more or less is chance."
        )
    if days is not None:
        click.echo(f"the samples at hand are what a device sees in {output.number(days)} days.")
    click.echo()
    click.secho(f"[strategy] for {plan.choice}", bold=True)
    for key, value in {"name": plan.choice, **plan.estimate(plan.choice).settings}.items():
        click.echo(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")


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
        output.percent(played.accuracy(goal)) if played else "-",
        ("< " if each.most else "") + output.size(each.day_bytes),
        output.size(played.day_bytes) if played else "-",
        output.size(each.link_bytes),
        output.brief(each.period_s),
        output.brief(each.age_s) if math.isfinite(each.age_s) else "-",
        output.size(max(each.memory_bytes.values())) if each.memory_bytes else "-",
        output.brief(max(steps)) if steps else "-",
        verdict,
    ]
