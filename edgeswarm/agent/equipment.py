"""What a node computes with: its model, its encoder, the backend that runs them, and this board's limits.

A node without a model or an encoder needs none of it: nothing is probed, no profile is read, no library is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeswarm.agent.compute import Answering, Sets
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.encoder import Encoder, Preparation
from edgeswarm.agent.graph import topology
from edgeswarm.agent.heat import Heat
from edgeswarm.agent.settings import (
    ComputeConfig,
    Config,
    EncoderConfig,
    GraphConfig,
    ModelConfig,
    PublicConfig,
    StrategyConfig,
)
from edgeswarm.agent.sources.base import Schema
from edgeswarm.backends.base import Request
from edgeswarm.errors import ConfigError, ModelError
from edgeswarm.maths.graphs import Topology
from edgeswarm.models.file import Model
from edgeswarm.models.public import PublicSet
from edgeswarm.strategies.base import equipped, wants_model, wants_neighbours, wants_public

log = logging.getLogger(__name__)

PROBES = "backends.json"
"""File in the state folder in which `backends.probe` keeps what works here."""


@dataclass(frozen=True, eq=False)
class Equipment:
    """heat: None where nothing is trained, or the configuration says so.  batch: rows of a step, 0: the method's own.
    topology: None for everybody with everybody.  public: rows as the source would give them.
    reasons: lines for the log, why it is this profile and this backend."""

    backend: Answering
    model: Model | None = None
    encoder: Encoder | None = None
    heat: Heat | None = None
    batch: int = 0
    topology: Topology | None = None
    public: PublicSet | None = None
    reasons: tuple[str, ...] = ()

    def preparation(self, raw: Schema, strategy: Any) -> Preparation:
        """What happens to the source's rows. Raises ConfigError: they do not fit the encoder or the model."""
        model = self.model.card if self.model is not None and wants_model(strategy) else None
        return Preparation(raw, self.encoder, model)

    def prepared(self, preparation: Preparation) -> Generator[Request, Any, PublicSet | None]:
        """The public set with its rows as the strategy sees own samples; a generator of requests, as a step is.

        Raises ConfigError, one line: its rows do not fit the samples.
        """
        public, raw = self.public, preparation.raw
        if public is None:
            return None
        if public.x.shape[1] != len(raw.features):
            raise ConfigError(
                f"[public] path: its rows have {public.x.shape[1]} numbers, the samples have {len(raw.features)}: "
                "make a public set of samples like these"
            )
        if preparation.trivial:
            return public
        return public.prepared((yield from preparation.rows(public.x)))

    def equipped(self, strategy: Any, schema: int, public: PublicSet | None = None) -> Any:
        """`strategy` as it is to run; schema: the fingerprint.  public: as `prepared` gives it.

        Raises ConfigError: it cannot work with this model, this graph or this public set.
        """
        try:
            return equipped(strategy, schema, self.model, self.batch, self.topology, public)
        except ValueError as error:
            raise ConfigError(f"[strategy] {strategy.name}: {error}") from None

    @property
    def size(self) -> int | None:
        """Numbers of one sample, where a model says how many it must have."""
        first = self.encoder.card if self.encoder else self.model.card if self.model else None
        return first.input.size if first else None

    def source_features(self, learnt: tuple[str, ...]) -> tuple[str, ...]:
        """Names of a sensor's features, when nobody has set them: those learnt with so far, or as many as a model
        takes, so that a stranger's first reading does not decide."""
        return learnt or tuple(f"x{at}" for at in range(self.size or 0))


def _public(public: PublicConfig) -> PublicSet | None:
    from edgeswarm.models.public import read

    return read(Path(public.path)) if public.path else None


@dataclass(frozen=True)
class Files:
    """What the configuration says a node learns with."""

    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    public: PublicConfig = field(default_factory=PublicConfig)


def needed(config: Config) -> Files:
    """What is worth reading: nothing that the method does not want, and the log says so.

    Raises ConfigError: the method wants a model or a public set, and there is none.
    """
    strategy = build_strategy(config.strategy)
    name, model, graph, public = config.strategy.name, config.model, config.graph, config.public
    if model.path and not wants_model(strategy):
        log.warning("[model] path is not used: %s trains no model", name)
        model = ModelConfig()
    if public.path and not wants_public(strategy):
        log.warning("[public] path is not used: %s learns from no public samples", name)
        public = PublicConfig()
    if graph != GraphConfig() and not wants_neighbours(strategy):
        log.warning("[graph] is not used: with %s everybody hears everybody", name)
        graph = GraphConfig()
    if wants_model(strategy) and not model.path:
        raise ConfigError(f"[strategy] name = {name!r} trains a model: set [model] path as well")
    if wants_public(strategy) and not public.path:
        raise ConfigError(f"[strategy] name = {name!r} learns from public samples: set [public] path as well")
    return Files(model, config.encoder, graph, public)


def equip(
    files: Files, compute: ComputeConfig, cache: Path | None, root: Path = Path("/"), node: str = ""
) -> Equipment:
    """Read the files and find a backend; takes seconds where libraries are tried for the first time.

    cache: file in which what works is kept.  root: stands for / when the board is looked at.  node: must belong to the
    graph; "" asks for no name.  Raises ConfigError and ModelError, one line: a file that is missing, damaged or too
    large for this board; no such profile or backend; a graph that cannot be.
    """
    model, encoder = files.model, files.encoder
    near = topology(files.graph, node)
    public = _public(files.public)
    if not model.path and not encoder.path:
        return Equipment(Sets(), topology=near, public=public)
    from edgeswarm.agent.board import board
    from edgeswarm.agent.profile import budget, choose
    from edgeswarm.backends.choose import choose as choose_backend
    from edgeswarm.models.file import read
    from edgeswarm.models.limits import Limits

    try:
        profile, why = choose(compute.profile, root)
    except ConfigError as error:
        raise ConfigError(f"[compute] profile: {error}") from None
    allowed = budget(profile, board(root))
    limits = Limits(file_bytes=allowed.max_model_bytes, parameters=allowed.max_params)
    found = [read(Path(path), limits) if path else None for path in (model.path, encoder.path)]
    backend, reasons = choose_backend(
        profile.runtime.backends,
        compute.backend,
        threads=compute.threads or allowed.threads,
        arena=profile.runtime.memory_arena,
        cache=cache,
    )
    for file in found:
        if file is not None:
            backend.load(file)
    return Equipment(
        backend,
        found[0],
        Encoder(found[1].card, encoder.normalise) if found[1] is not None else None,
        Heat.of(profile, root) if compute.pause_when_hot and model.path else None,
        compute.batch or allowed.batch,
        near,
        public,
        (f"firmware profile {profile.id}: {why}", *reasons),
    )


# ---- what a checkpoint says of it -----------------------------------------------------------------------------------


def described(raw: Schema, equipment: Equipment, files: Files, strategy: StrategyConfig, node: str) -> dict[str, Any]:
    """What whoever reads the saved state later needs: the source's own features, the method's knobs, the files used,
    and this node's name and graph, which say whose models it answers with."""
    source = {"task": raw.task, "features": list(raw.features), "encoder": raw.encoder, "form": raw.form}
    kept: dict[str, Any] = {"source": source, "knobs": dict(strategy.knobs), "node": node}
    if equipment.topology is not None:
        kept["graph"] = asdict(equipment.topology)
    if equipment.model is not None:
        kept["model"] = {"path": files.model.path, "hash": equipment.model.card.hash}
    if equipment.encoder is not None:
        kept["encoder"] = {
            "path": files.encoder.path,
            "hash": equipment.encoder.card.hash,
            "normalise": equipment.encoder.normalise,
        }
    if equipment.public is not None:
        kept["public"] = {"path": files.public.path, "hash": equipment.public.hash}
    return kept


def as_described(saved: Mapping[str, Any], compute: ComputeConfig, cache: Path | None) -> Equipment:
    """The equipment that a saved state was learnt with.

    Raises ConfigError and ModelError: a file is gone, or is another one now; TypeError and ValueError: no such graph.
    """
    model, encoder, public = (saved.get(name, {}) for name in ("model", "encoder", "public"))
    files = Files(
        ModelConfig(str(model.get("path", ""))),
        EncoderConfig(str(encoder.get("path", "")), bool(encoder.get("normalise", True))),
        public=PublicConfig(str(public.get("path", ""))),
    )
    made = equip(files, compute, cache)
    used = (
        (model, made.model and made.model.card.hash),
        (encoder, made.encoder and made.encoder.card.hash),
        (public, made.public and made.public.hash),
    )
    for kept, found in used:
        if found is not None and found != kept.get("hash"):
            raise ModelError(f"{kept['path']}: not the file that was learnt with; put that one back")
    graph = saved.get("graph")
    if graph is None:
        return made
    edges = tuple((str(a), str(b)) for a, b in graph["edges"])
    return replace(made, topology=Topology(**{**graph, "names": tuple(graph["names"]), "edges": edges}))
