"""The runs behind global_update_tracking.py: methods and conditions, and one of them played."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from image_sets import images, normalised, scaled
from rounds import Rounds, run

from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import SNAPSHOT, Weights
from edgeswarm.models.file import Model
from edgeswarm.sim.splits import dirichlet
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import Action, Received
from edgeswarm.strategies.global_update_tracking_paper import GlobalUpdateTrackingPaper
from edgeswarm.strategies.sharing_state import State
from edgeswarm.transport.weather import Weather

PAPER, OURS, UNCHECKED = "global_update_tracking_paper", "global_update_tracking", "differences, unchecked"


class Unchecked(GlobalUpdateTrackingPaper):
    """As published: whoever hears a difference adds it to what he has, whether or not he has heard all before it."""

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        message = event.message
        if isinstance(message, Weights) and message.base != SNAPSHOT:
            known = state.copies.get(f"{event.sender}/{message.part}")
            if known is not None:
                event = replace(event, message=replace(message, base=known.version))
        return super()._heard(state, event)


METHODS: dict[str, type[Any]] = {**STRATEGIES, UNCHECKED: Unchecked}


@dataclass(frozen=True)
class Tier:
    """A data set, its model and how long it is trained."""

    data: str = "mnist"
    model: str = "lenet5"
    nodes: int = 16
    rows: int = 1000
    rounds: int = 310
    test_rows: int = 10_000
    normalised: bool = False

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data}, {self.nodes} agents, {self.rows} rows each, {self.rounds} rounds"


DEFAULT = Tier()
QUICK = Tier(model="mlp", nodes=8, rows=200, rounds=60, test_rows=1000)
FULL = Tier("cifar10_jpeg", "resnet8", 16, 3000, 940, normalised=True)


@dataclass(frozen=True)
class Arm:
    """One method under one condition. loss: of messages.  asleep: share of agents at any time.  normalised: whether
    it learns from images with mean 0 and spread 1, not from numbers between 0 and 1."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    loss: float = 0.0
    asleep: float = 0.0
    normalised: bool = False


LOST = (0.1, 0.3)
ASLEEP = 1 / 3
SPELL_ROUNDS = 3.0
LOSSY = {"mu": 0.8}
NESTEROV = {"form": "nesterov"}
CHEAP = {"mu": 0.9, "scheme": "entropy", "snapshot_every": 0}
CALM = {"rate": 0.03}
NORMALISED = "normalised images: "
MAIN = {
    "D-PSGD": Arm("d_psgd"),
    "GUT 0.9": Arm(PAPER, {"mu": 0.9}),
    "QG-DSGDm 0.9, as run by the authors": Arm("qg_dsgdm", {"form": "undamped"}),
    "QG-DSGDm-N 0.9, as published": Arm("qg_dsgdm", NESTEROV),
    "QG-GUTm 0.9, 0.03": Arm(PAPER, {"beta": 0.9, "mu": 0.03}),
    "QG-GUTm 0.9, 0.06": Arm(PAPER, {"beta": 0.9, "mu": 0.06}),
    "product GUT 0.9": Arm(OURS, {"mu": 0.9}),
    "product GUT 0.9, entropy": Arm(OURS, CHEAP),
}
"""On both kinds of images."""
ARMS = {
    **MAIN,
    **{f"{NORMALISED}{name}": replace(arm, normalised=True) for name, arm in MAIN.items()},
    **{
        f"{NORMALISED}{name}, rate 0.03": replace(MAIN[name], normalised=True, settings={**MAIN[name].settings, **CALM})
        for name in ("QG-DSGDm 0.9, as run by the authors", "QG-GUTm 0.9, 0.03", "QG-GUTm 0.9, 0.06")
    },
    "gradient tracking": Arm("gradient_tracking"),
    "product GUT 0.9, int8, 2 steps": Arm(OURS, {"mu": 0.9, "scheme": "int8", "snapshot_every": 0, "steps": 2}),
    **{f"D-PSGD, {loss:.0%} lost": Arm("d_psgd", {}, loss) for loss in LOST},
    "GUT 0.9, 10% lost": Arm(PAPER, {"mu": 0.9}, 0.1),
    "GUT 0.9, differences, 10% lost": Arm(UNCHECKED, {"mu": 0.9, "snapshot_every": 0}, 0.1),
    "GUT 0.5, own model for what is lost, 10% lost": Arm(PAPER, {"mu": 0.5, "forget_s": 1.5}, 0.1),
    **{f"product GUT 0.8, {loss:.0%} lost": Arm(OURS, LOSSY, loss) for loss in LOST},
    **{f"product GUT 0.8, entropy, {loss:.0%} lost": Arm(OURS, {**CHEAP, **LOSSY}, loss) for loss in LOST},
    "D-PSGD that asks, 30% lost": Arm("d_psgd", {"ask": True}, 0.3),
    "product GUT 0.8 that does not ask, 30% lost": Arm(OURS, {**LOSSY, "ask": False}, 0.3),
    "D-PSGD, a third asleep": Arm("d_psgd", {}, 0.0, ASLEEP),
    "product GUT 0.8, a third asleep": Arm(OURS, LOSSY, 0.0, ASLEEP),
    "QG-DSGDm-N 0.9, entropy": Arm("qg_dsgdm", {**NESTEROV, "scheme": "entropy", "snapshot_every": 0}),
    "QG-DSGDm-N 0.9, 30% lost": Arm("qg_dsgdm", NESTEROV, 0.3),
    "QG-DSGDm-N 0.9, a third asleep": Arm("qg_dsgdm", NESTEROV, 0.0, ASLEEP),
}
QUICK_ARMS = ("D-PSGD", "GUT 0.9", "product GUT 0.9", "product GUT 0.9, entropy", "gradient tracking")
ALPHAS = (0.1, 0.01)


@cache
def model(tier: Tier) -> Model:
    """The tier's model, built once per process."""
    from edgeswarm.export.build import build

    shape = (3, 32, 32) if tier.data.startswith("cifar") else (1, 28, 28)
    return build(tier.model, 10, shape=shape)


def sleepers(asleep: float, seed: int) -> Callable[[Rounds, int], None]:
    """Puts agents to sleep so that a share `asleep` sleeps at any time, each time for SPELL_ROUNDS on average."""
    rng = np.random.default_rng((seed, 3))
    begin = asleep / (1 - asleep) / SPELL_ROUNDS

    def before(swarm: Rounds, number: int) -> None:
        for name, node in swarm.world.nodes.items():
            if node.status == "running" and rng.random() < begin:
                swarm.world.sleep(name, float(rng.geometric(1 / SPELL_ROUNDS)) * swarm.period_s)

    return before


def play(tier: Tier, folder: Path, name: str, alpha: float, seed: int) -> dict[str, float]:
    """One run: mean and worst accuracy of the agents in per cent, consensus distance, bytes sent, seconds it took."""
    began = time.monotonic()
    arm = ARMS[name]
    x, y, x_test, y_test = images(tier.data, folder)
    chosen = np.random.default_rng(seed).permutation(len(x))[: tier.nodes * tier.rows]
    parts = dirichlet(y[chosen], tier.nodes, alpha, seed)
    rows = partial(normalised, name=tier.data) if arm.normalised or tier.normalised else scaled
    data = [(rows(x[chosen[part]]), y[chosen[part]]) for part in parts]
    steps = int(arm.settings.get("steps", 1))
    rounds = round(tier.rounds / steps / (1 - arm.asleep))
    drops = tuple(round(share * rounds * steps) for share in (0.5, 0.75))
    common = {"optimiser": "sgd", "rate": 0.1, "clip": 0.0, "schedule": "step", "milestones": drops}
    strategy = METHODS[arm.method](**{"period_s": 1.0, "steps": 1, "batch": 32, **common, **arm.settings})
    found = run(
        strategy,
        data,
        (rows(x_test[: tier.test_rows]), y_test[: tier.test_rows]),
        model(tier),
        Topology("ring", weights="uniform"),
        rounds=rounds,
        seed=seed,
        weather=Weather(loss=arm.loss),
        before=sleepers(arm.asleep, seed) if arm.asleep else None,
    )
    return {
        "mean": 100 * float(found.accuracy.mean()),
        "worst": 100 * float(found.accuracy.min()),
        "consensus": found.consensus,
        "bytes": float(found.bytes_sent),
        "bytes_per_round": found.bytes_sent / rounds,
        "seconds": time.monotonic() - began,
    }
