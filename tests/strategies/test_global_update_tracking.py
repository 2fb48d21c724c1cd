"""Global update tracking and its controls, in swarms of the product: lock-step, lossy, asleep, out of step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.graphs import Topology
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import Started, Woke, equipped, finish
from edgeswarm.strategies.global_update_tracking import GlobalUpdateTracking
from edgeswarm.transport.weather import CALM, Weather
from tests.tiny_model import tiny

N = 8
NAMES = tuple(f"n{i}" for i in range(N))
MODEL = tiny((3,), ("no", "yes"))
BACKEND = ReferenceBackend()
BACKEND.load(MODEL)
RING = Topology("ring", NAMES, weights="uniform")
OURS, PAPER = "global_update_tracking", "global_update_tracking_paper"
LIMIT = 1 << 28


class Swarm:
    """A ring whose even nodes know "no" alone and the odd ones "yes". phases: when each is switched on."""

    def __init__(
        self, method: str, weather: Weather = CALM, phases: Any = None, graph: Topology = RING, **knobs: Any
    ) -> None:
        rng = np.random.default_rng(0)
        settings = {"period_s": 1.0, "steps": 1, "batch": 16, "rate": 0.1, "optimiser": "sgd", "clip": 0.0, **knobs}
        strategy = equipped(STRATEGIES[method](**settings), 7, MODEL, topology=graph)
        streams = {}
        for i, (name, phase) in enumerate(zip(NAMES, np.zeros(N) if phases is None else phases, strict=True)):
            x = (rng.normal(size=(40, 3)) + i % 2).astype(np.float32)
            streams[name] = Stream(x, [("no", "yes")[i % 2]] * 40, np.full(40, phase), float(phase))
        self.world = World(strategy, streams, 1, weather, BACKEND, LIMIT)
        self.world.run(0.999)
        self.greeting = self.counted()

    def after(self, rounds: float) -> np.ndarray:
        """Everybody's vector (n, p)."""
        self.world.run(rounds + 0.999)
        return np.array([self.world.nodes[name].agent.state.params for name in NAMES], np.float64)

    def counted(self) -> int:
        return sum(node.transport.counters["bytes_sent"] for node in self.world.nodes.values())

    def sent(self) -> int:
        """Bytes of all nodes since they introduced themselves."""
        return self.counted() - self.greeting


def way(vectors: np.ndarray) -> float:
    """How far the mean has come."""
    return float(np.linalg.norm(vectors.mean(0) - MODEL.initial))


def apart(vectors: np.ndarray) -> float:
    return float(np.sqrt(((vectors - vectors.mean(0)) ** 2).sum(1).mean()))


@pytest.mark.parametrize("knobs", [{"mu": 0.9}, {"mu": 0.5, "steps": 3}, {"mu": 0.06, "beta": 0.9}])
def test_in_lock_step_it_is_the_published_method(knobs: dict[str, Any]) -> None:
    ours, paper = Swarm(OURS, **knobs), Swarm(PAPER, **knobs)
    assert np.abs(ours.after(40) - paper.after(40)).max() < 2e-5
    assert ours.sent() == paper.sent(), "and costs the same"


def test_it_costs_what_d_psgd_costs_and_agrees_better() -> None:
    ours, control = Swarm(OURS, mu=0.9), Swarm("d_psgd")
    assert apart(ours.after(80)) < 0.6 * apart(control.after(80))
    assert ours.sent() == control.sent()
    tracking = Swarm("gradient_tracking")
    tracking.after(80)
    assert tracking.sent() == pytest.approx(2 * control.sent(), rel=0.01), "track is a longer word than all"


def test_lost_messages_cost_no_speed() -> None:
    calm = way(Swarm(OURS, mu=0.9).after(60))
    lossy = Swarm(OURS, Weather(loss=0.3), mu=0.9).after(60)
    assert way(lossy) == pytest.approx(calm, rel=0.1)
    assert way(Swarm(PAPER, Weather(loss=0.3), mu=0.9).after(60)) < 0.7 * calm, "newest copies do"
    assert apart(lossy) < 0.7 * apart(Swarm("d_psgd", Weather(loss=0.3)).after(60))


def test_nodes_that_wake_at_times_of_their_own() -> None:
    phases = np.random.default_rng(1).uniform(0, 1, N)
    calm, ours = Swarm(OURS, mu=0.9).after(60), Swarm(OURS, phases=phases, mu=0.9).after(61)
    assert way(ours) == pytest.approx(way(calm), rel=0.1) and apart(ours) < 2 * apart(calm)
    with np.errstate(all="ignore"):
        assert way(Swarm(PAPER, phases=phases, mu=0.9).after(30)) > 10 * way(calm), "newest against newest runs away"


def test_sleepers_neither_hold_anybody_back_nor_drive_them_apart() -> None:
    def dozing(method: str, seed: int, **knobs: Any) -> tuple[float, float]:
        """A third asleep at any time: the way gone, and the mean distance over the second half."""
        swarm, rng = Swarm(method, **knobs), np.random.default_rng(seed)
        distances = []
        for number in range(1, 80):
            for name, node in swarm.world.nodes.items():
                if node.status == "running" and rng.random() < 1 / 6:
                    swarm.world.sleep(name, float(rng.geometric(1 / 3)))
            found = swarm.after(number)
            distances.append(apart(found))
        return way(found), float(np.mean(distances[40:]))

    ours = [dozing(OURS, seed, mu=0.8) for seed in range(3)]
    controls = [dozing("d_psgd", seed) for seed in range(3)]
    assert min(gone for gone, _ in ours) > 0.85 * way(Swarm(OURS, mu=0.8).after(80))
    assert sum(distance for _, distance in ours) < sum(distance for _, distance in controls)


@pytest.mark.parametrize("delay_s", [(0.0, 0.3), (0.3, 0.3), (0.0, 1.0)])
def test_messages_that_take_a_while_do_not_brake_it(delay_s: tuple[float, float]) -> None:
    phases = np.random.default_rng(1).uniform(0, 1, N)
    calm, late = Swarm(OURS, mu=0.9).after(60), Swarm(OURS, Weather(delay_s=delay_s), phases, mu=0.9).after(61)
    assert way(late) == pytest.approx(way(calm), rel=0.1) and apart(late) < 2 * apart(calm)


def test_messages_that_take_more_than_a_round_do_not_make_it_diverge() -> None:
    calm, late = Swarm(OURS).after(100), Swarm(OURS, Weather(delay_s=(1.2, 1.2))).after(100)
    assert 0.5 * way(calm) < way(late) < 2 * way(calm) and apart(late) < way(late)


def test_rounds_come_to_fall_together_and_nobody_counts_more_than_the_first() -> None:
    phases = np.random.default_rng(1).uniform(0, 1, N)
    swarm = Swarm(OURS, Weather(delay_s=(0.0, 0.1)), phases)
    swarm.after(40)
    assert {node.agent.state.rounds for node in swarm.world.nodes.values()} <= {40, 41}
    due = [node.agent._alarms["train"] % 1 for node in swarm.world.nodes.values()]
    assert max(due) - min(due) < 0.5 < phases.max() - phases.min()


def test_who_was_away_has_moved_with_its_neighbours() -> None:
    swarm = Swarm(OURS)
    swarm.after(20)
    swarm.world.crash("n3")
    swarm.after(60)
    swarm.world.revive("n3")
    found = swarm.after(63)
    own, others = found[3], found[[2, 4]].mean(0)
    assert np.linalg.norm(own - others) < 0.3 * np.linalg.norm(others - MODEL.initial)
    assert abs(swarm.world.nodes["n3"].agent.state.rounds - 63) <= 1


def test_who_was_rebooted_comes_back_to_its_only_neighbour() -> None:
    """A clock that begins anew: what was timed by the old one would keep it behind for as long as it had been up."""
    pairs = Topology("edges", NAMES, edges=tuple(zip(NAMES[::2], NAMES[1::2], strict=True)), weights="uniform")
    swarm = Swarm(OURS, graph=pairs)
    swarm.after(50)
    agents = [swarm.world.nodes[name].agent for name in ("n2", "n3")]
    before = agents[1].state
    swarm.after(70)
    neighbour, strategy = agents[0].state, agents[1].strategy
    after, _ = finish(strategy.step(before, Started(0.5, 2)), BACKEND.answer)
    copy = replace(after.copies["n2/all"], version=neighbour.rounds, vector=neighbour.arrays["average"])
    woken = replace(after, copies={**after.copies, "n2/all": copy})
    found, _ = finish(strategy.step(woken, Woke(1.5, "train")), BACKEND.answer)
    assert before.rounds == 50 and found.rounds == neighbour.rounds == 70


@pytest.mark.parametrize("kind", ["ring", "directed-ring"])
def test_one_that_claims_to_be_far_ahead_takes_nobody_with_it(kind: str) -> None:
    """Versions have an end on the wire: a node that went on from a claim of the last could say nothing more."""
    swarm = Swarm(OURS, graph=Topology(kind, NAMES, weights="uniform"))
    liar = swarm.world.nodes["n3"].agent
    for number in range(5, 40, 5):
        swarm.after(number)
        liar.state = replace(liar.state, rounds=liar.state.rounds + (10_000 if number < 30 else 1 << 33))
        if "average" in liar.state.arrays:
            told = {f"told/{liar.state.rounds}": liar.state.arrays["average"]}
            liar.state = replace(liar.state, arrays={**liar.state.arrays, **told})
    found = swarm.after(45)
    rounds = [node.agent.state.rounds for name, node in swarm.world.nodes.items() if name != "n3"]
    assert min(rounds) >= 44 and max(rounds) <= 2 * 46 + 32, rounds
    assert np.isfinite(found).all()


def test_what_did_not_come_is_asked_for_and_of_sleepers_nothing_is_asked() -> None:
    calm, lossy, mute = Swarm(OURS), Swarm(OURS, Weather(loss=0.3)), Swarm(OURS, Weather(loss=0.3), ask=False)
    met = {}
    for name, swarm in (("asked", lossy), ("mute", mute)):
        swarm.after(40)
        states = [node.agent.state for node in swarm.world.nodes.values()]
        met[name] = np.mean([value for state in states for key, value in state.numbers.items() if "met/" in key])
    calm.world.sleep("n3", 50.0)
    calm.after(40)
    assert met["asked"] > met["mute"]
    numbers = calm.world.nodes["n2"].agent.state.numbers
    assert numbers["wanted/n3"] <= 2 and "wanted/n1" not in numbers


def test_a_third_lost_and_some_crashed_nodes_keep_it_finite() -> None:
    swarm = Swarm(OURS, Weather(loss=0.3, duplicate=0.2, delay_s=(0.0, 1.5), reorder=True), mu=0.8)
    swarm.after(20)
    swarm.world.crash("n3")
    swarm.after(40)
    swarm.world.revive("n3")
    found = swarm.after(120)
    assert np.isfinite(found).all() and apart(found) < way(found)


@pytest.mark.parametrize("scheme", ["int4", "top"])
def test_the_averaging_rate_is_what_coarse_differences_bear(scheme: str) -> None:
    """At gamma 1 the ring comes apart: four times as far by int4, without end by the largest third."""
    coarse: dict[str, Any] = {"mu": 0.9, "scheme": scheme, "share": 0.3, "snapshot_every": 0}
    whole, bold, own = (Swarm(OURS, **knobs).after(80) for knobs in ({"mu": 0.9}, {**coarse, "gossip": 1.0}, coarse))
    assert way(own) == pytest.approx(way(whole), rel=0.05) and apart(own) < 3 * apart(whole)
    assert apart(bold) > 3 * apart(own)


@pytest.mark.parametrize(("scheme", "further"), [("int8", 2), ("entropy", 5)])  # here all move one way, at a large step
def test_coarse_schemes_change_little(scheme: str, further: float) -> None:
    """Differences, that is: whole vectors as int8 end 24 times as far apart."""
    whole, coarse = Swarm(OURS, mu=0.9), Swarm(OURS, mu=0.9, scheme=scheme)
    one, two = whole.after(80), coarse.after(80)
    assert way(two) == pytest.approx(way(one), rel=0.05) and apart(two) < further * apart(one)
    versions = {name: len(node.agent.state.arrays["said/all"]) for name, node in coarse.world.nodes.items()}
    assert set(versions.values()) == {MODEL.card.size}


def test_mu_follows_from_the_graph() -> None:
    dyck = Topology("dyck", tuple(f"n{i:02d}" for i in range(32)), weights="uniform")
    chosen = {}
    for name, topology, beta in (("ring", RING, 0.0), ("dyck", dyck, 0.0), ("momentum", RING, 0.9)):
        strategy = equipped(GlobalUpdateTracking(beta=beta), 7, MODEL, topology=topology)
        chosen[name] = strategy.strength(strategy.init(topology.names[0], 1))
    assert chosen["ring"] == pytest.approx(0.8)
    assert chosen["dyck"] == pytest.approx(0.45, abs=0.001)
    assert chosen["momentum"] == pytest.approx(0.06)


def test_a_mu_that_would_diverge_is_refused() -> None:
    dyck = Topology("dyck", tuple(f"n{i:02d}" for i in range(32)), weights="uniform")
    with pytest.raises(ValueError, match=r"mu is below 0\.5 on this graph, not 0\.9"):
        equipped(GlobalUpdateTracking(mu=0.9), 7, MODEL, topology=dyck)
    with pytest.raises(ValueError, match="beta \\+ mu is below 1"):
        GlobalUpdateTracking(mu=0.2, beta=0.9)


@pytest.mark.parametrize("form", ["original", "nesterov", "undamped"])
def test_quasi_global_momentum_goes_faster_than_none(form: str) -> None:
    plain, momentum = Swarm("d_psgd", rate=0.02), Swarm("qg_dsgdm", rate=0.02, form=form)
    assert way(momentum.after(40)) > 1.5 * way(plain.after(40))


def test_the_undamped_form_is_qg_gutm_without_mu() -> None:
    one, two = Swarm("qg_dsgdm", form="undamped", beta=0.9), Swarm(PAPER, mu=0.0, beta=0.9)
    assert np.abs(one.after(30) - two.after(30)).max() < 1e-5


def test_original_quasi_global_momentum_by_hand() -> None:
    """Algorithm 1 of 2102.04761, all nodes in one array."""
    swarm, rate, beta = Swarm("qg_dsgdm", form="original", rate=0.05), 0.05, 0.9
    paths = [swarm.after(number) for number in range(1, 6)]
    control = Swarm("d_psgd", rate=0.05)
    w = RING.graph("n0", ()).matrix()
    x = np.repeat(np.asarray(MODEL.initial, np.float64)[None], N, 0)
    momentum = np.zeros_like(x)
    half = paths[0]
    assert np.allclose(half, control.after(1), atol=1e-6), "the first round has no momentum"
    for after in paths[1:]:
        before, x = x, w @ half
        momentum = beta * momentum + (1 - beta) * (before - x) / rate
        gradient = (x - after) / rate - beta * momentum
        assert np.abs(gradient).max() < 5, "what is left is a gradient"
        half = after


def test_tracked_directions_sum_to_the_mean_gradient() -> None:
    swarm = Swarm("gradient_tracking", rate=0.02)
    swarm.after(30)
    states = [swarm.world.nodes[name].agent.state for name in NAMES]
    directions = np.mean([state.arrays["direction"] for state in states], 0)
    gradients = np.mean([state.arrays["gradient"] for state in states], 0)
    assert np.allclose(directions, gradients, atol=1e-4)
