"""`edgeswarm graph`: who would hear whom, drawn, with the numbers that decide how well a method does on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgeswarm import readable
from edgeswarm.agent.settings import GRAPHS, WEIGHTS
from edgeswarm.cli import options, output
from edgeswarm.errors import EXIT_TIMED_OUT, ConfigError

if TYPE_CHECKING:
    from edgeswarm.cli.visitor import Seen
    from edgeswarm.maths.graphs import Graph, Topology

SCHEMES = ("float32", "float16", "int8", "int4", "top", "entropy")
"""`messages.VECTOR_SCHEMES`, here again because that brings NumPy."""
FEWEST_UPDATES = 8
"""Messages after which the mean age of a link says something: with two, the one before may be from another day."""


@dataclass(frozen=True)
class Chosen:
    """What is to be shown. quality: of measured links, by (hearer, heard)."""

    topology: Topology
    title: str
    quality: Mapping[tuple[str, str], float] = field(default_factory=dict)


@click.command(short_help="Draw who hears whom; say what it means for a method.")
@click.argument("kind", type=click.Choice(GRAPHS), required=False, metavar="KIND")
@click.option("--nodes", type=click.IntRange(1, 100_000), default=16, show_default=True, help="How many there are.")
@click.option("--names", metavar="A,B,...", default="", help="Who there is, instead of --nodes.")
@click.option("--degree", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Neighbours of each: regular, and measured links.")  # fmt: skip
@click.option("--probability", type=click.FloatRange(0.0, 1.0, min_open=True), default=0.3, show_default=True,
              help="Chance of a link: erdos-renyi.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              help="Of the draw: regular, erdos-renyi.")  # fmt: skip
@click.option("--weights", type=click.Choice(WEIGHTS), default="metropolis", show_default=True,
              help="What a neighbour counts.")  # fmt: skip
@click.option("--edges", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="The graph of this file, lines of two names and perhaps a quality.")  # fmt: skip
@click.option("--site", metavar="NAME", help="The best links that the running nodes of this site report.")
@click.option("--broker", metavar="URL", help="Ask this broker about the site instead of the config's.")
@click.option("--timeout", "timeout_s", metavar="SECONDS", type=click.FloatRange(min=0.2), default=35.0,
              show_default=True, help="How long to wait for reports of the site.")  # fmt: skip
@options.config
@click.option("--model", "model_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Say what sharing this model costs on the graph.")  # fmt: skip
@click.option("--scheme", type=click.Choice(SCHEMES), default="int8", show_default=True, help="How the model travels.")
@click.option("--picture", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw it: .png or .svg.")  # fmt: skip
@click.option("--write", "target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Keep it: .toml for the section of a config, anything else for lines of two names.")  # fmt: skip
@options.as_json
@options.common
@click.pass_context
def command(
    ctx: click.Context, kind: str | None, nodes: int, names: str, degree: int, probability: float, seed: int,
    weights: str, edges: Path | None, site: str | None, broker: str | None, timeout_s: float, config_file: Path | None,
    model_file: Path | None, scheme: str, picture: Path | None, target: Path | None, json_wanted: bool,
) -> None:  # fmt: skip
    """Draw who hears whom, and say what it means.

    The graph is of a KIND (ring, torus, regular, ...), of a file (--edges), of the config (--config), or of what the
    running nodes of a site say of their links (--site, --broker): then the best ones are chosen that connect all, a
    link being the better the younger what comes over it is. Ends with 5 when no node reported a link in time. A graph
    in parts is drawn and named as such, and ends with 0 all the same; agents refuse one.
    """
    sources = [bool(kind), edges is not None, bool(site or broker), config_file is not None and not (site or broker)]
    if sum(sources) != 1:
        raise click.UsageError(
            "which graph? Give one of KIND, --edges FILE, --site NAME (or --broker URL), --config FILE"
        )
    for option in ("names", "nodes"):
        here = kind is not None or (option == "nodes" and config_file is not None and not (site or broker))
        if not here and ctx.get_parameter_source(option) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{option} goes with a KIND alone: here the nodes are those of the graph itself")
    given = {"degree": degree, "probability": probability, "seed": seed, "weights": weights}
    if site or broker:
        seen = _visited(config_file, site, broker, timeout_s)
        quality = link_quality(seen)
        if not quality:
            output.say(f"no links were reported within {timeout_s:g} s; nodes report every 30 s unless told otherwise")
            ctx.exit(EXIT_TIMED_OUT)
        chosen = _measured(quality, given)
    elif edges is not None:
        chosen = _of_file(edges, given)
    elif config_file is not None:
        chosen = _of_config(config_file, nodes)
    else:
        assert kind is not None
        chosen = _of_kind(kind, tuple(names.split(",")) if names else _names(nodes), given)
    graph = _built(chosen.topology)
    facts = facts_of(graph)
    facts["traffic"] = traffic(graph, model_file, scheme) if model_file is not None else None
    if json_wanted:
        output.emit(
            {"title": chosen.title, **facts, "nodes": list(graph.names), "edges": edge_rows(graph, chosen.quality)}
        )
    else:
        _print(chosen.title, graph, facts)
    if target is not None:
        _write(target, chosen, graph)
    if picture is not None:  # last, since it needs what may be missing
        _draw(picture, chosen, graph, facts)


# ---- where the graph comes from -------------------------------------------------------------------------------------


def _names(nodes: int) -> tuple[str, ...]:
    from edgeswarm.sim.scenario import node_names

    return node_names(nodes)


def _of_kind(kind: str, names: tuple[str, ...], given: dict[str, Any]) -> Chosen:
    from edgeswarm.wire.topics import valid_name

    if kind == "edges":
        raise click.UsageError("the graph of a file: give --edges FILE")
    for name in names:
        valid_name(name, "--names")
    return Chosen(_rule(kind=kind, names=names, **given), kind + _ring_after_all(kind, len(names)))


def _ring_after_all(kind: str, nodes: int) -> str:
    """A grid of a prime number of nodes has one row: said, for it is as slow as a ring."""
    prime = nodes > 1 and all(nodes % side for side in range(2, math.isqrt(nodes) + 1))
    return f" (a ring: {nodes} nodes make no grid)" if kind == "torus" and prime else ""


def _of_file(path: Path, given: dict[str, Any]) -> Chosen:
    from edgeswarm.agent.graph import read_edges

    try:
        rows = read_edges(path)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("[graph] file: ")) from None
    pairs = tuple((a, b) for a, b, _ in rows)
    qualities = {(a, b): quality for a, b, quality in rows}
    names = tuple(sorted({name for pair in pairs for name in pair}))
    return Chosen(
        _rule(kind="edges", names=names, edges=pairs, **given), path.name,
        qualities if len(set(qualities.values())) > 1 else {},
    )  # fmt: skip


def _of_config(path: Path, nodes: int) -> Chosen:
    import dataclasses

    from edgeswarm.agent.graph import topology

    section = options.load_config(path).graph
    named = section if section.names or section.kind == "edges" else dataclasses.replace(section, names=_names(nodes))
    made = topology(named)
    assert made is not None  # it has names, so it is not the built-in section
    return Chosen(made, f"{path.name}: {section.kind}{_ring_after_all(section.kind, len(made.names))}")


def _measured(quality: Mapping[tuple[str, str], float], given: dict[str, Any]) -> Chosen:
    from edgeswarm.maths.graphs import from_links

    try:
        pairs = from_links(quality, given["degree"])
    except ValueError as error:
        raise ConfigError(f"the links of the site: {error}") from None
    names = tuple(sorted({name for pair in pairs for name in pair}))
    return Chosen(_rule(kind="edges", names=names, edges=pairs, **given), "best measured links", quality)


def _rule(**given: Any) -> Topology:
    from edgeswarm.maths.graphs import Topology

    try:
        return Topology(**given)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None


def _built(topology: Topology) -> Graph:
    try:
        return topology.graph(topology.names[0], ())
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None


def _visited(config_file: Path | None, site: str | None, broker: str | None, timeout_s: float) -> list[Seen]:
    import asyncio
    import dataclasses

    from edgeswarm.cli.visitor import visit

    config = options.load_config(config_file, {"broker.url": broker, "site": site})
    if not config.broker.url:
        raise click.UsageError("which broker? Give --broker mqtt://host, or --config FILE")
    settings = dataclasses.replace(options.mqtt_settings(config), node="")
    return asyncio.run(visit(settings, config.site, timeout_s, output.say))


def link_quality(seen: list[Seen]) -> dict[tuple[str, str], float]:
    """1 / seconds of age, by (hearer, heard), of every link between nodes that are up.

    Mean age since the last `maths.age.RECENT_UPDATES` updates where FEWEST_UPDATES came, else the present age: what was
    lost, late or never sent makes a link older, so this holds for every method alike, and an outage that is over is
    soon forgotten. A link on which nothing came at all is none.
    """
    up = {node.node for node in seen if node.state == "ready"}
    found: dict[tuple[str, str], float] = {}
    for node in seen:
        for peer, link in node.links.items():
            known = link.get("updates", 0.0) >= FEWEST_UPDATES
            age_s = link.get("age_recent_s" if known else "age_s", math.inf)
            if {node.node, peer} <= up and math.isfinite(age_s) and age_s >= 0:
                found[node.node, peer] = 1.0 / max(age_s, 1e-3)
    return found


# ---- what is said of it ---------------------------------------------------------------------------------------------


def facts_of(graph: Graph) -> dict[str, Any]:
    """Its numbers; None for those that a graph in parts, or a very large directed one, does not have."""
    degrees = graph.degrees()
    parts = int(graph.components().max()) + 1
    diameter, exact = graph.diameter() if parts == 1 else (None, True)
    try:
        spectrum = graph.spectrum if parts == 1 else None
    except ValueError:
        spectrum = None
    return {
        "count": len(graph.names),
        "links": len(graph.pairs) if graph.directed else len(graph.pairs) // 2,
        "directed": graph.directed,
        "weights": graph.weights,
        "degree": {"least": int(degrees.min()), "mean": float(degrees.mean()), "most": int(degrees.max())},
        "parts": parts,
        "diameter": diameter,
        "diameter_exact": exact,
        "second": spectrum and spectrum.second,
        "gap": spectrum and spectrum.gap,
        "smallest": spectrum and spectrum.smallest,
        "rounds_to_mix": spectrum and spectrum.rounds_to_mix,
        "largest_mu": spectrum and spectrum.largest_mu,
        "chosen_mu": spectrum and spectrum.chosen_mu,
        "useful_heads": diameter,
    }


def traffic(graph: Graph, model_file: Path, scheme: str) -> dict[str, Any]:
    """Bytes of a node in a round in which everybody publishes its model once."""
    from edgeswarm.cli.model.board import load
    from edgeswarm.models.limits import Limits
    from edgeswarm.sim.traffic import weights_bytes

    card = load(model_file, Limits()).card
    if not card.size:
        raise ConfigError(f"{model_file}: a pure encoder has no parameters to share")
    sent = weights_bytes(card.size, scheme)
    degrees = graph.degrees()
    return {
        "model": card.name,
        "parameters": card.size,
        "auxiliary_heads": card.heads,
        "scheme": scheme,
        "sent_bytes": sent,
        "received_bytes": {"mean": sent * float(degrees.mean()), "most": sent * int(degrees.max())},
        "broker_bytes": sent * (len(graph.names) + len(graph.pairs)),
    }


def edge_rows(graph: Graph, quality: Mapping[tuple[str, str], float]) -> list[list[Any]]:
    """[a, b], or [a, b, quality] where it is known; a directed link as [hearer, heard]."""
    rows: list[list[Any]] = []
    for i, j in graph.pairs.tolist():
        if graph.directed or i < j:
            a, b = graph.names[i], graph.names[j]
            known = [quality[pair] for pair in ((a, b), (b, a)) if pair in quality]
            rows.append([a, b, float(f"{min(known):.6g}")] if known else [a, b])
    return rows


def _print(title: str, graph: Graph, facts: dict[str, Any]) -> None:
    from edgeswarm.sim.graph_picture import matrix_lines

    degree = facts["degree"]
    counts = f"{readable.counted(facts['count'], 'node')}, {readable.counted(facts['links'], 'link')}"
    click.secho(f"{title}: {counts}", bold=True)
    if facts["count"] == 1:
        click.echo("Nobody to hear: it learns alone. A graph takes two nodes or more.")
        return
    for line in matrix_lines(graph):
        click.echo(line)
    click.echo()
    whole = facts["parts"] == 1
    items = [
        ("degree", (f"{degree['least']} each" if degree["least"] == degree["most"] else
                    f"{degree['least']} to {degree['most']}, {degree['mean']:.3g} on average")
         + (", heard one way" if facts["directed"] else "")),
        ("parts", "one: news of everybody reaches everybody" if whole else
         click.style(f"{facts['parts']} that never hear of one another", fg="red")),
    ]  # fmt: skip
    if whole:
        hops = readable.counted(facts["diameter"], "hop")
        items.append(("diameter", hops if facts["diameter_exact"] else f"at least {hops}"))
    if facts["gap"] is not None:
        items += [
            ("spectral gap", f"{facts['gap']:.3g} ({facts['weights']} weights)"),
            ("rounds to mix",
             f"{readable.number(facts['rounds_to_mix'])}, until models differ by 1 % of what they did"),
            ("smallest eigenvalue", f"{facts['smallest']:.3f}"),
        ]  # fmt: skip
    output.pairs(items)
    click.echo()
    click.secho("what that means", bold=True)
    output.pairs(list(meanings(facts)))
    if facts["traffic"]:
        click.echo()
        _print_traffic(facts["traffic"])


def meanings(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """By method, what the numbers ask for."""
    from edgeswarm.maths.spectra import MOST_MU

    if facts["parts"] > 1:
        return [("every method", "learns in each part alone: add links, or choose another kind, degree or seed")]
    found = []
    if facts["largest_mu"] is not None:
        largest, chosen = facts["largest_mu"], facts["chosen_mu"]
        text = f"mu {chosen:.2f}; stable below {largest:.2f}; leaves {100 * (1 - chosen):.0f} % of the skew's bias"
        if chosen < MOST_MU and facts["weights"] != "lazy":
            text += f"; --weights lazy allows {'more' if facts['directed'] else f'{MOST_MU:.2f}'}"
        found.append(("global_update_tracking", text))
    degree = facts["degree"]
    if facts["weights"] == "uniform" and degree["least"] < degree["most"]:
        found.append(("d_psgd, gatta", "uniform weights here let well-connected nodes count more: take metropolis"))
    elif facts["rounds_to_mix"] is not None:
        first = f"news is everywhere after {readable.counted(facts['diameter'], 'round')}"
        found.append(("d_psgd, gatta", f"{first}, averaged after {readable.number(facts['rounds_to_mix'])}"))
    heads = facts["useful_heads"]
    text = "1 auxiliary head: everybody hears everybody"
    if heads > 1:
        text = f"up to {heads:,} auxiliary heads are of use, one for each hop" + (
            ", the first 3 most" if heads > 3 else ""
        )
    found.append(("multi_headed_distillation", text))
    return found


def _print_traffic(traffic: Mapping[str, Any]) -> None:
    click.secho(f"a round of {traffic['model']} ({traffic['parameters']:,} parameters, {traffic['scheme']})", bold=True)
    received = traffic["received_bytes"]
    output.pairs([
        ("each node sends", readable.size(traffic["sent_bytes"]) + ", once, however many listen"),
        ("each node receives",
         f"{readable.size(received['mean'])} on average, {readable.size(received['most'])} at most"),
        ("the broker moves", readable.size(traffic["broker_bytes"])),
    ])  # fmt: skip


# ---- files ----------------------------------------------------------------------------------------------------------


def _draw(path: Path, chosen: Chosen, graph: Graph, facts: dict[str, Any]) -> None:
    from edgeswarm.sim.graph_picture import save_picture

    if path.suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--picture: {path.name} ends neither in .png nor in .svg")
    degree, parts = facts["degree"], facts["parts"]
    words = [f"degree {degree['mean']:.3g}", f"diameter {facts['diameter']}" if parts == 1 else f"{parts} parts"]
    if facts["gap"] is not None:
        words += [f"spectral gap {facts['gap']:.3g}", f"smallest eigenvalue {facts['smallest']:.3f}",
                  f"mu {facts['chosen_mu']:.2f}"]  # fmt: skip
    if chosen.quality:
        words.append("darker links are better")
    title = f"{chosen.title}: {readable.counted(facts['count'], 'node')}, {readable.counted(facts['links'], 'link')}"
    save_picture(graph, title, ",  ".join(words), path, chosen.topology.kind, chosen.quality)
    output.say(f"picture: {path}")


def _write(path: Path, chosen: Chosen, graph: Graph) -> None:
    import json

    rule = chosen.topology
    listed = path
    if path.suffix.lower() == ".toml":
        section: dict[str, Any] = {"kind": rule.kind, "names": list(rule.names)}
        section |= {"degree": rule.degree} if rule.kind == "regular" else {}
        section |= {"probability": rule.probability} if rule.kind == "erdos-renyi" else {}
        section |= {"seed": rule.seed} if rule.kind in ("regular", "erdos-renyi") else {}
        listed = path.with_suffix(".edges")
        section |= {"file": listed.name} if rule.kind == "edges" else {}
        section["weights"] = rule.weights
        lines = ["[graph]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        output.save(path, lines, "the graph")
        if rule.kind != "edges":
            return
    elif graph.directed:
        raise click.UsageError("--write: lines of two names are links both ways; keep this graph as a .toml")
    output.save(listed, [" ".join(map(str, row)) for row in edge_rows(graph, chosen.quality)], "the graph")
    if listed is path:
        output.say(f'in a config: [graph] kind = "edges", file = "{path.name}"')
