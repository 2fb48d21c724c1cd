"""What learns here: the board's profile and memory, who does the arithmetic, and whether the model files fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeswarm.agent.board import board as facts_of
from edgeswarm.agent.profile import budget, choose, model_limits
from edgeswarm.agent.profile_tables import Profile
from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config
    from edgeswarm.backends.probe import Probe

_MEGA = 1_000_000
_PROTOTYPES_ONLY = 3


def chosen(config: Config | None, root: Path = Path("/")) -> tuple[Profile, str]:
    """The profile the agent would use, and why. Raises ConfigError: the configuration names one that is no good."""
    return choose(config.compute.profile if config is not None else "auto", root)


def profile(config: Config | None, root: Path = Path("/")) -> Finding:
    """Which firmware profile holds here and why."""
    from edgeswarm.errors import ConfigError

    try:
        found, reason = chosen(config, root)
    except ConfigError as error:
        return Finding("profile", FAIL, str(error), "correct [compute] profile, or set it to auto")
    facts = {"id": found.id, "tier": found.tier, "hash": found.hash, "verified": found.verified, "reason": reason}
    text = f"{found.id}: {reason}"
    if found.tier == _PROTOTYPES_ONLY:
        return Finding("profile", WARN, f"{text}; prototypes only, such boards are too slow for models", "", facts)
    return Finding("profile", OK, text, "", facts)


def memory_budget(config: Config | None, root: Path = Path("/")) -> Finding:
    """How much memory the agent may take here, and whether anything would stop it there."""
    found, _ = chosen(config, root)
    board = facts_of(root)
    allowed = budget(found, board)
    if allowed.memory_bytes is None:
        return Finding("memory-budget", SKIP, "the kernel does not say how much memory there is")
    text = f"{allowed.memory_bytes // _MEGA:,} MB for the agent ({allowed.memory_reason})"
    facts = {"bytes": allowed.memory_bytes, "reason": allowed.memory_reason, "enforced": allowed.enforced}
    if allowed.enforced is False:
        return Finding("memory-budget", OK, f"{text}; a service that takes more is not stopped", "", facts)
    return Finding("memory-budget", OK, text, "", facts)


def backend(config: Config | None, root: Path = Path("/")) -> Finding:
    """Which backend does the arithmetic, why, and what to install where a better one is missing."""
    from edgeswarm.backends.probe import probe

    found, _ = chosen(config, root)
    wanted = config.compute.backend if config is not None else "auto"
    names = found.runtime.backends if wanted in ("", "auto") else (wanted,)
    looked: list[Probe] = []
    for name in names:
        looked.append(probe(name))  # in a process of its own: a bad wheel would end this one
        if looked[-1].works:
            break
    return judged(looked, found, wanted, config is not None and bool(config.model.path or config.encoder.path))


def judged(looked: list[Probe], found: Profile, wanted: str, needed: bool) -> Finding:
    """The finding for what was looked at, the last of which is used if it works.

    wanted: "auto", or the only backend that will do.  needed: the configuration has a model or an encoder.
    """
    used, passed = looked[-1], looked[:-1]
    facts = {
        "profile": found.id,
        "wanted": wanted,
        "used": used.name if used.works else None,
        "looked_at": [{"name": each.name, "works": each.works, "detail": each.detail} for each in looked],
    }
    if not used.works:
        todo = f"{used.advice}; or set [compute] backend to auto"
        return Finding("backend", FAIL, f"{used.name} does not work: {used.detail}", todo, facts)
    text = f"{used.name} ({used.version}, {used.detail})"
    if wanted not in ("", "auto"):
        return Finding("backend", OK, f"{text}, set in the configuration", "", facts)
    if passed:
        text += "; preferred here, but not usable: " + "; ".join(f"{each.name} ({each.detail})" for each in passed)
    broken = [each for each in passed if each.version]  # installed, and yet it does not work
    if used.name == "reference" and passed:
        better = broken[0] if broken else next((each for each in passed if each.name == "onnx"), passed[0])
        status = WARN if needed or broken else OK
        return Finding("backend", status, text, f"for models: {better.advice}", facts)
    return Finding("backend", OK, text, "", facts)


def model_file(config: Config, which: str, root: Path = Path("/")) -> Finding:
    """Whether the model file of section `which` ("model" or "encoder") can be used on this board."""
    from edgeswarm.backends.operators import OPERATORS
    from edgeswarm.errors import ModelError
    from edgeswarm.models.file import read

    name = f"{which}-file"
    path = getattr(config, which).path
    if not path:
        return Finding(name, SKIP, f"the configuration has no [{which}] path")
    found, _ = chosen(config, root)
    try:
        card = read(Path(path), model_limits(found, facts_of(root)), OPERATORS).card
    except ModelError as error:
        return Finding(name, FAIL, str(error), f"correct [{which}] path, or build the file anew: edgeswarm model build")
    from edgeswarm.cli.model.show import board_cost

    estimate = board_cost(card, found, config.compute.batch or None)
    allowed = budget(found, facts_of(root))
    needs_bytes, step_s = estimate["memory_bytes"], estimate["step_s"] or estimate["inference_s"]
    facts = {
        "name": card.name,
        "hash": card.hash,
        "parameters": card.size,
        "losses": sorted(card.losses),
        "memory_bytes_estimate": needs_bytes,
        "step_s_estimate": step_s,
    }
    shape = " x ".join(map(str, card.input.shape))
    text = f"{path}: {card.name}, {card.size:,} parameters, input {shape}"
    if which == "model" and not card.losses:
        todo = "it can only answer; build one with a loss: edgeswarm model build"
        return Finding(name, FAIL, f"{text}, without any loss to train with", todo, facts)
    smaller = "set a smaller [compute] batch, or take a smaller model"
    if allowed.memory_bytes is not None and needs_bytes > allowed.memory_bytes:
        words = f"about {needs_bytes // _MEGA:,} MB where {allowed.memory_bytes // _MEGA:,} MB are allowed"
        return Finding(name, WARN, f"{text}: {words} ({allowed.memory_reason})", smaller, facts)
    if step_s > allowed.max_step_s:
        words = f"a step takes about {step_s:.0f} s on {found.id}, where at most {allowed.max_step_s:g} s are meant"
        return Finding(name, WARN, f"{text}: {words}", smaller, facts)
    return Finding(name, OK, text, f"`edgeswarm model check {path}` compares its answers with the stored ones", facts)
