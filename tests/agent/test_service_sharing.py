"""Agents that share a model, as processes over a real broker: they learn from one another, and survive what happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_process import Node, lessons, wait_for
from click.testing import CliRunner

from edgeswarm.cli import group
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.models.public import write as write_public
from tests.tiny_model import tiny

pytestmark = pytest.mark.broker

LABELS = ("0", "1", "2")
"""Classes of `lessons`."""
TRAINING = {"period_s": 0.2, "steps": 1, "batch": 16, "rate": 0.05, "optimiser": "sgd"}

Swarm = Callable[..., list[Node]]


@pytest.fixture
def swarm(node: Callable[..., Node], tmp_path: Path) -> Swarm:
    """Makes nodes a, b, c, each of which sees one class alone and is examined on all of them."""
    x, y = lessons(300, seed=9)
    np.savez(tmp_path / "examination.npz", x=x, y=y)
    write(tiny((4,), LABELS, embedding=8), tmp_path / "model.esm")

    def make(url: str, names: str = "abc", method: str = "d_psgd", **sections: Any) -> list[Node]:
        made = []
        for at, name in enumerate(names):
            x, y = lessons(240, seed=at)
            samples = tmp_path / f"{name}.npz"
            np.savez(samples, x=x[y == at % 3], y=y[y == at % 3])
            own: dict[str, Any] = {
                "source": {"kind": "npz", "path": str(samples)},
                "strategy": {"name": method, **TRAINING},
                "model": {"path": str(tmp_path / "model.esm")},
                "compute": {"backend": "reference"},
                "evaluate": {"path": str(tmp_path / "examination.npz"), "every_s": 0.3},
                "report": {"every_s": 0.2},
            }
            for section, values in sections.items():
                own[section] = {**own.get(section, {}), **values}
            made.append(node(url, name, **own))
        return made

    return make


def knows(status: dict[str, Any]) -> bool:
    """Whether a node that saw one class of three recognises all of them."""
    return bool(status["notes"].get("holdout_swarm", 0) > 0.9)


def said(one: Node, verb: str) -> str:
    """What `edgeswarm <verb>` tells of this node."""
    result = CliRunner().invoke(group, [verb, "--state", str(one.state)])
    assert result.exit_code in (0, 3), result.output
    return result.stdout


def decisions(one: Node) -> list[dict[str, Any]]:
    result = CliRunner().invoke(group, ["why", "--state", str(one.state), "--json"])
    return list(json.loads(result.stdout)["decisions"])


def test_three_nodes_of_one_class_each_learn_all_three(broker, swarm):
    nodes = swarm(broker.url)
    for one in nodes:
        one.start()
    for one in nodes:
        one.wait(knows)
        notes = one.wait(lambda s: s["notes"].get("neighbours_heard") == 2 and s["notes"])
        assert notes["rounds"] > 0 and 0 <= notes["staleness_rounds"] < 100
    text = said(nodes[0], "status")
    assert "rounds of training" in text and "prototypes" not in text and "held back" not in text
    assert "heard     2 of 2 neighbours, the oldest" in text
    shown = CliRunner().invoke(group, ["peers", "--broker", broker.url, "--site", nodes[0].site, "--timeout", "20"])
    head, *rows = shown.stdout.splitlines()
    assert "rounds" in head and "behind" in head and "prototypes" not in head
    assert [row.split()[:4:3] for row in rows] == [[name, "d_psgd"] for name in "abc"]
    for one in nodes:
        assert one.end() == 0


def test_a_killed_node_is_not_waited_for_and_goes_on_where_it_was(broker, swarm):
    a, _, c = nodes = swarm(broker.url)
    for one in nodes:
        one.start()
    c.wait(knows)
    wait_for(lambda: c.saved().get("strategy", {}).get("rounds", 0) > 10, say=lambda: c.log)
    c.kill()
    kept, before = c.saved()["strategy"], a.note("rounds")
    a.wait(lambda s: s["notes"]["rounds"] > before + 20 and s["links"]["c"]["staleness_rounds"] > 20)
    assert a.note("neighbours_heard") == 2, "its last model still counts"
    c.start()
    c.wait(lambda s: s["notes"].get("rounds", 0) > kept["rounds"])
    a.wait(lambda s: s["links"]["c"]["staleness_rounds"] < 10)
    assert c.wait(knows) and kept["rounds"] >= 10
    for one in nodes:
        assert one.end() == 0


def test_a_broker_that_loses_everything_is_filled_again(start_mosquitto, swarm):
    broker = start_mosquitto()
    a, b, c = nodes = swarm(broker.url)
    for one in (a, b):
        one.start()
    b.wait(lambda s: s["notes"].get("neighbours_heard") == 1)
    broker.kill()
    a.wait(lambda s: not s["link"]["up"])
    rounds = a.note("rounds")
    a.wait(lambda s: s["notes"]["rounds"] > rounds + 5)  # nobody waits for a broker
    start_mosquitto(broker.port)
    heard = a.note("rounds")
    c.start()
    for one, other in ((a, "b"), (b, "a"), (a, "c"), (c, "a")):
        one.wait(lambda s, other=other: s["links"].get(other, {}).get("staleness_rounds", 99) < 10)
    for one in nodes:
        one.wait(knows)
    assert a.note("rounds") > heard
    assert a.end() == b.end() == c.end() == 0


def test_a_peer_with_another_model_is_refused_counted_and_named(broker, swarm, tmp_path):
    write(tiny((4,), LABELS, embedding=8, seed=5), tmp_path / "other.esm")  # of the same size, and yet another
    a, b = swarm(broker.url, "ab")
    (odd,) = swarm(broker.url, "c", model={"path": str(tmp_path / "other.esm")})
    for one in (a, b, odd):
        one.start()
    for one in (a, b):
        one.wait(lambda s: s["notes"].get("refused_peers") == 1 and s["notes"].get("neighbours_heard") == 1)
    odd.wait(lambda s: s["notes"].get("refused_peers") == 2)
    assert "c" not in a.status()["links"] and a.note("refused_peers") == 1
    assert "refused_peers 1" in said(a, "status")
    wait_for(lambda: any(one["reason"] == "other_model" for one in decisions(a)), say=lambda: a.log)
    (refusal,) = [one for one in decisions(a) if one["reason"] == "other_model"]
    assert (refusal["peer"], refusal["outcome"]) == ("c", "refused")
    assert refusal["sentence"] == "does not use what c sends: it trains another model; give it the same file"
    assert a.end() == b.end() == odd.end() == 0


def test_models_larger_than_a_packet_go_both_ways(broker, swarm, tmp_path):
    write(tiny((4,), LABELS, embedding=9_000), tmp_path / "large.esm")  # 252 kB of parameters
    nodes = swarm(broker.url, "ab", model={"path": str(tmp_path / "large.esm")}, strategy={"rate": 0.002})
    for one in nodes:
        one.start()
    for one, other in zip(nodes, "ba", strict=True):
        one.wait(lambda s, other=other: s["links"].get(other, {}).get("updates", 0) > 3)
        notes = one.status()["notes"]
        assert notes["bytes_received"] > 3 * 252_000 and not notes.get("inbox_full") and not notes.get("oversize")
        wait_for(lambda one=one, other=other: f"{other}/all" in one.saved().get("strategy", {}).get("copies", {}))
    for one in nodes:
        assert one.end() == 0
        assert one.saved()["strategy"]["params"].size == 63_003


def test_in_a_ring_only_neighbours_are_heard(broker, swarm):
    ring = {"kind": "ring", "names": list("abcd")}
    nodes = swarm(broker.url, "abcd", graph=ring)
    for one in nodes:
        one.start()
    for one, near in zip(nodes, ("bd", "ac", "bd", "ac"), strict=True):
        one.wait(lambda s: s["notes"].get("neighbours_heard") == 2 and s["notes"]["rounds"] > 20)
        assert sorted(one.status()["links"]) == sorted(near)
        assert one.note("unasked") == 0
    for one in nodes:
        one.wait(knows)
    for one in nodes:  # not before all know: what one that left early knew grows old
        assert one.end() == 0


def test_what_cannot_be_is_one_line_at_the_start(swarm, tmp_path):
    url = "mqtt://127.0.0.1:1"
    (tmp_path / "edges.txt").write_text("a b\nc d\n")
    (tmp_path / "bad.txt").write_text("a b\nc\n")
    for graph, text in [
        ({"kind": "edges", "file": str(tmp_path / "edges.txt")}, "[graph] kind: the graph falls apart"),
        ({"kind": "edges", "file": str(tmp_path / "bad.txt")}, "bad.txt:2"),
        ({"kind": "edges", "file": str(tmp_path / "none.txt")}, "none.txt"),
        ({"kind": "regular", "names": ["a", "b", "c"], "degree": 7}, "[graph] degree"),
        ({"kind": "ring", "names": ["b", "c"]}, "names lacks this node, 'a'"),
    ]:
        (one,) = swarm(url, "a", graph=graph)
        assert one.start().exit_code() == 2, one.log
        assert text in one.log.splitlines()[-1] and "Traceback" not in one.log, one.log


def test_a_graph_that_the_method_has_no_use_for_is_said(broker, swarm):
    (one,) = swarm(broker.url, "a", method="prototype_gossip", graph={"kind": "ring"})
    one.sections["strategy"] = {"name": "prototype_gossip"}
    one.start()
    one.wait_samples()
    assert "[graph] is not used: with prototype_gossip everybody hears everybody" in one.log
    assert "[model] path is not used" in one.log and one.end() == 0


@pytest.fixture
def teachers(swarm: Swarm, tmp_path: Path) -> Swarm:
    """`swarm` with a model that has an auxiliary head, and a public set."""
    x, _ = lessons(150, seed=77)
    write(perceptron(LABELS, x.mean(axis=0), x.std(axis=0), 12, heads=1), tmp_path / "heads.esm")
    write_public(PublicSet(x, LABELS), tmp_path / "public.npz")

    def make(url: str, names: str = "abc", method: str = "multi_headed_distillation", **sections: Any) -> list[Node]:
        more: dict[str, Any] = {
            "model": {"path": str(tmp_path / "heads.esm")},
            "public": {"path": str(tmp_path / "public.npz")},
            **sections,
        }
        return swarm(url, names, method, **more)

    return make


def test_boards_with_and_without_a_model_teach_one_another_over_a_public_set(broker, teachers):
    a, b = teachers(broker.url, "ab")
    (c,) = teachers(broker.url, "c", "prototype_distillation")
    del c.sections["model"]
    c.sections["strategy"] = {"name": "prototype_distillation", "period_s": 0.2}
    nodes = (a, b, c)
    for one in nodes:
        one.start()
    for one, others in zip(nodes, ("bc", "ac", "ab"), strict=True):
        one.wait(lambda s, others=others: all(s["links"].get(other, {}).get("updates", 0) >= 1 for other in others))
        notes = one.wait(lambda s: s["notes"].get("teachers") == 2 and s["notes"])
        assert "refused_peers" not in notes and "holdout_swarm" in notes
    for one in nodes:
        assert one.end() == 0


def test_another_version_of_the_public_set_is_refused_and_named(broker, teachers, tmp_path):
    x, _ = lessons(150, seed=77)
    write_public(PublicSet(x, LABELS, "2"), tmp_path / "newer.npz")
    (a,) = teachers(broker.url, "a")
    (b,) = teachers(broker.url, "b", public={"path": str(tmp_path / "newer.npz")})
    for one in (a, b):
        one.start()
    for one in (a, b):
        one.wait(lambda s: s["notes"].get("refused_peers") == 1 and s["notes"].get("rounds", 0) > 10)
    wait_for(lambda: "it has another public set, or another version of it" in said(a, "why"), say=lambda: a.log)
    assert a.end() == b.end() == 0
