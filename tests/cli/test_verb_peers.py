from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from cli_world import REPORT, Run, need_mosquitto, nodes

from edgeswarm.cli.peers import print_nodes
from edgeswarm.cli.visitor import Seen, Visitor
from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.messages import Presence
from edgeswarm.wire.status import encode_presence, encode_report


@pytest.mark.broker
def test_the_screen(run: Run, broker: RunningBroker) -> None:
    with nodes(broker, "hall-1", reporting=2):
        lines = run("peers", "--broker", broker.url, "--site", "hall-1", "--timeout", "20").stdout.splitlines()
    assert lines[0].split() == [
        "node",
        "state",
        "start",
        "strategy",
        "samples",
        "accuracy",
        "alone",
        "prototypes",
        "sent",
        "oldest",
        "muted",
    ]
    assert lines[1].split() == [
        "node-1",
        "ready",
        "3",
        "prototype_gossip",
        "1,234",
        "91.0",
        "%",
        "84.0",
        "%",
        "64",
        "12.3",
        "kB",
        "42",
        "s",
        "node-9",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["node-1", "node-2"]


@pytest.mark.broker
def test_json_and_a_node_that_does_not_report(run: Run, broker: RunningBroker) -> None:
    import json

    with nodes(broker, "hall-2", reporting=1, silent=1):
        result = run("peers", "--broker", broker.url, "--site", "hall-2", "--timeout", "1.5", "--json")
    data = json.loads(result.stdout)
    first, second = data["nodes"]
    assert set(first) == set(second) == {"site", "node", "state", "epoch", "notes", "links", "oldest_age_s", "muted"}
    assert (first["oldest_age_s"], first["muted"]) == (42.0, ["node-9"])
    assert (second["oldest_age_s"], second["links"], second["state"]) == (None, {}, "ready")
    assert "waiting for reports (1.5 s at most)" in result.stderr
    assert "1 of 2 did not report within 1.5 s" in result.stderr


@pytest.mark.broker
def test_gone_nodes_are_listed_and_not_waited_for(run: Run, broker: RunningBroker) -> None:
    with nodes(broker, "hall-3", reporting=1):
        pass
    result = run("peers", "--broker", broker.url, "--site", "hall-3", "--timeout", "30")
    assert result.stdout.splitlines()[1].split()[:3] == ["node-1", "disconnected", "3"]


@pytest.mark.broker
def test_all_sites(run: Run, broker: RunningBroker) -> None:
    with nodes(broker, "hall-4", reporting=1), nodes(broker, "hall-5", reporting=1):
        lines = run("peers", "--broker", broker.url, "--site", "all", "--timeout", "2").stdout.splitlines()
    assert lines[0].split()[0] == "site"
    assert {"hall-4", "hall-5"} <= {line.split()[0] for line in lines[1:]}


@pytest.mark.broker
def test_nobody_there(run: Run, broker: RunningBroker) -> None:
    result = run("peers", "--broker", broker.url, "--site", "nowhere", "--timeout", "0.5", code=5)
    assert result.stdout == "" and "no node of site nowhere was heard of" in result.stderr


@pytest.mark.broker
def test_a_broker_that_refuses(run: Run, tmp_path: Path) -> None:
    need_mosquitto()
    with start_broker("mosquitto", tmp_path, anonymous=False) as strict:
        assert "refused" in run("peers", "--broker", strict.url, code=4).stderr


def test_no_broker(run: Run) -> None:
    assert "mqtt://127.0.0.1:1" in run("peers", "--broker", "mqtt://127.0.0.1:1", "--timeout", "0.3", code=3).stderr


def test_which_broker(run: Run) -> None:
    assert "--broker mqtt://host" in run("peers", code=2).stderr


@pytest.mark.parametrize("url", ["localhost", "http://localhost", "mqtt://user:pw@localhost", "mqtt://far.example"])
def test_an_address_that_cannot_be_used(run: Run, url: str) -> None:
    stderr = run("peers", "--broker", url, code=2).stderr
    assert stderr.startswith("edgeswarm: ") and "pw" not in stderr.replace("password", "")


def test_a_visitor_survives_what_it_hears() -> None:
    visitor = Visitor()
    topic = "edgeswarm/v1/hall/node-1/state"
    visitor.on_state("other/topic", b"x", True)
    visitor.on_health("other/topic", b"x", False)
    visitor.on_state(topic, b"junk", True)
    visitor.on_health("edgeswarm/v1/hall/node-1/health", b"junk", False)
    (seen,) = visitor.nodes.values()
    assert seen.state == "unreadable (malformed)" and not seen.reported
    visitor.on_state(topic, encode_presence(Presence("node-1", "lost", 4, "x")), True)
    assert (seen.state, seen.epoch) == ("lost", 4)
    visitor.on_state(topic, b"", False)
    assert not visitor.nodes


def test_a_report_outlives_the_presence_that_comes_after_it() -> None:
    visitor = Visitor()
    visitor.on_health("edgeswarm/v1/hall/node-1/health", encode_report(REPORT), False)
    facts: dict[str, Any] = {"samples": 1, "strategy": "s"}
    visitor.on_state(
        "edgeswarm/v1/hall/node-1/state", encode_presence(Presence("node-1", "ready", 4, "x", facts)), True
    )
    (seen,) = visitor.nodes.values()
    assert (seen.notes["samples"], seen.notes["strategy"], visitor.complete()) == (1234.0, "s", True)


def test_a_method_with_one_model_has_no_accuracy_alone(capsys: pytest.CaptureFixture[str]) -> None:
    one = Seen("hall", "a", "ready", 1, {"accuracy_swarm": 0.9, "accuracy_alone": 0.9, "rounds": 3.0})
    print_nodes([one], with_site=False)
    assert "alone" not in capsys.readouterr().out
    two = Seen("hall", "b", "ready", 1, {"accuracy_swarm": 0.8, "accuracy_alone": 0.7, "prototypes": 3.0})
    print_nodes([one, two], with_site=False)
    head, a, b = click.unstyle(capsys.readouterr().out).splitlines()
    assert "alone" in head and a.count("90.0 %") == 1 and "70.0 %" in b


def test_who_hears_nobody_is_not_behind_by_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    some = Seen("hall", "a", "ready", 1, {"rounds": 3.0, "neighbours_heard": 1.0, "staleness_rounds": 0.0})
    nobody = Seen("hall", "b", "ready", 1, {"rounds": 3.0, "neighbours_heard": 0.0, "staleness_rounds": 1.5})
    print_nodes([some, nobody], with_site=False)
    head, a, b = click.unstyle(capsys.readouterr().out).splitlines()
    place = head.index("behind") + len("behind") - 1
    assert (a[place], b[place]) == ("0", "-"), "its presence, an older word, may still tell of an age"
