from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run

from edgeswarm.cli.plan import UNNAMED

FIELDS = {
    "nodes", "features", "classes", "model", "graph", "boards", "traffic_per_day_mb", "goal", "samples_per_day",
    "days_of_data", "choice", "examined_rows", "next_best", "reasons", "duration_s", "methods", "config", "model_file",
}  # fmt: skip
OF_A_METHOD = {
    "settings", "told", "period_s", "sent_bytes", "received_bytes", "link_bytes", "most", "age_s", "memory_bytes",
    "step_s", "limited_by", "refused", "day_bytes", "played", "failed", "over",
}  # fmt: skip


def samples(path: str, rows: int = 240) -> None:
    """Four clouds, written as a table."""
    rng = np.random.default_rng(0)
    centres = 3.0 * rng.standard_normal((4, 5))
    lines = ["a,b,c,d,e,kind"]
    for at in range(rows):
        numbers = centres[at % 4] + rng.standard_normal(5)
        lines.append(",".join(f"{number:.4f}" for number in numbers) + f",k{at % 4}")
    Path(path).write_text("\n".join(lines) + "\n")


def test_by_formula_alone(run: Run, run_json: Callable[..., Any]) -> None:
    words = ("plan", "--features", "30", "--classes", "3", "--nodes", "20", "--graph", "ring", "--board", "pi-4",
             "--board", "pi-zero-2w", "--link", "5000", "--traffic-per-day", "8")  # fmt: skip
    data = run_json(*words)
    assert set(data) == FIELDS and (data["nodes"], data["features"], data["classes"]) == (20, 30, 3)
    assert data["boards"] == ["pi-4", "pi-zero-2w"] and data["graph"] == {"kind": "ring", "mean_degree": 2.0}
    for method in data["methods"].values():
        assert set(method) == OF_A_METHOD and method["played"] is None
        assert method["day_bytes"] <= 8e6 * (1 + 1e-9) and set(method["memory_bytes"]) == {"pi-4", "pi-zero-2w"}
    assert data["reasons"][0].startswith("by rule, nothing was simulated") and data["methods"]["d_psgd"]["age_s"] > 5
    text = run(*words).stdout
    assert text.startswith(f"take {data['choice']}\n") and "20 devices, 30 features, 3 classes" in text
    assert "estimates from the profiles, not measured there" in text and f'name = "{data["choice"]}"' in text


def test_a_site_in_a_file(run_json: Callable[..., Any]) -> None:
    Path("swarm.toml").write_text(
        '[swarm]\nnodes = 5\n[graph]\nkind = "ring"\n[strategy]\nname = "d_psgd"\nsteps = 3\n'
        '[boards]\nprofile = "pi-5"\n'
    )
    data = run_json("plan", "--config", "swarm.toml", "--features", "8", "--classes", "2", "--nodes", "6")
    assert data["nodes"] == 6 and data["boards"] == ["pi-5"]
    assert data["methods"]["d_psgd"]["settings"]["steps"] == 3 and data["methods"]["gatta"]["settings"]["steps"] == 3


def test_on_samples_of_ones_own(run: Run, run_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one: every method that fits is really played."""
    pytest.importorskip("onnxruntime")
    from edgeswarm.sim import plan as plans

    monkeypatch.setattr(plans, "ROUNDS", 5)
    samples("mine.csv")
    words = ("plan", "--data", "mine.csv", "--label", "kind", "--nodes", "4", "--graph", "ring")
    data = run_json(*words, "--samples-per-day", "30", "--goal", "own", "-q")
    assert (data["features"], data["classes"], data["days_of_data"]) == (5, 4, 2.0)
    played = {name: method["played"] for name, method in data["methods"].items() if method["played"]}
    assert set(played) == set(data["methods"]), {name: each["failed"] for name, each in data["methods"].items()}
    assert data["choice"] in played and played["isolated"]["accuracy_own"] > 0.4
    assert data["samples_per_day"] == 30.0
    text = run(*words, "-q").stdout
    assert text.startswith("take ") and "virtual time on a sample, examined with 48 rows." in text
    assert "a day with 1,000 samples of each device (assumed: --samples-per-day says otherwise)" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--features", "3"), "give --data, or both --features and --classes"),
        (("--features", "3", "--classes", "2", "--data", "x.csv"), "give --data, or both"),
        (("--data", "missing.csv"), "missing.csv"),
        (("--board", "pi-9", "--features", "3", "--classes", "2"), "no firmware profile is called 'pi-9'"),
        (("--graph", "star", "--features", "3", "--classes", "2"), "kind cannot be 'star'"),
        (("--graph", "dyck", "--features", "3", "--classes", "2"), "exactly 32"),
        (("--set", "strategy", "--features", "3", "--classes", "2"), "KEY=VALUE"),
        (("--model", "missing.esm", "--features", "3", "--classes", "2"), "missing.esm"),
    ],
)
def test_one_line_says_what_is_wrong(run: Run, words: tuple[str, ...], says: str) -> None:
    result = run("plan", *words, code=2)
    assert says in result.stderr.strip().splitlines()[-1]


def test_what_is_recommended_is_a_devices_config(
    run: Run, run_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sections and the model are such as an agent takes, and a simulation with them is the one without."""
    pytest.importorskip("onnxruntime")
    from edgeswarm.sim import plan as plans

    monkeypatch.setattr(plans, "by_rule", lambda goal: ("gatta",))
    samples("mine.csv")
    Path("node").mkdir()
    words = ("plan", "--data", "mine.csv", "--label", "kind", "--nodes", "4", "--graph", "ring", "--no-simulation")
    data = run_json(*words, "--model-out", "node/site.esm", "--write", "node/part.toml")
    assert data["choice"] == "gatta" and data["model_file"] == "node/site.esm"
    assert data["config"]["model"] == {"path": "site.esm"} and data["config"]["graph"] == {"kind": "ring"}
    part = Path("node/part.toml").read_text()
    assert part.startswith('[strategy]\nname = "gatta"\n')
    head = 'node = "pi-1"\n[broker]\nurl = ["mqtt://localhost:1"]\n[source]\nkind = "csv"\npath = "../mine.csv"\n'
    Path("node/node.toml").write_text(f'{head}label = "kind"\n{part}')
    assert "good; node pi-1" in run("config", "check", "node/node.toml").stdout
    found = {each["name"]: each for each in run_json("doctor", "--config", "node/node.toml", code=6)["checks"]}
    assert all(found[name]["status"] == "ok" for name in ("model-file", "graph", "method")), found
    swarm = ("--set", "swarm.nodes=4", "--set", "swarm.duration_s=40", "--set", "data.path=mine.csv",
             "--set", "data.label=kind", "-q")  # fmt: skip
    with_model = run_json("simulate", "--config", "node/part.toml", *swarm)
    Path("node/bare.toml").write_text(part.partition("[model]")[0] + '[graph]\nkind = "ring"\n')
    without = run_json("simulate", "--config", "node/bare.toml", *swarm)
    assert with_model["nodes"] == without["nodes"] and with_model["summary"]["rounds"] == 4.0


def test_named_devices_get_the_graph_that_was_simulated(run: Run, run_json: Callable[..., Any]) -> None:
    """With names in [graph] an agent has the very graph of the plan; without, it has to be told what belongs there."""
    words = ("plan", "--features", "8", "--classes", "2", "--graph", "ring", "-q")
    Path("swarm.toml").write_text('[swarm]\nnodes = 4\nnames = ["south", "north", "east", "west"]\n')
    data = run_json(*words, "--config", "swarm.toml", "--write", "part.toml")
    names = ["east", "north", "south", "west"]
    assert data["config"]["graph"] == {"kind": "ring", "names": names}
    assert "# names" not in Path("part.toml").read_text()
    assert run_json("graph", "--config", "part.toml")["nodes"] == names
    assert run_json(*words[:-3], "-q", "--config", "swarm.toml")["config"]["graph"] == {"names": names}
    text = run(*words).stdout
    assert text.endswith(f'[graph]\nkind = "ring"\n{chr(10).join(UNNAMED)}\n')
    Path("hall.txt").write_text("north east\neast south\nsouth west\n")
    words = (*words[:5], "--set", "graph.kind=edges", "--set", "graph.file=hall.txt", "--config", "swarm.toml", "-q")
    assert run_json(*words)["config"]["graph"] == {"kind": "edges", "file": "hall.txt"}


def test_without_files_the_sections_say_what_to_make(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from edgeswarm.sim import plan as plans

    samples("mine.csv")
    words = ("plan", "--data", "mine.csv", "--label", "kind", "--no-simulation")
    monkeypatch.setattr(plans, "by_rule", lambda goal: ("multi_headed_distillation",))
    text = run(*words).stdout
    assert "[model]\n# path: a model for your samples, the same file on every device; --model-out FILE makes it" in text
    assert "edgeswarm public make mine.csv --label kind --rows 200 -o public.npz" in text
    monkeypatch.setattr(plans, "by_rule", lambda goal: ("prototype_gossip",))
    bare = run(*words, "--graph", "ring", "--model-out", "site.esm")
    assert "prototype_gossip trains no model: nothing is written to site.esm" in bare.stderr
    assert not Path("site.esm").exists() and "[model]" not in bare.stdout and "[graph]" not in bare.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--features", "3", "--classes", "2", "--model-out", "x.esm"), "without samples none is made: give --data"),
        (("--model", "mine.esm", "--model-out", "x.esm"), "there is a model already"),
        (("--data", "mine.csv", "--label", "kind", "--model-out", "mine.csv"), "mine.csv is in the way"),
        (("--data", "mine.csv", "--label", "kind", "--no-simulation", "--write", "no/x.toml"), "--write: no such file"),
    ],
)
def test_what_cannot_be_kept_is_one_line(run: Run, words: tuple[str, ...], says: str) -> None:
    samples("mine.csv")
    result = run("plan", *words, code=2)
    assert says in result.stderr.strip().splitlines()[-1] and not Path("x.esm").exists()


def test_samples_are_read_as_simulate_reads_them(run: Run, run_json: Callable[..., Any]) -> None:
    samples("mine.csv")
    words = ("plan", "--data", "mine.csv", "--label", "kind", "--no-simulation", "--set")
    Path("one.csv").write_text("a,kind\n1,k\n2,k\n3,k\n")
    for given, says in (
        (("plan", "--data", "one.csv", "--label", "kind"), "one: one class alone ('k')"),
        ((*words, "data.test_path=nosuch.csv"), "nosuch.csv"),
        ((*words, "data.test_path=one.csv"), "one.csv"),
    ):
        assert says in run(*given, code=2).stderr.strip().splitlines()[-1]
    Path("hall").mkdir()
    for at in range(4):
        samples(f"hall/site-{at}.csv", 40)
    site = ("--data", "hall", "--label", "kind", "--set", "data.split=files", "--nodes", "4", "--no-simulation")
    assert run_json("plan", *site)["features"] == 5


def test_plan_and_compare_ask_for_the_same_unless_told() -> None:
    from edgeswarm.cli.compare import command as compare
    from edgeswarm.cli.plan import command as plan

    (goal,) = (each for each in plan.params if each.name == "goal")
    (exam,) = (each for each in compare.params if each.name == "exam")
    assert goal.default == exam.default == "common"


@pytest.mark.parametrize("verb", ["plan", "simulate"])
def test_a_mu_that_the_graph_does_not_bear_is_refused_alike(run: Run, verb: str) -> None:
    keys = {"strategy.name": "global_update_tracking", "strategy.mu": "0.9", "swarm.nodes": "16"}
    words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    alone = ("--features", "3", "--classes", "2", "--no-simulation") if verb == "plan" else ()
    result = run(verb, *alone, *words, "--set", "graph.kind=torus", code=2)
    said = (
        "edgeswarm: [strategy] global_update_tracking: mu is below 0.333 on this graph, not 0.9: set 0, or weights lazy"
    )
    assert result.stderr == f"{said}\n" and not result.stdout


def test_what_is_set_for_one_method_rules_out_others_that_cannot_bear_it(run_json: Callable[..., Any]) -> None:
    words = ("plan", "--features", "3", "--classes", "2", "--nodes", "16", "--graph", "torus", "--set")
    data = run_json(*words, "strategy.name=global_update_tracking_paper", "--set", "strategy.mu=0.9")
    tracking = data["methods"]["global_update_tracking"]
    assert data["choice"] == "d_psgd" and tracking["refused"].startswith("mu is below 0.333 on this graph")
    data = run_json(*words, "strategy.name=global_update_tracking", "--set", "strategy.ask=true")
    assert data["choice"] == "global_update_tracking" and data["methods"]["d_psgd"]["settings"]["ask"]
    assert "ask" not in data["methods"]["gatta"]["settings"], "it has no such knob"


def test_one_device_learns_alone(run: Run, run_json: Callable[..., Any]) -> None:
    words = ("plan", "--features", "3", "--classes", "2", "--nodes", "1")
    data = run_json(*words)
    assert data["choice"] == "isolated" and data["reasons"] == ["one device has nobody to share with"]
    refused = {name: each["refused"] for name, each in data["methods"].items()}
    assert not refused.pop("isolated") and set(refused.values()) == {"one device has nobody to share with"}
    assert not any(each["most"] for each in data["methods"].values()) and "<" not in run(*words).stdout.split("\n\n")[1]


def test_the_rate_of_the_config_is_the_day(run_json: Callable[..., Any]) -> None:
    words = ("plan", "--features", "3", "--classes", "2", "--set", "data.rate_per_s=0.5")
    assert run_json(*words)["samples_per_day"] == 43_200.0
    assert run_json(*words, "--samples-per-day", "20")["samples_per_day"] == 20.0
