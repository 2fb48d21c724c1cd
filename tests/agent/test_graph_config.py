"""[graph]: what is built from it, and one line about everything that is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeswarm.agent import settings
from edgeswarm.agent.config import load
from edgeswarm.agent.graph import topology
from edgeswarm.agent.settings import GraphConfig
from edgeswarm.errors import ConfigError
from edgeswarm.maths import graphs

FOUR = ("a", "b", "c", "d")


def failure(graph: GraphConfig, node: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        topology(graph, node)
    text = str(caught.value)
    assert "\n" not in text and text.startswith("[graph] ")
    return text


def file(folder: Path, text: str) -> GraphConfig:
    (folder / "edges.txt").write_text(text)
    return GraphConfig("edges", file=str(folder / "edges.txt"))


def test_the_words_here_are_those_of_the_graphs_themselves() -> None:
    assert settings.GRAPHS == graphs.KINDS and settings.WEIGHTS == graphs.WEIGHTS
    assert GraphConfig() == GraphConfig(graphs.Topology().kind, (), *(getattr(graphs.Topology(), name) for name in
        ("degree", "probability", "seed")), weights=graphs.Topology().weights)  # fmt: skip


def test_nothing_set_is_no_topology_and_a_rule_is_applied_to_whoever_is_present() -> None:
    assert topology(GraphConfig()) is None
    ring = topology(GraphConfig("ring"), "a")
    assert ring is not None and ring.graph("a", ("b", "c", "d")).neighbours("a") == ("b", "d")
    assert ring.graph("a", ("c",)).neighbours("a") == ("c",)


def test_fixed_names_keep_their_place() -> None:
    ring = topology(GraphConfig("ring", ("d", "c", "b", "a"), weights="uniform"), "c")
    assert ring is not None and ring.graph("c", ()).neighbours("c") == ("b", "d")
    assert ring.graph("c", ("x",)).row("c") == pytest.approx({"b": 1 / 3, "d": 1 / 3, "c": 1 / 3})


def test_edges_come_from_a_file_with_remarks_and_qualities(tmp_path: Path) -> None:
    made = topology(file(tmp_path, "# the hall\na b\nb  c 0.25 # weak\n\nc d 1\n"), "b")
    assert made is not None and made.names == FOUR
    assert made.graph("b", ()).neighbours("b") == ("a", "c")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no edge"),
        ("# nothing\n", "has no edge"),
        ("a b\na\n", "edges.txt:2"),
        ("a b c d\n", "edges.txt:1"),
        ("a b\n\nB c\n", "edges.txt:3"),
        ("a a\n", "edges.txt:1"),
        ("a b much\n", "edges.txt:1"),
        ("a b nan\n", "edges.txt:1"),
        ("a b\nc d\n", "falls apart: news of a and of c"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in failure(file(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in failure(GraphConfig("edges", file=str(tmp_path / "none")))
    assert "folder" in failure(GraphConfig("edges", file=str(tmp_path)))
    (tmp_path / "latin").write_bytes(b"a b # \xff")
    assert "not UTF-8" in failure(GraphConfig("edges", file=str(tmp_path / "latin")))


def test_graphs_that_cannot_be(tmp_path: Path) -> None:
    assert "degree" in failure(GraphConfig("regular", FOUR, degree=4))
    assert "probability" in failure(GraphConfig("erdos-renyi", tuple(f"n{i}" for i in range(40)), probability=0.001))
    assert "'e', is not among them" in failure(GraphConfig("ring", ("a1", "b", "c")), "e")
    assert "did you mean 'kitchen-1'" in failure(GraphConfig("ring", ("kitchen-1", "hall", "roof")), "kitchen1")
    edges = file(tmp_path, "a b\nb c\n")
    assert "'c'" in failure(GraphConfig("edges", ("a", "b"), file=edges.file))
    assert "'z', is not among them" in failure(edges, "z")


CONFIG = """node = "a"
[broker]
url = "mqtt://localhost"
[source]
kind = "csv"
path = "data.csv"
[graph]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = 'rign'", ":8: [graph] kind cannot be 'rign'; did you mean 'ring'?"),
        ("knid = 'ring'", ":8: [graph] unknown key 'knid'; did you mean 'kind'?"),
        ("weights = 'metropolitan'", ":8: [graph] weights cannot be 'metropolitan'; did you mean 'metropolis'?"),
        ("degree = 0", ":8: [graph] degree must be at least 1, not 0"),
        ("probability = 1.5", ":8: [graph] probability must be at most 1, not 1.5"),
        ("kind = 'edges'", ':8: [graph] kind = "edges" needs file to be set too'),
        ("file = 'e.txt'", ':8: [graph] file is used with kind = "edges" only, and that is "full"'),
        ("names = ['a', 'b', 'a']", ":8: [graph] names names 'a' twice"),
        ("names = ['a', 'B']", ':8: [graph] names holds what is no name: node "B" is not usable'),
        ("kind = 'ring'\nnames = ['a1', 'b']", ":9: [graph] names lacks this node, 'a'; did you mean 'a1'?"),
        ("[public]\npth = 'x'", ":9: [public] unknown key 'pth'; did you mean 'path'?"),
    ],
)
def test_the_configuration_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG + text)
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {}, tmp_path, cwd=tmp_path)
    assert said in str(caught.value)


def test_a_relative_file_is_meant_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG + "kind = 'edges'\nfile = 'e.txt'\n[public]\npath = 'p.npz'\n")
    config, _ = load(path, {}, {}, tmp_path, cwd=tmp_path)
    assert (config.graph.file, config.public.path) == (str(tmp_path / "e.txt"), str(tmp_path / "p.npz"))


def test_a_graph_of_a_file_needs_one() -> None:
    assert failure(GraphConfig("edges")) == "[graph] file is not set: kind edges needs one, with lines of two names"


def test_a_stranger_in_the_file_is_told_who_the_devices_are(tmp_path: Path) -> None:
    said = failure(replace(file(tmp_path, "a b\nb z\n"), names=("a", "b")))
    assert said.endswith("has 'z', which is none of the devices: a, b")
