"""The parts of scripts/replicate/global_update_tracking.py: lines that can fail, and that none is lost."""

from __future__ import annotations

from typing import Any

import global_update_tracking as gut
import pytest
from tables import drawn, missed

WHOLE = """
same traffic as D-PSGD
gradient tracking twice that
GUT 0.9 - D-PSGD, alpha *
  the worst agent's less that, alpha *
  consensus distance, alpha *
normalised images: GUT 0.9 - D-PSGD, alpha *
QG-GUTm 0.03, rate 0.03, is stable: - D-PSGD, alpha *
QG-GUTm 0.03 - QG-DSGDm, rate 0.03, alpha *
QG-GUTm 0.03 - D-PSGD, alpha *
normalised images: QG-GUTm 0.03 - D-PSGD, alpha *
QG-GUTm 0.06, rate 0.03, is stable: - D-PSGD, alpha *
QG-GUTm 0.06 - QG-DSGDm, rate 0.03, alpha *
QG-GUTm 0.06 - D-PSGD, alpha *
normalised images: QG-GUTm 0.06 - D-PSGD, alpha *
product form - paper's, alpha *
entropy-coded differences - paper's, alpha *
  fewer bytes, alpha *
normalised images: product form - paper's, alpha *
normalised images: entropy-coded differences - paper's, alpha *
  normalised images: fewer bytes, alpha *
int8, 2 steps - paper's, alpha *
  fewer bytes, int8, 2 steps, alpha *
product GUT - D-PSGD, 10% lost, alpha *
product GUT - D-PSGD, 30% lost, alpha *
product GUT - D-PSGD, a third asleep, alpha *
  entropy-coded, 10% lost, alpha *
  fewer bytes, 10% lost, alpha *
  entropy-coded, 30% lost, alpha *
  fewer bytes, 30% lost, alpha *
product GUT - D-PSGD, both ask again, 30% lost, alpha *
product GUT - D-PSGD, neither asks, 30% lost, alpha *
10% of differences lost wreck it, alpha *
newest copies, 10% lost, - D-PSGD that loses nothing, alpha *
  10% lost, - D-PSGD that loses nothing
  30% lost, - D-PSGD that loses nothing
  a third asleep, - D-PSGD that loses nothing
own model for what is lost, - D-PSGD, 10% lost, alpha 0.01
""".strip("\n").splitlines()
"""What a run of every arm decides, * for each alpha, besides the lines on quadratics."""


def invented() -> Any:
    """Runs in which every line is met."""
    runs = {}
    for name in gut.NAMES:
        ours = name.removeprefix(gut.NORMALISED).startswith(("GUT", "QG-GUTm", "product"))
        figures = {"mean": 80.0 + 10 * ours, "worst": 70.0 + 20 * ours, "consensus": 1 - 0.9 * ours, "seconds": 1.0}
        if name.startswith("GUT 0.9, differences, 10% lost"):
            figures["mean"] = 10.0
        traffic = 10.0 if "entropy" in name else 200.0 if name.startswith("gradient") else 100.0
        runs[name] = [{**figures, "bytes": traffic, "bytes_per_round": traffic}]
    return runs


def claims(runs: Any) -> list[str]:
    return [line.claim for line in drawn(gut.swarm_lines(), runs)]


def test_a_whole_run_decides_every_line() -> None:
    found = claims(invented())
    alphas = [f"{alpha:g}" for alpha in gut.ALPHAS]
    assert sorted(found) == sorted({each.replace("*", alpha) for each in WHOLE for alpha in alphas})
    assert [line for line in drawn(gut.swarm_lines(), invented()) if line.met is False] == []
    nothing: Any = {name: [] for name in gut.NAMES}
    assert claims(nothing) == found and len(missed(drawn(gut.swarm_lines(), nothing))) == len(found)
    reported = {line.claim for line in drawn(gut.swarm_lines(), invented()) if line.met is None}
    assert len(reported) == 20, "the rest has a number to reach"


@pytest.mark.parametrize("figure", ["mean", "worst", "consensus", "bytes", "bytes_per_round"])
def test_a_figure_under_another_name_is_missed(figure: str) -> None:
    runs = invented()
    for (one,) in runs.values():
        one["mistaken"] = one.pop(figure)
    assert claims(runs) == claims(invented())
    said = missed(drawn(gut.swarm_lines(), runs))
    assert said and all(f"no number: KeyError('{figure}')" in text for text in said)


def test_what_was_not_asked_for_leaves_its_lines_out() -> None:
    runs = {name: found for name, found in invented().items() if name.startswith(("GUT 0.9 @", "D-PSGD @"))}
    assert {each.split(",")[0] for each in claims(runs)} == {
        "same traffic as D-PSGD", "GUT 0.9 - D-PSGD", "  the worst agent's less that", "  consensus distance",
    }  # fmt: skip
    runs["GUT 0.9 @ 0.1"][0]["worst"] = 79.9
    assert missed(drawn(gut.swarm_lines(), runs)) == ["the worst agent's less that, alpha 0.1 (>= 0): -0.10"]
    assert claims({}) == []
