"""A recorded run played again: the scenario that is made of it, what happens to nodes when, and the comparison."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ConfigError
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.recording import JITTER_S, Recorded, Recording
from edgeswarm.sim.replay import Comparison, Pair, arrange, compare, deeds, fitted
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import from_plain, load
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.transport.weather import Weather
from tests.sim.test_run import clusters

STORIES: dict[str, tuple[list[tuple[float, str, int]], list[tuple[float, str]]]] = {
    "always there": ([(0, "ready", 1)], []),
    "a power cut": ([(0, "ready", 1), (5, "lost", 1), (9, "ready", 2)], [(5, "crash"), (9, "revive")]),
    "a link that broke": ([(0, "ready", 1), (5, "lost", 1), (9, "ready", 1)], [(5, "cut"), (9, "heal")]),
    "lost for good": ([(0, "ready", 1), (5, "lost", 1)], [(5, "crash")]),
    "an orderly restart": ([(0, "ready", 1), (5, "disconnected", 1), (9, "ready", 2)], [(5, "leave"), (9, "revive")]),
    "a sleep": ([(0, "ready", 1), (5, "sleeping", 1), (9, "ready", 1)], [(5, "leave"), (9, "revive")]),
    "a restart nobody saw": ([(0, "ready", 1), (9, "ready", 2)], [(9, "crash"), (9, "revive")]),
    "lost before it was there": ([(0, "lost", 1), (9, "ready", 2)], []),
}


@pytest.mark.parametrize("name", STORIES)
def test_what_presences_tell(name: str) -> None:
    states, expected = STORIES[name]
    assert deeds(Recorded("a", states=list(states))) == expected


def recording(**nodes: Recorded) -> Recording:
    return Recording("home", 40.0, nodes)


def test_a_node_dies_after_its_last_word_and_the_others_hear_of_it_when_they_did() -> None:
    """The world's own will delay of 30 s does not count: that of the recorded broker does."""
    killed = Recorded("a", wills_s={10.0: 17.7}, round_trip_s=0.4)
    killed.states = [(0.0, "ready", 1), (10.0, "lost", 1), (40.0, "ready", 2)]
    silent = Recorded("b", wills_s={12.0: 19.0}, states=[(0.0, "ready", 1), (12.0, "lost", 1), (50.0, "ready", 1)])
    unmissed = Recorded("c", wills_s={20.0: 28.0})
    unmissed.states = [(0.0, "ready", 1), (20.0, "lost", 1), (28.0, "ready", 2)]
    died_s = 10.0 + 0.2 + JITTER_S
    assert deeds(killed) == [(died_s, "crash", 0.0, 17.7 - died_s), (40.0, "revive")]
    assert deeds(silent) == [(12.0 + JITTER_S, "cut", 19.0 - (12.0 + JITTER_S)), (50.0, "heal")]
    rows = {name: Stream(np.zeros((0, 2), np.float32), [], np.zeros(0)) for name in "abcd"}
    world = World(PrototypeGossip(period_s=2.0), rows, 1, Weather(will_delay_s=30.0))
    arrange(recording(a=killed, b=silent, c=unmissed, d=Recorded("d")))(world, None)  # type: ignore[arg-type]
    seen: dict[float, tuple[str, ...]] = {}
    for at_s in (10.2, 11.0, 17.6, 17.8, 18.9, 19.1, 27.9, 28.1, 39.9, 41.0, 51.0):
        world.run(at_s)
        seen[at_s] = world.nodes["d"].peers.present()
        assert world.nodes["a"].status == ("crashed" if 10.25 < at_s < 40 else "running")
        assert world.nodes["b"].transport.up == (not 12.05 < at_s < 50)
    everybody = ("a", "b", "c")
    assert [seen[at_s] for at_s in (10.2, 11.0, 17.6)] == [everybody] * 3
    assert [seen[at_s] for at_s in (17.8, 18.9)] == [("b", "c")] * 2
    assert [seen[at_s] for at_s in (19.1, 27.9, 28.1, 39.9)] == [("c",)] * 4, "c was back before anybody was told"
    assert seen[41.0] == ("a", "c") and seen[51.0] == everybody
    assert world.nodes["c"].epoch == 2


@pytest.mark.parametrize("how", ["names", "file"])
def test_the_place_of_a_node_that_was_never_there_stays_empty(how: str, tmp_path: Path) -> None:
    """A ring of five without the fifth is a line of four, on the devices and here."""
    graph: dict[str, Any] = {"graph.kind": "ring", "graph.names": list("abcde")}
    if how == "file":
        (tmp_path / "ring.txt").write_text("a b\nb c\nc d\nd e\ne a\n")
        graph = {"graph.kind": "edges", "graph.file": str(tmp_path / "ring.txt")}
    settings = {"swarm.nodes": 5, "swarm.names": list("abcde"), "strategy.name": "d_psgd", "strategy.period_s": 5.0}
    record = recording(**{name: Recorded(name) for name in "abcd"})
    scenario = fitted(load(None, settings | {"model.hidden": 4} | graph), record)
    assert scenario.names == tuple("abcd") and scenario.swarm.absent == ("e",)
    assert from_plain(scenario.plain()) == scenario, "a checkpoint of it can be gone on with"
    made = scenario.topology().graph("a", ())
    assert [sorted(made.neighbours(name)) for name in "ad"] == [["b", "e"], ["c", "e"]]
    caught: list[World] = []
    played = run(scenario, backend="reference", data=clusters(), arranged=lambda world, stage: caught.append(world))
    heard = {name: {pair[0] for pair in node.agent.state.copies} for name, node in caught[0].nodes.items()}
    assert heard == {"a": {"b"}, "b": {"a", "c"}, "c": {"b", "d"}, "d": {"c"}} and len(played.nodes) == 4


def test_a_recording_of_another_swarm_is_refused() -> None:
    scenario = load(None, {"swarm.nodes": 3, "strategy.name": "d_psgd", "graph.names": ["n1", "n2", "n3"]})
    with pytest.raises(ConfigError, match=r"\[graph\] names: lacks 'x', which was recorded"):
        fitted(scenario, recording(n1=Recorded("n1"), x=Recorded("x")))


def test_what_the_recorder_alone_has_seen_is_said() -> None:
    pair = Pair("c", (None, None), (0.0, 0.0), (0.0, 0.0), (None, None), 12_345.0)
    assert Comparison((pair,)).sentences() == [
        "c: a process ended after its last report; 12.3 kB that it sent since are counted as the recorder saw them, "
        "what it received since is not known"
    ]


def test_the_scenario_takes_names_start_times_and_length() -> None:
    record = recording(x=Recorded("x", 0.0), y=Recorded("y", 12.0))
    scenario = fitted(load(None, {"swarm.nodes": 8, "report.every_s": 100.0, "swarm.duration_s": 200.0}), record)
    assert scenario.names == ("x", "y") and scenario.swarm.duration_s == 40.0 and scenario.report.every_s == 2.0
    assert [(event.kind, event.at_s, event.nodes) for event in scenario.events] == [("join", 12.0, ("y",))]
    with pytest.raises(ConfigError, match="no length"):
        fitted(load(None), Recording("home", 0.0, record.nodes))


def test_a_node_that_was_there_before_keeps_the_phase_of_its_rounds() -> None:
    record = recording(x=Recorded("x", 0.0, first_s=13.25), y=Recorded("y", 12.0, first_s=17.0), z=Recorded("z"))
    scenario = fitted(load(None, {"strategy.name": "d_psgd", "strategy.period_s": 5.0}), record)
    assert [(event.at_s, event.nodes) for event in scenario.events] == [(3.25, ("x",)), (12.0, ("y",))]


def test_a_graph_of_names_takes_the_recording_s(tmp_path: Path) -> None:
    file = tmp_path / "swarm.toml"
    file.write_text('[graph]\nkind = "ring"\nnames = ["a", "b", "c"]\n')
    with pytest.raises(ConfigError, match="names has 'a', but the devices are n1 to n8"):
        load(file)
    scenario = fitted(load(file, whole=False), recording(a=Recorded("a"), c=Recorded("c")))
    assert scenario.names == ("a", "c") and scenario.swarm.absent == ("b",)
    with pytest.raises(ConfigError, match="lacks 'x', which was recorded"):
        fitted(load(file, whole=False), recording(x=Recorded("x")))


def test_both_sides_are_of_the_same_window() -> None:
    """From 10 s, the first report, until 30 s, the last; the replay's start and its end do not count."""
    node = Recorded("x", bytes_sent=200.0, bytes_received=20.0, accuracy=0.5, age_s=2.0, from_s=10.0, until_s=30.0)
    series = (0.1, 0.2, 0.3, 0.9)
    played = NodeOutcome(
        "x", "", 1, {}, series, series, series, (5000, 5100, 5200, 9000), (0, 10, 20, 99), (9.0, 1.0, 3.0, 50.0),
        (1,) * 4,
    )  # fmt: skip
    (pair,) = compare(recording(x=node), Outcome({}, "", (played,), (10.0, 20.0, 30.0, 40.0))).nodes
    assert pair.bytes_sent == (200.0, 200.0) and pair.bytes_received == (20.0, 20.0)
    assert pair.accuracy == (0.5, 0.3) and pair.age_s == (2.0, 2.0)


def test_latencies_and_outages_reach_the_world() -> None:
    class World:
        def __init__(self) -> None:
            self.links: dict[str, Any] = {}
            self.hub = self
            self.happened: list[Any] = []

        def at(self, *what: Any) -> None:
            self.happened.append(what)

    world: Any = World()
    node = Recorded("x", states=[(0, "ready", 1), (5, "lost", 1), (9, "ready", 2)], round_trip_s=0.4)
    arrange(recording(x=node, y=Recorded("y")))(world, None)  # type: ignore[arg-type]
    assert world.links["x"].latency_s == 0.2 and world.links["y"].latency_s == 0.0
    assert world.happened == [(5, "crash", "x"), (9, "revive", "x")]


def test_a_comparison_is_node_by_node_and_like_with_like() -> None:
    played = (
        NodeOutcome("x", "", 1, {}, (0.1,), (0.5,), (0.9,), (110,), (95,), (3.0,), (1,)),
        NodeOutcome("y", "", 1, {}, (0.1,), (0.6,), (0.8,), (100,), (100,), (None,), (1,)),
    )
    real = recording(
        x=Recorded("x", bytes_sent=100.0, bytes_received=100.0, accuracy=0.4, accuracy_stream=0.99, age_s=2.0),
        y=Recorded("y", bytes_sent=100.0, bytes_received=100.0, accuracy_stream=0.7),
    )
    found = compare(real, Outcome({}, "", played, (40.0,)))
    assert [pair.accuracy for pair in found.nodes] == [(0.4, 0.5), (0.7, 0.8)]
    assert found.sentences() == [
        "accuracy: replayed +10.0 points, mean of 2 nodes",
        "bytes sent: replayed +5.0 %",
        "bytes received: replayed -2.5 %",
    ]  # fmt: skip
    assert len(found.rows()[0]) == len(found.HEADS) and found.plain()[0]["age_s"] == [2.0, 3.0]
    assert io.StringIO(json.dumps(found.plain())).read()
