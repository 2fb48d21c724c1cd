"""The simulated swarm: time that arithmetic takes, sleep, crashes, clocks, divisions, and going on from a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import LocalEpoch, Request
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError
from edgeswarm.maths.graphs import Topology
from edgeswarm.sim.world import Node, Stream, World
from edgeswarm.strategies.base import Batch, Event, Wake, Woke, equipped
from edgeswarm.strategies.checks import packed, plain, unpacked
from edgeswarm.strategies.d_psgd import DPSGD
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.transport.weather import AccessLink, Weather
from tests.tiny_model import tiny

NAMES = tuple(f"n{i}" for i in range(5))
STORM = Weather((0.05, 0.7), loss=0.1, duplicate=0.1, reorder=True, will_delay_s=2.0)
MODEL = tiny((2,), ("0", "1"))


def backend() -> ReferenceBackend:
    made = ReferenceBackend()
    made.load(MODEL)
    return made


def streams(gap_s: float = 0.5, count: int = 80, together: int = 1) -> dict[str, Stream]:
    """`together` samples every gap_s * together seconds."""
    found = {}
    for i, name in enumerate(NAMES):
        rng = np.random.default_rng(i)
        y = rng.integers(0, 2, count)
        x = (rng.normal(size=(count, 2)) + 3 * y[:, None]).astype(np.float32)
        times = gap_s * together * (1 + np.arange(count) // together)
        found[name] = Stream(x, [str(label) for label in y], times)
    return found


def averaging(**settings: Any) -> Any:
    settings = {"period_s": 5.0, "steps": 2, "batch": 8, "window": 40, **settings}
    return equipped(DPSGD(**settings), 7, MODEL, topology=Topology("ring", NAMES))


def takes(node: str, request: Request) -> float:
    """A slow board and four quick ones."""
    return (2.3 if node == "n0" else 0.4) if isinstance(request, LocalEpoch) else 0.03


class Recording:
    """A strategy that writes down what happens to it, and wakes every second."""

    name, schema = "recording", 0

    def init(self, node: str, seed: int) -> tuple[tuple[str, float, int], ...]:
        return ()

    def step(self, state: Any, event: Event) -> Any:
        yield from ()
        many = len(event.y) if isinstance(event, Batch) else 0
        begins = type(event).__name__ == "Started"
        actions = [Wake(event.at + 1.0, "tick")] if begins or isinstance(event, Woke) else []
        return (*state, (type(event).__name__, event.at, many)), actions

    def dump(self, state: Any) -> dict[str, Any]:
        return {"seen": [list(each) for each in state]}

    def load(self, node: str, dumped: dict[str, Any]) -> Any:
        return tuple((str(kind), float(at), int(many)) for kind, at, many in dumped["seen"])


def recorded(node: Node, kind: str) -> list[float]:
    return [at for name, at, _ in node.agent.state if name == kind]


def outcome(world: World) -> dict[str, Any]:
    """All that came out of a run, to be compared."""
    nodes = world.nodes.values()
    return {
        "states": [plain(node.strategy.dump(node.agent.state)) for node in nodes],
        "tested": [plain(node.tested) for node in nodes],
        "decisions": [plain(node.decisions) for node in nodes],
        "counters": [node.counters for node in nodes],
        "links": [plain(node.agent.link_report()) for node in nodes],
        "notes": [plain(node.agent.notes) for node in nodes],
        "status": [(node.status, node.epoch, node.taken) for node in nodes],
        "requests": world.requests,
    }


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_of_one_instant_are_one_batch_of_at_most_64() -> None:
    world = World(Recording(), streams(count=150, together=75), 1)  # type: ignore[arg-type]
    world.run(200.0)
    batches = [(at, many) for kind, at, many in world.nodes["n0"].agent.state if kind == "Batch"]
    assert batches == [(37.5, 64), (37.5, 11), (75.0, 64), (75.0, 11)]


def test_at_one_instant_samples_come_before_wake_ups_whoever_asked_first() -> None:
    world = World(Recording(), streams(gap_s=1.0, count=3), 1)  # type: ignore[arg-type]
    world.run(3.0)
    kinds = [kind for kind, _, _ in world.nodes["n0"].agent.state if kind in ("Batch", "Woke")]
    assert kinds == ["Batch", "Woke"] * 3


# ---- time that arithmetic takes --------------------------------------------------------------------------------------


def test_while_its_board_computes_a_node_takes_nothing_else() -> None:
    """A sum of 2.3 s begun at 5 ends at 7.3; the samples of 5.5 to 7 are tested after it, with the trained model."""
    world = World(averaging(), streams(), 1, backend=backend(), duration_s=takes)
    world.run(5.4)
    slow, quick = world.nodes["n0"], world.nodes["n1"]
    tested = len(slow.tested)
    world.run(7.2)
    assert slow.agent.state.rounds == 0 and len(slow.tested) == tested and len(slow.events) == 7
    assert quick.agent.state.rounds == 1
    world.run(7.35)
    assert slow.agent.state.rounds == 1


def test_boards_alike_are_still_answered_in_one_call() -> None:
    world = World(averaging(), streams(), 1, backend=backend(), duration_s=lambda node, request: 0.25)
    world.run(5.3)
    assert world.requests == 5 and world.calls == 1


def test_a_step_whose_arithmetic_fails_changes_nothing_and_is_tried_again() -> None:
    class Failing(ReferenceBackend):
        left = 1

        def answer(self, request: Request) -> Any:
            if isinstance(request, LocalEpoch) and self.left:
                self.left -= 1
                raise ModelError("not here")
            return super().answer(request)

        def answer_all(self, requests: Any) -> list[Any]:
            if self.left and any(isinstance(each, LocalEpoch) for each in requests):
                raise ModelError("one of them")
            return super().answer_all(requests)

    failing = Failing()
    failing.load(MODEL)
    world = World(averaging(), streams(), 1, backend=failing)
    world.run(14.9)
    assert [node.agent.state.rounds for node in world.nodes.values()] == [0, 2, 2, 2, 2]
    assert world.nodes["n0"].given_up == 1
    world.run(15.1)
    assert world.nodes["n0"].agent.state.rounds == 1


# ---- what may happen to nodes ----------------------------------------------------------------------------------------


def test_a_sleeping_node_hears_and_does_nothing_and_makes_up_for_no_rounds() -> None:
    world = World(Recording(), streams(gap_s=1.0, count=20), 1)  # type: ignore[arg-type]
    world.run(3.5)
    world.sleep("n0", 5.25)
    world.run(8.7)
    node = world.nodes["n0"]
    assert recorded(node, "Woke") == [1.0, 2.0, 3.0] and node.status == "asleep"
    assert world.nodes["n1"].peers.present() == ("n0", "n2", "n3", "n4"), "a sleeper still counts"
    assert world.nodes["n1"].peers["n0"].presence.state == "sleeping"
    world.run(12.0)
    assert recorded(node, "Woke") == [1.0, 2.0, 3.0, 8.75, 9.75, 10.75, 11.75]
    assert [many for kind, _, many in node.agent.state if kind == "Batch"] == [1, 1, 1, 5, 1, 1, 1, 1]
    assert world.nodes["n1"].peers["n0"].presence.state == "ready"


def test_after_a_crash_a_node_goes_on_from_its_checkpoint_in_a_new_epoch() -> None:
    world = World(averaging(), streams(), 1, Weather(will_delay_s=1.0), backend(), checkpoint_s=8.0)
    world.run(19.9)
    node = world.nodes["n0"]
    assert node.saved is not None and node.saved[0].rounds == 3 and node.taken == 39
    world.crash("n0")
    world.run(25.0)
    assert "n0" not in world.nodes["n1"].agent.state.peers
    before = node.counters["bytes_sent"]
    world.revive("n0")
    world.run(25.5)
    assert (node.epoch, node.agent.state.epoch, node.agent.state.rounds) == (2, 2, 3)
    assert node.taken == 51, "samples since the checkpoint are taken again, those it missed too"
    assert "n0" in world.nodes["n1"].agent.state.peers
    world.run(31.0)
    assert node.agent.state.rounds == 4 and node.counters["bytes_sent"] > before
    assert world.nodes["n1"].agent.state.copies["n0/all"].epoch == 2


def test_a_node_that_crashed_before_any_checkpoint_starts_from_nothing() -> None:
    world = World(averaging(), streams(), 1, backend=backend(), checkpoint_s=1e6)
    world.at(12.0, "crash", "n0")
    world.at(13.0, "revive", "n0")
    world.run(13.1)
    assert world.nodes["n0"].agent.state.rounds == 0 and world.nodes["n0"].taken == 26


def test_whoever_leaves_keeps_its_state_and_a_step_under_way_is_given_up() -> None:
    world = World(averaging(), streams(), 1, backend=backend(), duration_s=takes)
    world.run(10.5)
    assert world.nodes["n0"].step is not None
    world.leave("n0")
    world.run(11.0)
    assert "n0" not in world.nodes["n1"].agent.state.peers, "a goodbye needs no will"
    world.revive("n0")
    world.run(11.1)
    node = world.nodes["n0"]
    assert (node.agent.state.rounds, node.epoch, node.status) == (1, 2, "running")


def test_a_clock_that_jumps_or_runs_fast() -> None:
    world = World(Recording(), streams(count=1), 1)  # type: ignore[arg-type]
    world.run(2.5)
    world.jump("n0", 100.0)
    world.run(3.0)
    assert recorded(world.nodes["n0"], "Woke") == [1.0, 2.0, 102.5]
    assert recorded(world.nodes["n1"], "Woke") == [1.0, 2.0, 3.0]
    world.speed("n1", 2.0)
    world.run(5.0)
    assert recorded(world.nodes["n1"], "Woke") == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    with pytest.raises(ValueError, match="backwards"):
        world.jump("n0", -1.0)


def test_divided_brokers_keep_their_nodes_apart_until_the_bridge_is_back() -> None:
    world = World(averaging(), streams(), 1, Weather(will_delay_s=1.0), backend())
    world.run(5.5)
    world.partition([("n0", "n1")])
    world.run(20.5)
    own, other = world.nodes["n1"].agent.state.copies, world.nodes["n2"].agent.state.copies
    assert own["n0/all"].version == 4 and own["n2/all"].version == 1
    assert other["n3/all"].version == 4 and other["n1/all"].version == 1
    assert "n0" in world.nodes["n2"].agent.state.peers, "nobody is lost: each has its broker"
    world.join_sides()
    world.run(20.6)
    assert world.nodes["n1"].agent.state.copies["n2/all"].version == 4, "what is retained is exchanged"


def test_partitions_that_overlap_compose_and_each_lasts_as_written() -> None:
    """Versions tell when a node was last heard: rounds are at 5, 10, 15, ... s. n0 hears n1 and n4, n1 hears n0 and
    n2, n2 hears n1 and n3, n3 hears n2 and n4 (`averaging` is a ring)."""
    world = World(averaging(), streams(), 1, backend=backend())
    world.at(6.0, "partition", [["n0", "n1"]], 30.0)
    world.at(11.0, "partition", [["n1", "n2"]], 10.0)

    def known(name: str) -> dict[str, int]:
        copies = world.nodes[name].agent.state.copies
        return {pair.partition("/")[0]: copies[pair].version for pair in sorted(copies)}

    world.run(16.0)  # n0 | n1 | n2 | n3 n4
    assert [known(name) for name in NAMES] == [
        {"n1": 2, "n4": 1}, {"n0": 2, "n2": 1}, {"n1": 1, "n3": 2}, {"n2": 2, "n4": 3}, {"n0": 1, "n3": 3},
    ]  # fmt: skip
    world.run(22.0)  # n0 n1 | n2 n3 n4 again: what is retained is exchanged within each
    assert [known(name) for name in NAMES] == [
        {"n1": 4, "n4": 1}, {"n0": 4, "n2": 1}, {"n1": 1, "n3": 4}, {"n2": 4, "n4": 4}, {"n0": 1, "n3": 4},
    ]  # fmt: skip
    world.run(36.5)
    assert [set(known(name).values()) for name in NAMES] == [{7}] * 5


def test_sides_that_unite_share_the_newest_that_one_of_them_has_of_a_third() -> None:
    """n3 is cut off from n0 and n1 at 6 s and from n2 at 16 s; n0, n1 and n2 then come together without it."""
    world = World(averaging(), streams(), 1, backend=backend())
    world.at(6.0, "partition", [["n0", "n1"]], 20.0)
    world.at(16.0, "partition", [["n3"]])
    world.run(27.0)
    kept = world.hub.retained.owners("n0")["n3"]
    assert max(world.hub.contents.of(each.parcel).version for each in kept.values() if "/model/" in
               each.parcel.packet.topic) == 3  # fmt: skip
    assert world.nodes["n2"].agent.state.copies["n3/all"].version == 3


def test_absences_that_overlap_add_up() -> None:
    """By node: its absences (when, what, for how long), and from when to when it is not running."""
    stories: dict[str, tuple[list[tuple[float, str, float]], list[tuple[float, float]]]] = {
        "n0": ([(10.0, "sleep", 10.0), (12.0, "sleep", 30.0), (50.0, "sleep", 20.0), (55.0, "sleep", 5.0)],
               [(10.0, 42.0), (50.0, 70.0)]),
        "n1": ([(10.0, "crash", 60.0), (20.0, "crash", 5.0)], [(10.0, 70.0)]),
        "n2": ([(10.0, "leave", 20.0), (20.0, "sleep", 30.0), (60.0, "sleep", 20.0), (65.0, "crash", 5.0)],
               [(10.0, 50.0), (60.0, 80.0)]),
        "n3": ([(10.0, "crash", 50.0), (20.0, "revive", 0.0), (30.0, "crash", 0.0), (80.0, "revive", 0.0)],
               [(10.0, 20.0), (30.0, 80.0)]),
        "n4": ([(10.0, "crash", 0.0), (20.0, "leave", 10.0)], [(10.0, 99.0)]),
    }  # fmt: skip
    world = World(averaging(), streams(), 1, backend=backend())
    for name, (events, _) in stories.items():
        for at_s, what, for_s in events:
            world.at(at_s, what, *((name,) if what == "revive" else (name, for_s)))
    for quarter in range(1, 360):
        at_s = quarter / 4 + 0.1
        world.run(at_s)
        for name, (_, gone) in stories.items():
            away = any(begin < at_s < end for begin, end in gone)
            assert (world.nodes[name].status == "running") != away, (name, at_s)
    assert world.nodes["n0"].epoch == 1 and world.nodes["n1"].epoch == 2


def test_time_may_stop_after_any_instant() -> None:
    """As if it had not, in the middle of what happens at one time of the clock, too."""
    straight, halting = (World(averaging(), streams(), 3, STORM, backend()) for _ in range(2))
    straight.run(20.0)
    stops = 0
    while not halting.run(20.0, lambda: True):
        stops += 1
    assert stops > 80 and halting.clock.now() == 20.0
    assert packed(halting.dump()) == packed(straight.dump())


def test_a_broker_that_restarts_forgets_or_keeps_and_all_is_well_again() -> None:
    for keep in (False, True):
        world = World(averaging(), streams(), 1, backend=backend())
        world.at(7.0, "restart_broker", keep)
        world.run(7.5)
        assert len(world.hub.retained.owners("n0")) == 5
        world.run(15.5)
        assert world.nodes["n1"].agent.state.copies["n0/all"].version == 3


def test_only_what_may_happen_can_be_planned() -> None:
    with pytest.raises(ValueError, match="what may happen is one of crash, revive"):
        World(Recording(), streams(), 1).at(1.0, "run", 5.0)  # type: ignore[arg-type]


# ---- links and circles -----------------------------------------------------------------------------------------------


def test_a_slow_link_makes_messages_wait_in_a_queue() -> None:
    """A message of n0 takes 7 s up its link, and it has one every 5 s: the third is told 3 * 7 s after the first
    began to be, when the presence before it had gone through."""
    world = World(averaging(), streams(), 1, backend=backend())
    world.run(11.0)
    kept = world.hub.retained.owners("n1")["n0"].values()
    presence, size = (
        next(each.parcel.size_bytes for each in kept if word in each.parcel.packet.topic)
        for word in ("state", "/model/")
    )
    links = {"n0": AccessLink(uplink_bytes_per_s=size / 7.0), "n1": AccessLink(latency_s=0.75)}
    world = World(averaging(), streams(), 1, backend=backend(), links=links)
    world.run(27.5)
    late, other = world.nodes["n4"].agent.state.copies["n0/all"], world.nodes["n2"].agent.state.copies
    begun_s = max(5.0, 7.0 * presence / size)
    assert late.version == 3 and late.at == pytest.approx(begun_s + 21.0, abs=0.1)
    assert (other["n3/all"].at, other["n3/all"].version) == (25.0, 5)
    assert (other["n1/all"].at, other["n1/all"].version) == (25.75, 5), "latency alone keeps the pace"


def test_what_waits_for_a_slow_downlink_keeps_its_order() -> None:
    world = World(averaging(), streams(), 1, backend=backend(), links={"n0": AccessLink(downlink_bytes_per_s=100.0)})
    world.run(9.0)
    received = world.nodes["n0"].counters["bytes_received"]
    assert 0 < received <= 1100, "9 s of it, and what is not a message: the broker's acknowledgements"
    world.run(1000.0)
    copies = world.nodes["n0"].agent.state.copies
    assert copies["n1/all"].version in (199, 200), "the link is quick enough in the long run"


def test_a_lossy_link_loses_for_its_node_alone() -> None:
    world = World(averaging(), streams(), 1, backend=backend(), links={"n1": AccessLink(loss=1.0)})
    world.run(30.0)
    assert not world.nodes["n1"].agent.state.copies
    assert set(world.nodes["n2"].agent.state.copies) == {"n3/all"}
    assert set(world.nodes["n4"].agent.state.copies) == {"n0/all", "n3/all"}


def test_a_node_hears_its_circle_alone() -> None:
    graph = Topology("ring", NAMES).graph("n0", ())
    near = World(PrototypeGossip(period_s=2.0), streams(), 1, circles=graph.neighbours)
    all_ = World(PrototypeGossip(period_s=2.0), streams(), 1)
    near.run(20.0)
    all_.run(20.0)
    assert near.nodes["n0"].agent.state.peers == ("n1", "n4")
    assert all_.nodes["n0"].agent.state.peers == ("n1", "n2", "n3", "n4")
    assert set(near.nodes["n0"].agent.state.replicas) == {"n1", "n4"}
    received = [world.nodes["n0"].counters["bytes_received"] for world in (near, all_)]
    assert received[0] < 0.7 * received[1]


# ---- to a file and back ----------------------------------------------------------------------------------------------


def eventful(make: Callable[..., World]) -> World:
    world = make()
    world.at(9.0, "crash", "n1")
    world.at(12.0, "partition", [["n0", "n2"]])
    world.at(16.0, "revive", "n1")
    world.at(17.0, "sleep", "n3", 6.0)
    world.at(18.0, "jump", "n2", 3.5)
    world.at(21.0, "join_sides")
    world.at(24.0, "speed", "n4", 1.3)
    world.at(26.0, "restart_broker")
    return world


@pytest.mark.parametrize("method", ["d_psgd", "prototype_gossip"])
@pytest.mark.parametrize("cut_s", [0.0, 5.2, 11.0, 17.4, 22.0, 26.0])
def test_going_on_from_a_file_equals_never_having_stopped(method: str, cut_s: float) -> None:
    """Messages are in flight, and a step is in the middle of its arithmetic, at most of these cuts."""
    strategy = averaging() if method == "d_psgd" else PrototypeGossip(period_s=2.0, keep_limit=12, filter="js")
    kind = LocalEpoch if method == "d_psgd" else object

    def make(**more: Any) -> World:
        links = {"n4": AccessLink(500.0, 2000.0, 0.02, 0.05, 0.05)}
        return World(
            strategy, streams(), 3, STORM, backend(), links=links, checkpoint_s=5.0,
            duration_s=lambda node, request: takes(node, request) if isinstance(request, kind) else 0.11, **more
        )  # fmt: skip

    straight = eventful(make)
    straight.run(cut_s)
    held = packed(straight.dump())
    straight.run(40.0)
    resumed = make(dumped=unpacked(held))
    assert packed(resumed.dump()) == held, "what was loaded is what was saved"
    resumed.run(40.0)
    expected, found = outcome(straight), outcome(resumed)
    for name, value in expected.items():
        assert found[name] == value, name
    if cut_s == 5.2 and method == "d_psgd":
        again = make(dumped=unpacked(held))
        assert again.nodes["n0"].step is not None, "this cut was in the middle of a step"


def test_a_file_that_does_not_fit_is_refused() -> None:
    world = World(averaging(), streams(), 1, backend=backend())
    held = unpacked(packed(world.dump()))
    fewer = {name: stream for name, stream in streams().items() if name != "n4"}
    with pytest.raises(ValueError, match="other nodes"):
        World(averaging(), fewer, 1, backend=backend(), dumped=held)
    with pytest.raises(ValueError, match="not the state of a simulation"):
        World(averaging(), streams(), 1, backend=backend(), dumped={"map": []})
    text = json.dumps({"map": [["format", 1], ["nodes", {"run_anything": []}]]})
    with pytest.raises(ValueError, match="no part of a simulation"):
        World(averaging(), streams(), 1, backend=backend(), dumped=json.loads(text))


def test_a_stranger_in_the_clock_cannot_be_saved() -> None:
    world = World(averaging(), streams(), 1, backend=backend())
    world.clock.call_at(9.0, print)
    with pytest.raises(TypeError, match="cannot be saved"):
        world.dump()


def test_models_larger_than_a_packet_travel_in_pieces_and_survive_a_file() -> None:
    large = tiny((2,), ("0", "1"), embedding=40)
    strategy, loaded = equipped(averaging(), 7, large), backend()
    loaded.load(large)

    def make(limit: int = 120_000, **more: Any) -> World:
        return World(strategy, streams(), 3, STORM, loaded, limit, **more)

    small, whole = make(limit=260), make()
    small.run(17.3)
    held = packed(small.dump())
    small.run(40.0)
    whole.run(40.0)
    resumed = make(limit=260, dumped=unpacked(held))
    resumed.run(40.0)
    assert outcome(resumed) == outcome(small)
    node, other = small.nodes["n0"], whole.nodes["n0"]
    assert node.agent.state.copies["n1/all"].version >= 2
    assert node.counters["messages_sent"] > 1.5 * other.counters["messages_sent"]
    assert not node.refused
