"""A recording: what is written of what an observer sees, what is worked out of it, and what is played again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.errors import ConfigError, DataError
from edgeswarm.messages import Presence
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.recording import Recorded, Recorder, Recording, open_file, read
from edgeswarm.sim.replay import Comparison, arrange, compare, deeds, fitted
from edgeswarm.sim.scenario import load
from edgeswarm.wire import topics
from edgeswarm.wire.status import encode_presence, encode_report

UP_S, DOWN_S = 0.3, 0.2
"""Ways to the broker and back of node "b", the observer's and everybody else's being 0."""


def seen() -> list[tuple[float, str, bytes, bool]]:
    """Node a publishes a model each 2 s from 1 s on; b hears it, and reports each 0.5 s."""
    found = [
        (0.0, topics.state_topic("home", "a"), presence("a"), True),
        (4.0, topics.state_topic("home", "b"), presence("b"), False),
    ]
    found += [(1.0 + 2 * at, topics.model_topic("home", "a", "all", "default"), b"x" * 100, False) for at in range(10)]
    for at in range(30):
        made_s = 4.6 + 0.5 * at
        sent_s = max(1.0 + 2 * k for k in range(10) if 1.0 + 2 * k + DOWN_S <= made_s)
        notes = {"bytes_sent": 100.0 * at, "bytes_received": 5.0, "uptime_s": made_s - 4, "holdout_swarm": 0.75}
        said = encode_report({"notes": notes, "links": {"a": {"age_s": made_s - (sent_s + DOWN_S)}}})
        found.append((made_s + UP_S, topics.health_topic("home", "b"), said, False))
    return sorted(found, key=lambda each: each[0])


def presence(node: str, state: str = "ready", epoch: int = 1) -> bytes:
    return encode_presence(Presence(node, state, epoch, "i"))


def recorded(path: Path, what: list[tuple[float, str, bytes, bool]], limit_bytes: int = 1_000_000) -> Recorder:
    with path.open("w") as out:
        recorder = Recorder(out, "home", limit_bytes)
        for at_s, topic, payload, retained in what:
            recorder.take(at_s, topic, payload, retained)
        recorder.end(20.0)
    return recorder


def test_start_times_bytes_ages_and_the_round_trip(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "run.jsonl", seen())
    assert recorder.nodes == {"a", "b"} and not recorder.full
    found = read(tmp_path / "run.jsonl")
    a, b = found.nodes["a"], found.nodes["b"]
    assert found.site == "home" and found.length_s == 20.0
    assert a.start_s == 0.0 and b.start_s == 4.0 and a.messages == 10 and a.message_bytes > 1000
    assert b.round_trip_s == pytest.approx(UP_S + DOWN_S, abs=1e-3) and a.round_trip_s is None
    assert b.accuracy == 0.75 and b.age_s is not None and 0 <= b.age_s < 2.5
    reports = sum(
        line["bytes"]
        for line in map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines())
        if line.get("kind") == "report"
    )
    assert b.bytes_sent == 2900 - reports if reports < 2900 else b.bytes_sent == 0.0


def test_counters_go_on_over_a_restart_and_begin_with_the_recording(tmp_path: Path) -> None:
    def report(at_s: float, sent: float, up_s: float) -> tuple[float, str, bytes, bool]:
        notes = {"bytes_sent": sent, "uptime_s": up_s}
        return at_s, topics.health_topic("home", "a"), encode_report({"notes": notes, "links": {}}), False

    born = (0.0, topics.state_topic("home", "a"), presence("a"), True)
    what = [born, report(1, 1_000_000, 500), report(5, 1_030_000, 504), report(9, 4_000, 2), report(12, 9_000, 5)]
    recorded(tmp_path / "run.jsonl", what)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    reports = sum(line["bytes"] for line in lines if line.get("kind") == "report")
    assert read(tmp_path / "run.jsonl").nodes["a"].bytes_sent == 30_000 + 9_000 - reports


def test_a_restart_that_the_broker_did_not_notice_began_when_nothing_more_came(tmp_path: Path) -> None:
    model = topics.model_topic("home", "a", "all", "default")
    what = [
        (0.0, topics.state_topic("home", "a"), presence("a"), False), (3.0, model, b"x", False),
        (8.0, topics.state_topic("home", "a"), presence("a", epoch=2), False), (9.0, model, b"x", False),
    ]  # fmt: skip
    recorded(tmp_path / "run.jsonl", what)
    node = read(tmp_path / "run.jsonl").nodes["a"]
    assert node.states == [(0.0, "ready", 1), (3.0, "lost", 1), (8.0, "ready", 2)]
    assert deeds(node) == [(3.0, "crash"), (8.0, "revive")]


def test_nothing_that_was_said_is_kept_and_the_file_is_bounded(tmp_path: Path) -> None:
    secret = b"SECRET" * 50
    what = [(at / 10, topics.model_topic("home", "a", "all", "default"), secret, False) for at in range(1000)]
    recorder = recorded(tmp_path / "run.jsonl", what, limit_bytes=5_000)
    data = (tmp_path / "run.jsonl").read_bytes()
    assert b"SECRET" not in data and len(data) < 6_000 and recorder.lines < 100
    assert json.loads(data.splitlines()[-1])["kind"] == "end"


def test_bytes_of_a_stranger_are_written_down_and_survived(tmp_path: Path) -> None:
    what = [
        (0.0, topics.state_topic("home", "a"), presence("a"), False),
        (1.0, topics.state_topic("home", "a"), b"\xff\x00", False),
        (2.0, topics.health_topic("home", "a"), b"no report", False), (3.0, "edgeswarm/v1/home/a/else", b"x", False),
        (4.0, "other/topic", b"x", False), (5.0, topics.model_topic("home", "a", "all", "t"), b"", True),
    ]  # fmt: skip
    recorded(tmp_path / "run.jsonl", what)
    kinds = [json.loads(line).get("kind") for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert kinds == [None, "presence", "unreadable", "unreadable", "end"]
    assert list(read(tmp_path / "run.jsonl").nodes) == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "not a recording"), ('{"record": 99}\n', "not a recording"), ('{"record":1}\n{"at_s":1}\n', ":2: not a line"),
     ('{"record":1}\nxx\n', ":2: not JSON"),
     ('{"record":1}\n[]\n', ":2: not a line"), ('{"record":1}\n', "no node was up"),
     ('{"record":1}\n{"at_s":1,"node":"a","kind":"report","notes":[],"bytes":1}\n', ":2: not a line")],
)  # fmt: skip
def test_a_file_that_is_no_recording_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read(path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none")


def test_a_recording_cut_off_in_the_middle_of_a_line_is_used(tmp_path: Path) -> None:
    recorded(tmp_path / "whole", seen())
    text = (tmp_path / "whole").read_text()
    (tmp_path / "cut").write_text(text[:-40])
    assert read(tmp_path / "cut").nodes["b"].start_s == 4.0


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


def test_the_window_is_from_the_first_report_of_one_that_was_there_to_its_last(tmp_path: Path) -> None:
    recorded(tmp_path / "run.jsonl", seen())
    found = read(tmp_path / "run.jsonl").nodes
    assert found["b"].from_s == 4.0 and found["b"].until_s == pytest.approx(4.6 + 0.5 * 29 + UP_S)
    assert found["a"].first_s == 1.0 and found["a"].until_s is None
    notes = {"bytes_sent": 9.0, "uptime_s": 500.0}
    what = [(0.0, topics.state_topic("home", "a"), presence("a"), True)]
    what += [(at_s, topics.health_topic("home", "a"), encode_report({"notes": notes, "links": {}}), False)
             for at_s in (3.0, 8.0)]  # fmt: skip
    recorded(tmp_path / "old.jsonl", what)
    old = read(tmp_path / "old.jsonl").nodes["a"]
    assert (old.from_s, old.until_s) == (3.0, 8.0)


def test_the_time_without_a_broker_is_written_down_and_said(tmp_path: Path) -> None:
    with (tmp_path / "run.jsonl").open("w") as out:
        recorder = Recorder(out, "home", 10_000)
        recorder.take(0.0, topics.state_topic("home", "a"), presence("a"), True)
        for at_s, up in ((2.0, False), (5.0, True), (18.0, False)):
            recorder.link(at_s, up)
        recorder.end(20.0)
    found = read(tmp_path / "run.jsonl")
    assert found.unseen_s == 5.0
    assert Comparison((), found.unseen_s).sentences() == [
        "5 s not recorded: the recorder had no link to the broker"
    ]  # fmt: skip


def test_a_file_in_the_way_is_the_operators_to_move(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="is there already") as error:
        open_file(tmp_path / "run.jsonl")
    assert error.value.exit_code == 2 and (tmp_path / "run.jsonl").read_text() == "mine"


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
