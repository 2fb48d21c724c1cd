"""What nodes share beside prototypes: whom this node hears, and the public set that all of them have."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding
from edgeswarm.errors import ConfigError, DataError, ModelError, StateError

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config

FIRST_ROWS = 500
"""Of a file of samples, whose labels are compared with what the method knows."""


def graph(config: Config) -> Finding:
    """Whether the graph can be built, holds together and has this node in it."""
    from edgeswarm.agent.graph import topology

    try:
        near = topology(config.graph, config.node)
    except ConfigError as error:
        return Finding("graph", FAIL, str(error), "correct [graph]; it has to say the same at every node")
    if near is None:
        return Finding("graph", SKIP, "the configuration has no [graph]: everybody hears everybody")
    text = f"{config.graph.kind}, {config.graph.weights} weights"
    if not near.names:
        return Finding("graph", OK, f"{text}, of whoever is present")
    heard = near.graph(config.node, ()).neighbours(config.node)
    few = ", ".join(heard[:5]) + (", ..." if len(heard) > 5 else "")
    facts = {"kind": config.graph.kind, "nodes": len(near.names), "neighbours": list(heard)}
    return Finding("graph", OK, f"{text}, {len(near.names)} nodes; this one hears {len(heard)}: {few}", "", facts)


def public_set(config: Config) -> Finding:
    """Whether the file of public samples is whole."""
    from edgeswarm.models.public import read

    if not config.public.path:
        return Finding("public-set", SKIP, "the configuration has no [public] path")
    try:
        public = read(Path(config.public.path))
    except ModelError as error:
        return Finding("public-set", FAIL, str(error), "correct [public] path, or fetch the file again")
    facts = {"rows": len(public.x), "classes": len(public.classes), "version": public.version, "hash": public.hash}
    text = f"{config.public.path}: {len(public.x):,} samples of {len(public.classes)} classes, version {public.version}"
    return Finding("public-set", OK, f"{text}, {public.hash[:12]}", "the hash is the same at every node", facts)


def method(config: Config) -> Finding:
    """Whether the method can work with its model, its graph and its public set, before the first sample."""
    from edgeswarm.agent.config import build_strategy
    from edgeswarm.agent.graph import topology
    from edgeswarm.models.file import read
    from edgeswarm.models.public import read as read_public
    from edgeswarm.strategies.base import equipped, wants_model, wants_public

    strategy = build_strategy(config.strategy)
    if not (wants_model(strategy) or wants_public(strategy)):
        return Finding("method", SKIP, f"{strategy.name} needs neither model nor public set")
    try:
        model = read(Path(config.model.path)) if wants_model(strategy) else None
        public = read_public(Path(config.public.path)) if wants_public(strategy) else None
        equipped(strategy, 0, model, 0, topology(config.graph, config.node), public)
    except (ConfigError, ModelError):
        return Finding("method", SKIP, "not tried: one of its files is not usable")
    except ValueError as error:
        return Finding("method", FAIL, f"{strategy.name}: {error}", "correct [strategy], or the files it works with")
    return Finding("method", OK, f"{strategy.name} can work with what it is given")


def labels(config: Config) -> list[Finding]:
    """Whether the method knows the labels of this node's samples: the first of a file, and those of the agent's run."""
    from edgeswarm.agent.config import build_strategy
    from edgeswarm.models.file import read
    from edgeswarm.models.public import read as read_public
    from edgeswarm.strategies.base import labels_of, wants_model, wants_public

    strategy = build_strategy(config.strategy)
    if not (wants_model(strategy) or wants_public(strategy)):
        return [Finding("labels", SKIP, f"{strategy.name} learns whatever label comes")]
    try:
        if wants_model(strategy):
            known = tuple(read(Path(config.model.path)).card.labels)
        else:
            known = labels_of(replace(strategy, public=read_public(Path(config.public.path))))
    except ModelError:
        return [Finding("labels", SKIP, "not compared: the model or the public set is not usable")]
    return [*_of_file(config, known), *_of_run(config)]


def _of_file(config: Config, known: tuple[str, ...]) -> list[Finding]:
    """What the first samples of a file are called."""
    from edgeswarm.agent.sources import FileSource, Pace, open_source

    if config.source.kind == "mqtt":
        return []
    try:
        source = open_source(config.source, config.task, seed=config.seed, pace=Pace(0.0), most=1 << 30)
        assert isinstance(source, FileSource)
        found = [row.label for row in islice(source.rows(), FIRST_ROWS) if row is not None and row.label is not None]
    except DataError as error:
        return [Finding("labels", SKIP, f"not compared: {error}")]
    alien = [label for label in found if label not in known]
    facts = {"looked_at": len(found), "unknown": len(alien), "labels": sorted(set(alien))[:20]}
    if not alien:
        return [Finding("labels", OK, f"the method knows those of the first {len(found):,} samples", "", facts)]
    few = ", ".join(map(repr, known[:5])) + (", ..." if len(known) > 5 else "")
    text = f"the method does not know the labels of {len(alien):,} of the first {len(found):,} samples: {alien[0]!r}, "
    text += f"for one; it knows {few}"
    todo = "correct the labels, or give every node a model or public set that has them; until then these are left out"
    return [Finding("labels", FAIL if len(alien) == len(found) else WARN, text, todo, facts)]


def _of_run(config: Config) -> list[Finding]:
    """What the agent's own status says it has left out."""
    from edgeswarm.cli.status import judged, left_out, read_status

    try:
        status = judged(read_status(Path(config.state.folder)), 0.0)
    except StateError:
        return []
    said = left_out(status["notes"], status["unknown_label"])
    return [Finding("left-out", WARN, text, todo) for text, _, todo in (each.partition("; ") for each in said)]


def channels(config: Config) -> tuple[str, ...]:
    """The topics beyond those of prototypes that the configured method reads and writes (`checks.broker.SHARED`)."""
    from edgeswarm.strategies import STRATEGIES
    from edgeswarm.strategies.base import wants_public

    method = STRATEGIES[config.strategy.name]
    models = ("model", "diff") if getattr(method, "PARTS", ()) else ()
    return (*models, "public", "bids") if wants_public(method) else models
