"""What a node computes with: its model, its encoder, the backend that runs them, and this board's limits.

A node without a model or an encoder needs none of it: nothing is probed, no profile is read, no library is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeswarm.agent.compute import Answering, Sets
from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.encoder import Encoder, Preparation
from edgeswarm.agent.heat import Heat
from edgeswarm.agent.settings import ComputeConfig, EncoderConfig, ModelConfig, StrategyConfig
from edgeswarm.agent.sources.base import Schema
from edgeswarm.errors import ConfigError, ModelError
from edgeswarm.models.file import Model
from edgeswarm.strategies.base import equipped, wants_model

log = logging.getLogger(__name__)

PROBES = "backends.json"
"""File in the state folder in which `backends.probe` keeps what works here."""


@dataclass(frozen=True, eq=False)
class Equipment:
    """heat: None where nothing is trained, or the configuration says so.  batch: rows of a step, 0: the method's own.
    reasons: lines for the log, why it is this profile and this backend."""

    backend: Answering
    model: Model | None = None
    encoder: Encoder | None = None
    heat: Heat | None = None
    batch: int = 0
    reasons: tuple[str, ...] = ()

    def preparation(self, raw: Schema, strategy: Any) -> Preparation:
        """What happens to the source's rows. Raises ConfigError: they do not fit the encoder or the model."""
        model = self.model.card if self.model is not None and wants_model(strategy) else None
        return Preparation(raw, self.encoder, model)

    def equipped(self, strategy: Any, schema: int) -> Any:
        """`strategy` as it is to run; schema: the fingerprint. Raises ConfigError: it cannot train this model."""
        try:
            return equipped(strategy, schema, self.model, self.batch)
        except ValueError as error:
            raise ConfigError(f"[model] path: {error}") from None

    @property
    def size(self) -> int | None:
        """Numbers of one sample, where a model says how many it must have."""
        first = self.encoder.card if self.encoder else self.model.card if self.model else None
        return first.input.size if first else None

    def source_features(self, learnt: tuple[str, ...]) -> tuple[str, ...]:
        """Names of a sensor's features, when nobody has set them: those learnt with so far, or as many as a model
        takes, so that a stranger's first reading does not decide."""
        return learnt or tuple(f"x{at}" for at in range(self.size or 0))


def needed(model: ModelConfig, strategy: StrategyConfig) -> ModelConfig:
    """The model that is worth reading: none where nobody trains it, and the log says so.

    Raises ConfigError: the method trains a model, and there is none.
    """
    trains = wants_model(build_strategy(strategy))
    if model.path and not trains:
        log.warning("[model] path is not used: %s trains no model", strategy.name)
        return ModelConfig()
    if trains and not model.path:
        raise ConfigError(f"[strategy] name = {strategy.name!r} trains a model: set [model] path as well")
    return model


def equip(
    model: ModelConfig, encoder: EncoderConfig, compute: ComputeConfig, cache: Path | None, root: Path = Path("/")
) -> Equipment:
    """Read the files and find a backend; takes seconds where libraries are tried for the first time.

    cache: file in which what works is kept.  root: stands for / when the board is looked at.  Raises ConfigError and
    ModelError, one line: a file that is missing, damaged or too large for this board; no such profile or backend.
    """
    if not model.path and not encoder.path:
        return Equipment(Sets())
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
    files = [read(Path(path), limits) if path else None for path in (model.path, encoder.path)]
    backend, reasons = choose_backend(
        profile.runtime.backends,
        compute.backend,
        threads=compute.threads or allowed.threads,
        arena=profile.runtime.memory_arena,
        cache=cache,
    )
    for file in files:
        if file is not None:
            backend.load(file)
    return Equipment(
        backend,
        files[0],
        Encoder(files[1].card, encoder.normalise) if files[1] is not None else None,
        Heat.of(profile, root) if compute.pause_when_hot and model.path else None,
        compute.batch or allowed.batch,
        (f"firmware profile {profile.id}: {why}", *reasons),
    )


# ---- what a checkpoint says of it -----------------------------------------------------------------------------------


def described(raw: Schema, equipment: Equipment, model: ModelConfig, encoder: EncoderConfig) -> dict[str, Any]:
    """What whoever reads the saved state later needs: the source's own features, and which files were used."""
    source = {"task": raw.task, "features": list(raw.features), "encoder": raw.encoder, "form": raw.form}
    kept: dict[str, Any] = {"source": source}
    if equipment.model is not None:
        kept["model"] = {"path": model.path, "hash": equipment.model.card.hash}
    if equipment.encoder is not None:
        kept["encoder"] = {
            "path": encoder.path,
            "hash": equipment.encoder.card.hash,
            "normalise": equipment.encoder.normalise,
        }
    return kept


def as_described(saved: Mapping[str, Any], compute: ComputeConfig, cache: Path | None) -> Equipment:
    """The equipment that a saved state was learnt with. Raises ConfigError and ModelError: a file is gone, or is
    another one now."""
    model, encoder = saved.get("model", {}), saved.get("encoder", {})
    made = equip(
        ModelConfig(str(model.get("path", ""))),
        EncoderConfig(str(encoder.get("path", "")), bool(encoder.get("normalise", True))),
        compute,
        cache,
    )
    for kept, used in ((model, made.model), (encoder, made.encoder)):
        if used is not None and used.card.hash != kept.get("hash"):
            raise ModelError(f"{kept['path']}: not the model that was learnt with; put that one back")
    return made
