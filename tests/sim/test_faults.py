"""Swarms of every method under seeded faults: their invariants hold in all of them, and a seed replays exactly.

200 simulations run by default; `EDGESWARM_FAULT_SEEDS=0-1999` runs 2,000 (`scripts/nightly/faults`), and a seed, as in
`EDGESWARM_FAULT_SEEDS=1234`, that one alone. The seed decides everything: method, settings, weather, faults, samples.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import LocalEpoch
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.graphs import Topology
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.sim import faults
from edgeswarm.sim.world import Node, Stream, World
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import Received, equipped
from edgeswarm.strategies.checks import packed, unpacked
from edgeswarm.transport.weather import CALM
from tests.strategies.test_checks import SETTINGS

NAMES = tuple(f"n{i}" for i in range(5))
LENGTH_S = 36.0
SAMPLES = 48
D = 3
BLOCK = 20
"""Seeds in one test."""

MODEL = perceptron(("no", "yes"), np.full(D, 1.5), np.full(D, 1.8), 4, heads=2)
PUBLIC = PublicSet(np.random.default_rng(5).normal(1.5, 2.0, (48, D)).astype(np.float32), ("no", "yes"))
METHODS = sorted(STRATEGIES)
PLAIN = ("global_update_tracking", "global_update_tracking_paper", "gradient_tracking", "qg_dsgdm")
"""Methods whose steps have no momentum, or none yet: a quasi-global one grows over some dozens of rounds."""
UNSEEN = (
    "d_psgd", "global_update_tracking", "global_update_tracking_paper", "gossip_learning", "gradient_tracking",
    "prototype_distillation", "prototype_gossip", "prototype_gossip_paper", "qg_dsgdm",
)  # fmt: skip
"""Methods that soon bring nodes what others alone have seen: with them n0 never sees a "yes", n1 never a "no"."""
BODIES_APART = {"body_average": 0.23, "gatta": 0.15}
"""Methods that average the body alone."""
AVERAGING = (
    "body_average", "d_psgd", "gatta", "global_update_tracking", "global_update_tracking_paper", "gradient_tracking",
    "qg_dsgdm",
)  # fmt: skip
TAUGHT = ("fedmd", "multi_headed_distillation")
TOPOLOGIES = (None, Topology("ring", NAMES), Topology("full"))


def wanted() -> list[int]:
    first, _, last = os.environ.get("EDGESWARM_FAULT_SEEDS", "0-199").partition("-")
    return list(range(int(first), int(last or first) + 1))


def blocks() -> list[Any]:
    seeds = wanted()
    found = [seeds[start : start + BLOCK] for start in range(0, len(seeds), BLOCK)]
    return [pytest.param(block, id=f"{block[0]}-{block[-1]}") for block in found]


def method(seed: int) -> tuple[str, Any]:
    """Name and strategy of a seed; each method comes with all its settings in turn."""
    name = METHODS[seed % len(METHODS)]
    turn = seed // len(METHODS)
    settings = SETTINGS[name][turn % len(SETTINGS[name])]
    topology = TOPOLOGIES[turn % len(TOPOLOGIES)]
    if hasattr(STRATEGIES[name], "rate"):
        momentum = settings.get("optimiser") != "sgd" and name not in PLAIN
        settings = {**settings, "rate": 0.05 if momentum else 0.2}  # to have learnt it in half of twelve rounds
    return name, equipped(STRATEGIES[name](**settings), 7, MODEL, topology=topology, public=PUBLIC)


def streams(seed: int) -> dict[str, Stream]:
    found = {}
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng((seed, number))
        y = rng.integers(0, 2, SAMPLES)
        if number < 2 and METHODS[seed % len(METHODS)] in UNSEEN:
            y[:] = number
        x = (rng.normal(size=(SAMPLES, D)) + 3.0 * y[:, None]).astype(np.float32)
        found[name] = Stream(x, [("no", "yes")[i] for i in y], LENGTH_S * (np.arange(SAMPLES) + 0.5) / SAMPLES)
    return found


def world(seed: int, **more: Any) -> World:
    backend = ReferenceBackend()
    backend.load(MODEL)
    weather = faults.weather(seed)
    slow = 0.3 if seed % 3 == 0 else 0.0
    return World(
        method(seed)[1], streams(seed), seed, weather, backend, 400 if seed % 5 == 0 else 120_000,
        duration_s=(lambda node, request: slow * int(node[1:]) if isinstance(request, LocalEpoch) else 0.0),
        checkpoint_s=6.0, **more
    )  # fmt: skip


def simulated(seed: int) -> World:
    """A run from its seed to its end. Raises `faults.Broken`, or whatever a step raised."""
    invariants = faults.Invariants(least_accuracy=0.7)
    made = world(seed, watch=invariants.look)
    faults.plan(made, faults.schedule(NAMES, seed, LENGTH_S))
    for number in range(1, 13):
        made.run(LENGTH_S * number / 12)
        invariants.published(made)
    invariants.end(made)
    shared(METHODS[seed % len(METHODS)], made)
    return made


def shared(name: str, made: World) -> None:
    """What a method brings from node to node is there. Raises `faults.Broken`."""
    if name in (*UNSEEN, *BODIES_APART) and name != "gossip_learning":  # there, nobody may have drawn a node
        faults.all_hear(made)
    if name in UNSEEN:
        y = np.arange(60) % 2
        x = np.random.default_rng(99).normal(size=(60, D)) + 3.0 * y[:, None]
        repaired = name != "prototype_gossip_paper"  # nobody asks there for what was lost
        y_names = [("no", "yes")[i] for i in y]
        faults.know_what_others_saw(made, NAMES[:2], x.astype(np.float32), y_names, but=0 if repaired else 1)
    elif name in BODIES_APART:
        faults.close_together(made, MODEL.initial[: MODEL.card.body_size], BODIES_APART[name])
    elif name in TAUGHT:
        faults.all_are_taught(made)
    else:
        assert name == "isolated"
        faults.none_listens(made)


def tried(seed: int) -> tuple[str, bool]:
    """What went wrong, with the command that does it again, "" for nothing; and whether nodes only know too little."""
    try:
        simulated(seed)
    except Exception as error:
        again = f"EDGESWARM_FAULT_SEEDS={seed} python -m pytest -n 0 tests/sim/test_faults.py"
        text = f"seed {seed}, {method(seed)[0]}: {type(error).__name__}: {error}\n    {again}"
        return text, isinstance(error, faults.Unlearnt)
    return "", False


@pytest.mark.parametrize("seeds", blocks())
def test_whatever_happens_the_invariants_hold(seeds: list[int]) -> None:
    """None is broken; and of a whole block, nodes know too little in the end of one run in ten at most."""
    found = [tried(seed) for seed in seeds]
    broken = [text for text, unlearnt in found if text and not unlearnt]
    unlearnt = [text for text, unlearnt in found if unlearnt]
    assert not broken, "\n" + "\n".join(broken)
    assert len(unlearnt) <= len(seeds) // 10, "\n" + "\n".join(unlearnt)


def everything(made: World) -> bytes:
    """All that is left of a run."""
    return packed(made.dump())


@pytest.mark.parametrize("seed", range(len(METHODS)), ids=METHODS)
def test_a_seed_replays_exactly(seed: int) -> None:
    assert everything(simulated(seed)) == everything(simulated(seed))


def test_another_seed_is_another_storm() -> None:
    assert faults.schedule(NAMES, 1, LENGTH_S) == faults.schedule(NAMES, 1, LENGTH_S)
    assert faults.schedule(NAMES, 1, LENGTH_S) != faults.schedule(NAMES, 2, LENGTH_S)
    kinds = {fault.what for seed in range(50) for fault in faults.schedule(NAMES, seed, LENGTH_S)}
    assert kinds == {
        "crash", "revive", "leave", "cut", "heal", "sleep", "partition", "join_sides", "restart_broker", "jump",
        "speed", "become",
    }  # fmt: skip
    assert all(
        fault.at_s <= faults.STORM * LENGTH_S for seed in range(50) for fault in faults.schedule(NAMES, seed, LENGTH_S)
    )


@pytest.mark.parametrize("seed", range(0, 3 * len(METHODS), 3))
def test_a_storm_goes_on_from_a_file_as_if_it_had_never_stopped(seed: int) -> None:
    straight = simulated(seed)
    first = world(seed)
    faults.plan(first, faults.schedule(NAMES, seed, LENGTH_S))
    first.run(0.4 * LENGTH_S)
    second = world(seed, dumped=unpacked(packed(first.dump())))
    for number in range(5, 13):  # as `simulated` does: the last instant of a run is settled when the next begins
        second.run(LENGTH_S * number / 12)
    assert everything(second) == everything(straight)


# ---- the invariants see what they are there to see -------------------------------------------------------------------


def spoilt(spoil: Any, method: str = "d_psgd") -> str:
    """What the invariants say of a run in which `spoil(node)` is called after each step."""
    seed = METHODS.index(method)
    invariants = faults.Invariants()

    def watch(node: Node) -> None:
        spoil(node)
        invariants.look(node)

    made = world(seed, watch=watch)
    made.hub.weather = CALM
    with pytest.raises(faults.Broken) as caught:
        made.run(LENGTH_S)
        invariants.end(made)
    return str(caught.value)


def test_what_is_not_finite_is_seen() -> None:
    def spoil(node: Node) -> None:
        if node.agent.state.rounds == 3:
            object.__setattr__(node.agent.state, "params", node.agent.state.params * np.float32(np.nan))

    assert "params is not finite" in spoilt(spoil)


def test_a_copy_that_goes_back_is_seen() -> None:
    kept: dict[str, Any] = {}

    def spoil(node: Node) -> None:
        for name, copy in node.agent.state.copies.items():
            old = kept.setdefault(f"{node.name} {name}", copy)
            if copy.version >= old.version + 4:
                node.agent.state.copies[name] = old

    assert "copy n" in spoilt(spoil) and "went from" in spoilt(spoil)


def test_a_count_that_falls_is_seen() -> None:
    def spoil(node: Node) -> None:
        if node.agent.state.rounds == 4:
            object.__setattr__(node.agent.state, "rounds", 2)

    assert "rounds went from 3 to 2" in spoilt(spoil)


def test_a_node_that_stays_down_or_learns_nothing_is_seen() -> None:
    def down(node: Node) -> None:
        if node.name == "n1" and node.agent.state.rounds == 5:
            node.transport.link_down("for good")

    assert "knows all of n1 at 1, 5, not 1, 12" in spoilt(down)
    assert "0 of 0 right in the end" in spoilt(lambda node: node.tested.clear())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "isolated"])
def test_nodes_that_take_in_nothing_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = STRATEGIES[name]
    step = cls.step

    def deaf(self: Any, state: Any, event: Any) -> Any:
        if isinstance(event, Received):
            return state, []
        return (yield from step(self, state, event))

    monkeypatch.setattr(cls, "step", deaf)
    with pytest.raises(faults.Broken, match=r"has heard nobody|which others saw|has no teacher"):
        simulated(METHODS.index(name))


@pytest.mark.parametrize("name", AVERAGING)
def test_models_that_are_heard_and_not_used_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STRATEGIES[name], "heard", lambda self, state, part, at: {})
    with pytest.raises(faults.Broken, match=r"mixed in nobody in its last round"):
        simulated(METHODS.index(name))
