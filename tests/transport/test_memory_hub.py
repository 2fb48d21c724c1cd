"""The memory hub's own abilities: chance, time, cuts and restarts. What it shares with MQTT is in test_transports."""

from __future__ import annotations

import random

import pytest
from transport_world import Heard, prototypes, ready

from edgeswarm.agent.clock import VirtualClock
from edgeswarm.messages import EVERYONE, Digest, Prototypes, Pull
from edgeswarm.transport.hub import MemoryHub
from edgeswarm.transport.memory import MemoryTransport
from edgeswarm.transport.weather import Weather
from edgeswarm.wire import topics


def swarm(
    names: str, weather: Weather | None = None, seed: int = 1
) -> tuple[VirtualClock, MemoryHub, dict[str, MemoryTransport], dict[str, Heard]]:
    clock = VirtualClock()
    hub = MemoryHub(clock, random.Random(seed), weather or Weather())
    heard = {name: Heard(name) for name in names}
    nodes = {name: hub.join(name, heard[name]) for name in names}
    for name, node in nodes.items():
        node.announce(ready(name))
    clock.run(1.0)
    return clock, hub, nodes, heard


def test_a_cut_node_is_lost_after_the_delay_and_a_quick_return_is_not_noticed() -> None:
    clock, hub, _, heard = swarm("ab", Weather(will_delay_s=5))
    hub.cut("a")
    clock.run(4.0)
    hub.heal("a")
    clock.run(30.0)
    assert [p.state for p in heard["b"].presences] == ["ready", "ready"]
    hub.cut("a")
    clock.run(34.9)
    assert heard["b"].state("a") == "ready"
    clock.run(35.1)
    assert heard["b"].state("a") == "lost" and heard["b"].presences[-1].epoch == 1
    assert [up for up, _ in heard["a"].links] == [True, False, True, False]


def test_a_will_is_spoken_though_the_node_loses_its_power_while_it_is_cut_off() -> None:
    clock, hub, _, heard = swarm("ab", Weather(will_delay_s=5))
    hub.cut("a")
    clock.run(3.0)
    hub.cut("a")
    clock.run(5.9)
    assert heard["b"].state("a") == "ready"
    clock.run(6.1)
    assert heard["b"].state("a") == "lost"


def test_a_node_that_is_cut_off_before_its_first_link_is_not_taken() -> None:
    clock, hub, _, _ = swarm("a")
    late = Heard("late")
    hub.join("late", late)
    hub.cut("late")
    clock.run(9.0)
    assert late.links == []


def test_what_is_on_its_way_to_a_cut_node_is_lost_to_it() -> None:
    clock, hub, nodes, heard = swarm("ab", Weather(delay_s=(0.5, 0.5)))
    nodes["a"].send("b", Pull(7, 1, 1))
    hub.cut("b")
    hub.heal("b")
    clock.run(60.0)
    assert heard["b"].messages == []
    hub.cut("b")
    nodes["a"].send("b", Pull(7, 1, 2))
    assert nodes["b"].send("a", Pull(7, 1, 2)) == 0 and nodes["b"].counters["dropped_offline"] == 1


def test_a_snapshot_waits_for_late_joiners_and_says_for_how_long() -> None:
    clock, hub, nodes, _ = swarm("a")
    nodes["a"].send(EVERYONE, prototypes(version=3))
    clock.run(101.0)
    late = Heard("late")
    hub.join("late", late)
    clock.run(101.0)
    assert late.versions("a") == [3] and late.messages[0][2] == 100.0
    clock.run(1.0 + topics.SNAPSHOT_EXPIRY_S)
    later = Heard("later")
    hub.join("later", later)
    clock.run(1.0 + topics.SNAPSHOT_EXPIRY_S)
    assert later.messages == []


def test_after_a_restart_everybody_says_again_what_is_so() -> None:
    clock, hub, nodes, heard = swarm("ab")
    nodes["a"].send(EVERYONE, prototypes(version=3))
    clock.run(11.0)
    hub.restart()
    late = Heard("late")
    hub.join("late", late)
    clock.run(12.0)
    assert late.versions("a") == [3] and late.state("a") == late.state("b") == "ready"
    repeated = late.messages[0][1]
    assert isinstance(repeated, Prototypes) and repeated.age_s == 10.0
    assert heard["b"].versions("a") == [3, 3]


def test_chances_are_kept_and_a_seed_repeats_a_run() -> None:
    def run(seed: int) -> list[int]:
        clock, _, nodes, heard = swarm("ab", Weather((0.1, 0.9), loss=0.3, duplicate=0.2, reorder=True), seed)
        for version in range(2000):
            nodes["a"].send("b", Pull(7, 1, version))
        clock.run(10.0)
        return [m.version for _, m, _, _ in heard["b"].messages if isinstance(m, Pull)]

    once = run(1)
    assert once == run(1) != run(2)
    assert len(set(once)) == pytest.approx(2000 * 0.7, rel=0.1)
    assert len(once) == pytest.approx(2000 * 0.7 * 1.2, rel=0.1)
    assert once != sorted(once)


def test_without_reordering_a_sender_is_heard_in_order() -> None:
    clock, _, nodes, heard = swarm("ab", Weather(delay_s=(0.0, 3.0)))
    for version in range(200):
        nodes["a"].send("b", Pull(7, 1, version))
    clock.run(60.0)
    assert [m.version for _, m, _, _ in heard["b"].messages] == list(range(200))


def test_bytes_are_those_of_mqtt_packets() -> None:
    clock, _, nodes, heard = swarm("abc")
    before = {name: node.counters for name, node in nodes.items()}
    size = nodes["a"].send(EVERYONE, Digest(7, 1, 1, 2, 3))
    clock.run(2.0)
    assert nodes["a"].counters["bytes_sent"] - before["a"]["bytes_sent"] == size
    for name in "bc":
        assert nodes[name].counters["bytes_received"] - before[name]["bytes_received"] == size
        assert heard[name].messages[0][3] == size


def test_reports_reach_whoever_asked() -> None:
    seen: list[tuple[str, bytes]] = []
    clock = VirtualClock()
    hub = MemoryHub(clock, random.Random(1), on_report=lambda node, report: seen.append((node, report)))
    node = hub.join("a", Heard())
    assert node.publish_report(b"1") == 0
    clock.run(1.0)
    assert node.publish_report(b"2") > 0 and seen == [("a", b"2")]


def test_a_process_that_starts_again_joins_anew_and_a_name_in_use_is_refused() -> None:
    clock, hub, _, heard = swarm("ab")
    with pytest.raises(ValueError, match="linked already"):
        hub.join("a", Heard())
    hub.cut("a")
    again = hub.join("a", Heard("a"))
    again.announce(ready("a", epoch=2))
    clock.run(60.0)
    assert [(p.state, p.epoch) for p in heard["b"].presences if p.node == "a"] == [("ready", 1), ("ready", 2)]


def test_a_pull_to_everyone_is_a_mistake() -> None:
    _, _, nodes, _ = swarm("a")
    with pytest.raises(ValueError, match="one node"):
        nodes["a"].send(EVERYONE, Pull(7, 1, 1))


@pytest.mark.parametrize("wrong", [{"delay_s": (2.0, 1.0)}, {"loss": 1.5}, {"duplicate": -0.1}])
def test_weather_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Weather(**wrong)  # type: ignore[arg-type]
