"""Wrong input at the verbs that simulate: one line that says what is wrong, exit code 2, no run, no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_world import Run

pytest.importorskip("joblib", reason="sweeps are handed out by joblib")
pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")
pytest.importorskip("onnxruntime")

SHORT = ("--set", "swarm.duration_s=20", "--set", "report.every_s=10", "--set", "swarm.nodes=4", "-q")
MINE = ("--set", "data.path=mine.csv")
EDGES = ("--set", "graph.kind=edges", "--set", "graph.file=apart.txt")


@pytest.fixture
def files(run: Run) -> None:
    """Samples of 5 numbers, of one class, and of none; a model and a public set for them; a graph in two parts."""
    rng = np.random.default_rng(0)
    rows = [",".join(f"{value:.3f}" for value in rng.normal(at % 3, 0.3, 5)) + f",k{at % 3}" for at in range(120)]
    head = "a,b,c,d,e,label"
    Path("mine.csv").write_text("\n".join([head, *rows]) + "\n")
    Path("one.csv").write_text("\n".join([head, *rows[::3]]) + "\n")
    Path("none.csv").write_text(head + "\n")
    Path("apart.txt").write_text("n1 n2\nn3 n4\n")
    run("plan", "--data", "mine.csv", "--no-simulation", "--model-out", "five.esm", "--traffic-per-day", "1000", "-q")
    run("public", "make", "mine.csv", "--rows", "30", "-o", "five.npz", "-q")
    run("public", "make", "mine.csv", "--rows", "30", "--labels", "u,v,w", "-o", "other.npz", "-q")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("simulate", *SHORT, *EDGES), "the graph falls apart: news of n1 and of n3"),
        (("sweep", *SHORT, *EDGES, "--over", "seed=1,2"), "the graph falls apart"),
        (("compare", *SHORT, *EDGES), "the graph falls apart"),
        (("plan", "--nodes", "4", "-q", *EDGES), "the graph falls apart"),
        (("simulate", "--set", "swarm.nodes=8", "--set", "graph.kind=circulant", "--set", "strategy.mu=0.95", "--set",
          "strategy.name=global_update_tracking", "-q"), "mu is below 0.914 on this graph"),
        (("simulate", *SHORT, "--set", "strategy.name=d_psgd", "--set", "model.path=five.esm"), "takes 5 numbers"),
        (("plan", "--model", "five.esm", "--nodes", "4", "-q"), "takes 5 numbers"),
        (("compare", *SHORT, "--model", "five.esm", "--methods", "d_psgd", "--jobs", "1"), "takes 5 numbers"),
        (("sweep", *SHORT, "--set", "strategy.name=d_psgd", "--set", "model.path=five.esm", "--over", "seed=1,2",
          "--jobs", "1"), "takes 5 numbers"),
        (("simulate", *SHORT, *MINE, "--set", "strategy.name=multi_headed_distillation", "--set",
          "public.path=other.npz"), "public set does not name the class 'k0'"),
        (("simulate", *SHORT, "--set", "strategy.name=prototype_distillation", "--set", "public.path=five.npz"),
         "its rows have 5 numbers, the samples have 64"),
        (("simulate", *SHORT, "--set", "data.path=one.csv"), "one class alone ('k0')"),
        (("simulate", *SHORT, "--set", "data.path=none.csv"), "none.csv: holds no labelled sample"),
        (("simulate", *SHORT, "--set", "data.path=missing.csv"), "missing.csv; check the path"),
        (("sweep", *SHORT, "--set", "data.path=missing.csv", "--over", "seed=1,2", "--jobs", "1"), "missing.csv"),
        (("compare", *SHORT, "--data", "missing.csv", "--methods", "isolated", "--jobs", "1"), "missing.csv"),
        (("plan", "--data", "missing.csv"), "missing.csv; check the path"),
        (("simulate", "--set", "swarm.node=3"), "unknown key 'node'; did you mean 'nodes'?"),
        (("simulate", "--replay", "mine.csv"), "mine.csv:1: not JSON"),
    ],
)  # fmt: skip
def test_one_line_and_2(run: Run, words: tuple[str, ...], says: str) -> None:
    lines = run(*words, code=2).stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("edgeswarm: ") and says in lines[0], lines


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("data", "says"),
    [("one.csv", "one class alone ('k0')"), ("none.csv", "holds no labelled sample"), ("missing.csv", "check the path"),
     ("rare.csv", "class 'x' has 1 row")],
)  # fmt: skip
def test_a_comparison_reads_the_samples_before_it_plays_anything(run: Run, data: str, says: str) -> None:
    Path("rare.csv").write_text(Path("mine.csv").read_text() + "1,2,3,4,5,x\n")
    lines = run("compare", *SHORT[:-1], "--data", data, "--jobs", "1", "--folder", "kept", code=2).stderr.splitlines()
    assert len(lines) == 1 and says in lines[0] and not Path("kept").exists(), lines


def test_a_comparison_that_was_played_is_kept_and_belongs_to_its_samples(run: Run) -> None:
    words = ("compare", "--nodes", "3", "--time", "12", "--methods", "isolated", "--data", "some.csv", "--jobs", "1",
             "--backend", "reference", "--folder", "kept", "-q")  # fmt: skip
    rows = [f"{at % 2}.{at},{at},k{at % 2}" for at in range(40)]
    Path("some.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    said = run(*words).stdout
    assert run(*words).stdout == said
    Path("some.csv").rename("other.csv")
    assert "some.csv" in run(*words, code=2).stderr
    Path("other.csv").rename("some.csv")
    assert run(*words).stdout == said


def test_a_short_comparison_needs_no_other_key(run: Run) -> None:
    said = run("compare", "--nodes", "3", "--time", "12", "--methods", "isolated", "--set", "data.per_node=40",
               "--jobs", "1", "--backend", "reference", "-q")  # fmt: skip
    assert "In equal time" in said.stdout
