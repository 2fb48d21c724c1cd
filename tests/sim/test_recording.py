"""A recording: what is written of what an observer sees, and what is worked out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeswarm.errors import ConfigError, DataError
from edgeswarm.messages import Presence
from edgeswarm.sim.recording import Recorded, Recorder, open_file, read
from edgeswarm.sim.replay import Comparison
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
    assert a.start_s == 0.0 and b.start_s == 4.0 and a.messages == 10
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
    assert node.wills_s == {3.0: 8.0}, "nobody was told before it was back"


def test_a_node_is_lost_from_its_last_word_on_and_not_from_when_the_broker_says_so(tmp_path: Path) -> None:
    model = topics.model_topic("home", "a", "all", "default")
    what = [
        (0.0, topics.state_topic("home", "a"), presence("a"), True), (45.65, model, b"x", False),
        (53.33, topics.state_topic("home", "a"), presence("a", "lost"), False),
        (60.0, topics.state_topic("home", "a"), presence("a", epoch=2), False),
        (66.0, topics.state_topic("home", "a"), presence("a", "lost", 2), False),
        (0.0, topics.state_topic("home", "b"), presence("b"), True),
        (9.0, topics.state_topic("home", "b"), presence("b", "lost"), False),
    ]  # fmt: skip
    recorded(tmp_path / "run.jsonl", what)
    nodes = read(tmp_path / "run.jsonl").nodes
    assert nodes["a"].states == [(0.0, "ready", 1), (45.65, "lost", 1), (60.0, "ready", 2), (60.0, "lost", 2)]
    assert nodes["a"].wills_s == {45.65: 53.33, 60.0: 66.0}, "to say that it is there is a word, too"
    assert nodes["b"].states[1] == (9.0, "lost", 1), "when it fell silent is not known"


def killed_and_back(path: Path, epoch: int, sent_after: int, up_s: float = 6.0) -> Recorded:
    """a reports at 10 s, sends 3 messages, is killed, and comes back in `epoch`; its new process has heard more from
    its session than the one before had in all."""
    model = topics.model_topic("home", "a", "all", "default")

    def report(at_s: float, sent: float, received: float, up_s: float) -> tuple[float, str, bytes, bool]:
        notes = {"bytes_sent": sent, "bytes_received": received, "uptime_s": up_s}
        return at_s, topics.health_topic("home", "a"), encode_report({"notes": notes, "links": {}}), False

    what = [(0.0, topics.state_topic("home", "a"), presence("a"), False), (5.0, model, b"x" * 50, False)]
    what += [report(10.0, 50_000, 137_554, 10.0)]
    what += [(12.0 + at, model, b"x" * 100, False) for at in range(3)]
    what += [(20.0, topics.state_topic("home", "a"), presence("a", epoch=epoch), False), (22.0, model, b"x", False)]
    what += [report(26.0, sent_after, 206_299, up_s)]
    recorded(path, what)
    return read(path).nodes["a"]


def test_a_new_process_counts_anew_however_much_it_has_counted(tmp_path: Path) -> None:
    by_epoch = killed_and_back(tmp_path / "epoch", epoch=2, sent_after=60_000, up_s=11.0)
    by_uptime = killed_and_back(tmp_path / "uptime", epoch=1, sent_after=60_000)
    assert by_epoch.bytes_received == by_uptime.bytes_received == 137_554 + 206_299
    same = killed_and_back(tmp_path / "same", epoch=1, sent_after=60_000, up_s=26.0)
    assert same.bytes_received == 206_299 and same.unreported_bytes is None


def test_what_a_killed_process_sent_after_its_last_report_is_counted_as_it_was_seen(tmp_path: Path) -> None:
    node = killed_and_back(tmp_path / "run.jsonl", epoch=2, sent_after=60_000)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    reports = sum(line["bytes"] for line in lines if line.get("kind") == "report")
    since = sum(line["bytes"] for line in lines if line.get("kind") == "model" and 10 < line["at_s"] < 20)
    assert since > 300 and node.unreported_bytes == since
    assert node.bytes_sent == 50_000 + 60_000 - reports + since


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
