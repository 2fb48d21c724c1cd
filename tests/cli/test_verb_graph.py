from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run, nodes

from edgeswarm.cli.graph import link_quality
from edgeswarm.cli.visitor import Seen
from edgeswarm.demo.broker import RunningBroker
from edgeswarm.maths.age import AgeMeter
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron

FIELDS = {
    "title", "count", "links", "directed", "weights", "degree", "parts", "diameter", "diameter_exact", "second", "gap",
    "smallest", "rounds_to_mix", "largest_mu", "chosen_mu", "useful_heads", "traffic", "nodes", "edges",
}  # fmt: skip


def test_the_screen(run: Run) -> None:
    text = run("graph", "ring", "--nodes", "4").stdout
    lines = text.splitlines()
    assert lines[0] == "ring: 4 nodes, 4 links"
    assert lines[1:5] == ["n1  ╲ ■ · ■", "n2  ■ ╲ ■ ·", "n3  · ■ ╲ ■", "n4  ■ · ■ ╲"]
    assert "smallest eigenvalue  -0.333" in text and "2 each" in text
    assert "mu 0.80; stable below 1.00" in text and "up to 2 auxiliary heads" in text


def test_as_json(run_json: Callable[..., Any]) -> None:
    data = run_json("graph", "dyck", "--nodes", "32")
    assert set(data) == FIELDS and data["traffic"] is None
    assert data["gap"] == pytest.approx(0.146, abs=5e-4) and data["smallest"] == pytest.approx(-0.5)
    assert data["largest_mu"] == pytest.approx(0.5) and data["chosen_mu"] == pytest.approx(0.45)
    assert data["degree"] == {"least": 3, "mean": 3.0, "most": 3} and len(data["edges"]) == 48
    assert run_json("graph", "dyck", "--nodes", "32", "--weights", "lazy")["chosen_mu"] == 0.8


@pytest.mark.parametrize(
    ("kind", "allowed"), [("ring", ""), ("dyck", "; --weights lazy allows 0.80"), ("directed-ring", "allows more")]
)
def test_what_lazy_weights_allow_is_so(run: Run, run_json: Callable[..., Any], kind: str, allowed: str) -> None:
    (line,) = [line for line in run("graph", kind, "--nodes", "32").stdout.splitlines() if "the skew's bias" in line]
    plain, lazy = (run_json("graph", kind, "--nodes", "32", "--weights", weights)["chosen_mu"]
                   for weights in ("metropolis", "lazy"))  # fmt: skip
    assert line.endswith(allowed) and ("lazy" in line) == (lazy > plain) == bool(allowed)
    assert "0.80" not in allowed or lazy == 0.8


def test_one_way_links_are_told_as_such(run: Run, run_json: Callable[..., Any]) -> None:
    data = run_json("graph", "directed-ring", "--names", "b,a,c")
    assert data["directed"] and data["edges"] == [["a", "b"], ["b", "c"], ["c", "a"]]
    assert "both ways" in run("graph", "directed-ring", "--nodes", "3", "--write", "r.edges", code=2).stderr


def test_what_a_model_costs_on_it(run: Run, run_json: Callable[..., Any]) -> None:
    write(perceptron(["a", "b"], np.zeros(20, np.float32), np.ones(20, np.float32)), Path("model.esm"))
    ring, full = (run_json("graph", kind, "--nodes", "9", "--model", "model.esm") for kind in ("ring", "full"))
    sent = ring["traffic"]["sent_bytes"]
    assert full["traffic"]["sent_bytes"] == sent > ring["traffic"]["parameters"]
    assert ring["traffic"]["received_bytes"] == {"mean": 2 * sent, "most": 2 * sent}
    assert full["traffic"]["broker_bytes"] == sent * (9 + 72)
    text = run("graph", "ring", "--model", "model.esm", "--scheme", "float32").stdout
    assert "each node sends" in text and "float32" in text


# ---- files ----------------------------------------------------------------------------------------------------------

EDGES = "a b 0.9\nb c 0.5 # the long corridor\nc d 0.7\nd a 0.6\n"


def test_a_file_and_back(run: Run, run_json: Callable[..., Any]) -> None:
    Path("hall.txt").write_text(EDGES)
    data = run_json("graph", "--edges", "hall.txt", "--write", "kept.toml")
    assert data["edges"] == [["a", "b", 0.9], ["a", "d", 0.6], ["b", "c", 0.5], ["c", "d", 0.7]]
    assert 'kind = "edges"' in Path("kept.toml").read_text() and 'file = "kept.edges"' in Path("kept.toml").read_text()
    assert run_json("graph", "--edges", "kept.edges")["edges"] == data["edges"]
    assert run_json("graph", "--config", "kept.toml")["degree"] == data["degree"]


@pytest.mark.parametrize("kind", ["regular", "erdos-renyi", "torus", "full"])
def test_a_section_that_is_written_is_the_same_graph(run_json: Callable[..., Any], kind: str) -> None:
    how = ("--nodes", "12", "--degree", "3", "--seed", "5", "--probability", "0.4", "--weights", "lazy")
    made = run_json("graph", kind, *how, "--write", "g.toml")
    again = run_json("graph", "--config", "g.toml")
    for key in FIELDS - {"title"}:
        assert again[key] == made[key]


def test_parts_are_said_in_red(run: Run, run_json: Callable[..., Any]) -> None:
    Path("islands.txt").write_text("a b\nc d\n")
    result = run("graph", "--edges", "islands.txt")
    assert "2 that never hear of one another" in result.stdout and "learns in each part alone" in result.stdout
    data = run_json("graph", "--edges", "islands.txt")
    assert data["parts"] == 2
    lacking = ("gap", "second", "smallest", "diameter", "rounds_to_mix", "largest_mu", "chosen_mu", "useful_heads")
    assert all(data[key] is None for key in lacking)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which graph? Give one of"),
        (("ring", "--edges", "x"), "which graph? Give one of"),
        (("edges",), "give --edges FILE"),
        (("--edges", "x", "--names", "a,b"), "--names goes with a KIND alone"),
        (("--edges", "x", "--nodes", "4"), "--nodes goes with a KIND alone"),
        (("--config", "x", "--names", "a,b"), "--names goes with a KIND alone"),
        (("star",), "'star' is not one of"),
        (("regular", "--nodes", "5", "--degree", "3"), "--degree: no graph of 5 nodes"),
        (("regular", "--nodes", "4", "--degree", "4"), "at most 3"),
        (("dyck",), "exactly 32"),
        (("ring", "--names", "a,a"), "--names: 'a' stands there twice"),
        (("ring", "--names", "a,B"), '--names "B" is not usable'),
        (("erdos-renyi", "--nodes", "90", "--probability", "0.001"), "--probability: 0.001 connects 90 nodes hardly"),
        (("--edges", "missing.txt"), "no such file"),
        (("ring", "--picture", "x.jpeg"), "neither in .png nor in .svg"),
        (("ring", "--write", "no/such/folder.toml"), "no such file or folder"),
        (("--broker", "mqtt://127.0.0.1:1", "--timeout", "0.3"), ""),
    ],
)
def test_one_line_says_what_is_wrong(run: Run, words: tuple[str, ...], says: str) -> None:
    result = run("graph", *words, code=3 if "--broker" in words else 2)
    last = result.stderr.strip().splitlines()[-1]
    assert says in last, last


def test_a_line_that_is_no_link_is_named(run: Run) -> None:
    Path("hall.txt").write_text("a b\na b c d\n")
    assert "hall.txt:2: a line is two names" in run("graph", "--edges", "hall.txt", code=2).stderr


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("torus",), ("directed-ring",), ("regular", "--nodes", "200"), ("ring", "--nodes", "1")]
)
def test_a_picture(run: Run, words: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib")
    run("graph", *words, "--picture", "folder/graph.png")
    head = Path("folder/graph.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (1000, 1060)


def test_an_svg(run: Run) -> None:
    pytest.importorskip("matplotlib")
    Path("hall.txt").write_text(EDGES)
    run("graph", "--edges", "hall.txt", "--picture", "graph.svg")
    assert "<svg" in Path("graph.svg").read_text()


def test_too_many_for_a_picture(run: Run) -> None:
    pytest.importorskip("matplotlib")
    result = run("graph", "ring", "--nodes", "2000", "--picture", "graph.png", code=1)
    assert "2000 nodes are more than" in result.stderr and "1,000 hops" in result.stdout


# ---- measured links -------------------------------------------------------------------------------------------------


def seen(node: str, state: str = "ready", **links: dict[str, float]) -> Seen:
    return Seen("hall", node, state, 1, {}, links, True)


def test_quality_is_how_young_what_comes_is() -> None:
    found = link_quality([
        seen(
            "a",
            b={"age_s": 9.0, "age_recent_s": 4.0, "age_mean_s": 70.0, "updates": 30.0},
            c={"age_s": 10.0, "age_recent_s": 3.0, "updates": 7.0},
        ),
        seen("b", a={"age_s": float("inf")}, d={"age_s": 1.0}),
        seen("c"),
        seen("d", "lost"),
    ])  # fmt: skip
    assert found == {("a", "b"): 0.25, ("a", "c"): 0.1}  # nothing came from a to b, and d is not up


def test_an_outage_that_is_over_does_not_count_for_ever() -> None:
    """a finds what d said an hour ago at the broker; d comes back and says something every second."""
    meter = AgeMeter()
    meter.update(100.0, 3600.0)
    for at in range(175, 185):
        meter.update(float(at), 0.0)

    def quality(now: float) -> float:
        link = {"age_s": meter.current(now), "age_recent_s": meter.recent(now), "updates": float(meter.updates)}
        return link_quality([seen("a", d=link), seen("d")])["a", "d"]

    assert quality(185.0) == pytest.approx(2.0) and meter.mean(185.0) > 3000
    meter.update(1000.0, 0.0)  # away again, for a quarter of an hour
    assert quality(1000.0) < 0.01
    for at in range(1001, 1034):
        meter.update(float(at), 0.0)
    assert quality(1033.0) == pytest.approx(2.0)


@pytest.mark.broker
def test_the_best_links_of_a_site(run: Run, run_json: Callable[..., Any], broker: RunningBroker) -> None:
    """Six nodes in a row: the farther a peer, the older what comes from it. A ring's worth of neighbours is chosen."""

    def report(number: int) -> Mapping[str, Any]:
        ages = {other: abs(number - other) * 2.0 for other in range(1, 7) if other != number}
        return {
            "notes": {},
            "links": {
                f"node-{other}": {"age_s": age, "age_recent_s": age, "updates": 9.0} for other, age in ages.items()
            },
        }

    with nodes(broker, "row", reporting=6, report=report):
        data = run_json("graph", "--site", "row", "--broker", broker.url, "--degree", "2", "--timeout", "20")
        run("graph", "--site", "row", "--broker", broker.url, "--write", "row.edges", "--timeout", "20")
    assert data["parts"] == 1 and data["degree"]["most"] == 2
    chain = {(f"node-{number}", f"node-{number + 1}") for number in range(1, 6)}
    assert chain <= {(a, b) for a, b, _ in data["edges"]}
    assert [quality for a, b, quality in data["edges"] if (a, b) in chain] == [0.5] * 5
    assert run_json("graph", "--edges", "row.edges")["parts"] == 1


@pytest.mark.broker
def test_a_site_without_reports(run: Run, broker: RunningBroker) -> None:
    with nodes(broker, "quiet", reporting=0, silent=2):
        result = run("graph", "--site", "quiet", "--broker", broker.url, "--timeout", "0.5", code=5)
    assert "no links were reported within 0.5 s" in result.stderr


def test_a_torus_that_is_a_ring_says_so(run: Run) -> None:
    assert run("graph", "torus", "--nodes", "17").stdout.startswith("torus (a ring: 17 nodes make no grid): 17 nodes")
    assert run("graph", "torus", "--nodes", "16").stdout.startswith("torus: 16 nodes")


def test_one_node_alone_has_nobody_to_hear(run: Run) -> None:
    assert run("graph", "ring", "--nodes", "1").stdout.splitlines() == [
        "ring: 1 node, 0 links", "Nobody to hear: it learns alone. A graph takes two nodes or more.",
    ]  # fmt: skip


def test_without_matplotlib_a_picture_ends_with_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*(name for name in sys.modules if name.partition(".")[0] == "matplotlib"), "matplotlib"}:
        monkeypatch.setitem(sys.modules, name, None)
    result = run("graph", "ring", "--nodes", "4", "--picture", "x.png", "--write", "ring.edges", code=1)
    assert "no picture: it needs matplotlib" in result.stderr and "bug" not in result.stderr
    assert Path("ring.edges").exists() and not Path("x.png").exists()
