from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run

FIELDS = {
    "nodes", "features", "classes", "model", "graph", "boards", "traffic_per_day_mb", "goal", "days_of_data", "choice",
    "next_best", "reasons", "duration_s", "methods",
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
    text = run(*words, "-q").stdout
    assert text.startswith("take ") and "a day" in text and "virtual time on a sample" in text


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
