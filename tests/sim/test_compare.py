"""Curves, cuts and tables of a comparison, on numbers that can be checked by hand, and a small comparison for real."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeswarm.cli import group
from edgeswarm.errors import ConfigError
from edgeswarm.models.perceptron import perceptron
from edgeswarm.sim import compare as module
from edgeswarm.sim import sweep
from edgeswarm.sim.compare import (
    EXAMS,
    LOOKS,
    TENTHS,
    TIMES,
    Curve,
    budgets,
    by_bytes,
    by_time,
    cells,
    chosen,
    compare,
    looks,
)  # fmt: skip
from edgeswarm.sim.compare import sentences as notes_of
from edgeswarm.sim.estimate import Demand, Place, estimates
from edgeswarm.sim.methods import GOALS
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import load
from edgeswarm.strategies import STRATEGIES


def curve(method: str, bytes_: tuple[float, ...], own: tuple[float, ...]) -> Curve:
    times = tuple(10.0 * (at + 1) for at in range(len(own)))
    return Curve(method, times, bytes_, {"own": own, "common": tuple(v / 2 for v in own)}, 3.0, None, 1)


FRUGAL = curve("prototype_gossip", (100.0, 200.0, 300.0), (0.5, 0.6, 0.7))
DEAR = curve("d_psgd", (1_000.0, 50_000.0, 99_000.0), (0.2, 0.6, 0.9))


def test_between_two_examinations_lies_a_straight_line() -> None:
    assert DEAR.for_bytes(25_500.0, "own") == pytest.approx(0.4)
    assert DEAR.for_bytes(25_500.0, "common") == pytest.approx(0.2)
    assert DEAR.in_time(15.0, "own") == pytest.approx(0.4)
    assert DEAR.for_bytes(1e9, "own") == DEAR.in_time(math.inf, "own") == 0.9, "it has no more to say"
    assert DEAR.for_bytes(999.0, "own") is None is DEAR.in_time(9.9, "own"), "nobody has looked yet"
    assert Curve("gatta", failed=("why",)).for_bytes(1e9, "own") is None


def test_budgets_are_round_and_lie_between_the_cheapest_and_the_dearest() -> None:
    assert budgets([FRUGAL, DEAR]) == (100.0, 1_000.0, 10_000.0)
    assert budgets([FRUGAL, curve("d_psgd", (1e8,), (0.5,))])[-1] == 1e7
    assert budgets([FRUGAL]) == (100.0,)
    silent = curve("isolated", (50.0,), (0.9,))
    late = curve("gatta", (20_000.0, 50_000.0), (0.4, 0.5))
    assert budgets([late]) == (100_000.0,), "for 10 kB it has learnt nothing yet"
    assert budgets([replace(late, bytes=(20_000.0, 500_000.0))]) == (100_000.0,)
    assert budgets([late, FRUGAL]) == (100.0, 1_000.0, 10_000.0)
    assert budgets([silent, DEAR]) == (10_000.0,) and budgets([Curve("gatta")]) == () == budgets([silent])


def test_tables_are_in_order_and_say_what_is_a_control() -> None:
    heads, rows = by_bytes([DEAR, FRUGAL, Curve("gatta", failed=("why",))], (300.0, 25_500.0), "own")
    assert heads == ["method", "", "for 300 B", "for 25.5 kB", "spent"]
    assert rows == [
        ["prototype_gossip", "", "70.0 %", "70.0 %", "300 B"],
        ["d_psgd", "", "-", "40.0 %", "99.0 kB"],
    ]
    assert by_bytes([curve("gossip_learning", (1.0,), (0.5,))], (300.0,), "own")[1][0][1] == "control"
    heads, rows = by_time([FRUGAL, DEAR], "own")
    assert heads == ["method", "", "after 3 s", "after 9 s", "after 30 s", "rounds", "age", "spent"]
    assert [row[0] for row in rows] == ["d_psgd", "prototype_gossip"] and rows[0][4:] == ["90.0 %", "3", "-", "99.0 kB"]
    assert by_time([], "own") == ([], [])


def outcome(*shares: float | None) -> Outcome:
    """Of two devices, the second of which is right half as often."""
    count = len(shares)
    nodes = tuple(
        NodeOutcome(name, "", 9, {}, own, own, (None,) * count, (0,) * count, tuple(range(1, count + 1)),
                    (None,) * count, (1,) * count, (True,) * count)
        for name, own in (("n1", shares), ("n2", tuple(share and share / 2 for share in shares)))
    )  # fmt: skip
    times = tuple(10.0 * at for at in range(1, count + 1))
    return Outcome({"strategy": {"name": "d_psgd", "rate": 0.5}}, "", nodes, times)


def test_before_the_first_training_there_is_nothing_to_show() -> None:
    late = module._curve("d_psgd", [outcome(None, None, 0.8, 0.0)], ())
    assert (
        late.at_s == (30.0, 40.0)
        and late.bytes == (3.0, 4.0)
        and late.plain()["accuracy_own"] == pytest.approx([0.6, 0.0])
    )
    assert late.in_time(20.0, "own") is None is late.for_bytes(2.5, "own")
    assert late.in_time(30.0, "own") == pytest.approx(0.6) and late.in_time(40.0, "own") == 0.0, "it may well forget"
    both = module._curve("d_psgd", [outcome(None, None, 0.8), outcome(None, 0.8, 0.8)], ())
    assert both.at_s == (30.0,), "in one of the runs nothing was known at 20 s"
    never = module._curve("d_psgd", [outcome(None, 0.0)], ())
    assert never.in_time(math.inf, "own") == 0.0 and never.at_s == (20.0,), "never right at all is a result"
    mute = module._curve("d_psgd", [outcome(None, None)], ())
    assert mute.runs == 0 and mute.failed == ("no device had an answer in all its runs",)


def test_looks_are_close_together_at_first_and_at_the_tenths_of_the_table() -> None:
    for duration_s, period_s in ((600.0, 10.0), (3_000.0, 10.0), (604_800.0, 10.0), (30.0, 10.0), (5.0, 10.0)):
        times = looks(duration_s, period_s)
        assert list(times) == sorted(set(times)) and times[-1] == duration_s and LOOKS <= len(times) <= LOOKS + TENTHS
        assert times[0] == pytest.approx(min(duration_s, period_s) / 10)
        assert {round(part * duration_s, 6) for part in TIMES} <= set(times)
        assert max(late / early for early, late in pairwise(times)) < 2, "no two first rounds between two looks"
        assert max(late - early for early, late in pairwise(times)) <= duration_s / TENTHS + 1e-5


def test_a_run_is_examined_at_the_times_that_are_given_and_at_its_end() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    said = {"swarm.nodes": 2, "swarm.duration_s": 11.0, "report.every_s": 11.0, "data.per_node": 40, "model.hidden": 4,
            "strategy.name": "isolated", "data.split": "iid"}  # fmt: skip
    for given, at_s in (("0.003,10,4", (0.003, 4.0, 10.0, 11.0)), ("11,2,2", (2.0, 11.0)), ("", (11.0,))):
        found = run(load(None, said | {"report.at_s": given}), backend="reference")
        assert found.at_s == at_s
        assert [value is not None for value in found.nodes[0].accuracy] == [at >= 10 for at in at_s]


def test_the_axis_of_bytes_begins_where_something_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    figures: list[Any] = []
    monkeypatch.setattr(module, "saved", lambda figure, path: figures.append(figure) or path)
    module.draw([module._curve("d_psgd", [outcome(None, None, 0.8, 0.9)], ())], "a title", "own", tmp_path)
    assert len(figures) == 2
    for figure in figures:
        assert all(min(line.get_ydata()) > 50 for line in figure.axes[0].lines if len(line.get_ydata()))


def test_every_strategy_is_compared_unless_some_are_named() -> None:
    assert set(chosen(())) == set(STRATEGIES) and set(EXAMS) == set(GOALS)
    assert chosen(("isolated", "d_psgd", "isolated")) == ("isolated", "d_psgd")
    with pytest.raises(ConfigError, match="'d_sgd' is no method; did you mean 'd_psgd'"):
        chosen(("d_sgd",))


def test_knobs_go_to_the_methods_that_have_them() -> None:
    scenario = load(None, {"swarm.duration_s": "80"})
    found = cells(scenario, ("d_psgd", "prototype_gossip"), {"rate": "0.05"}, 2)
    assert [cell.scenario.strategy.name for cell in found] == ["d_psgd"] * 2 + ["prototype_gossip"] * 2
    assert [cell.scenario.swarm.seed for cell in found] == [0, 1, 0, 1]
    knobs = {"rate": 0.05, "scheme": "int8"}
    assert dict(found[0].scenario.strategy.knobs) == knobs and not found[2].scenario.strategy.knobs
    assert {cell.scenario.report.at_s for cell in found} == {looks(80.0, 10.0)}
    (slow,) = cells(scenario, ("d_psgd",), {"period_s": "40"}, 1)
    assert slow.scenario.report.at_s == looks(80.0, 40.0)
    with pytest.raises(ConfigError, match="no method has such a knob; did you mean 'rate'"):
        cells(scenario, ("d_psgd",), {"rat": "1"}, 1)


def test_methods_are_compared_as_they_are_planned() -> None:
    """What a plan would recommend is what a comparison plays; what the reader sets goes before both."""
    for said in ({}, {"strategy.name": "d_psgd", "strategy.rate": 0.02}):
        scenario = load(None, {"swarm.nodes": "6", "graph.kind": "ring", **said})
        flat = np.zeros(4, np.float32)
        card = perceptron(["a", "b"], flat, flat + 1, 8, heads=scenario.model.heads).card
        graph = scenario.topology().graph(scenario.names[0], scenario.names)
        where = Place(scenario, graph, 4, 2, card, card, 50)
        for exam in EXAMS:
            planned = {each.method: dict(each.settings) for each in estimates(where, Demand(1e15, exam))}
            for cell in cells(scenario, tuple(planned), {}, 1, exam):
                mine = planned[cell.scenario.strategy.name]
                assert {**dict(cell.scenario.strategy.knobs), "period_s": mine["period_s"]} == mine
                assert not said or mine.get("rate", 0.02) == 0.02
    (tracking,) = cells(load(None, {}), ("global_update_tracking",), {}, 1)
    assert tracking.scenario.strategy.knobs["rate"] == 0.1, "plain steps: 0.01 would be a tenth of the others'"
    file = load(None, {"strategy.name": "d_psgd", "strategy.scheme": "float32"})
    for knobs, scheme in (({}, "float32"), ({"scheme": "int4"}, "int4")):
        (cell,) = cells(file, ("gossip_learning",), knobs, 1)
        assert cell.scenario.strategy.knobs["scheme"] == scheme


def test_where_all_classes_count_alike_the_shared_head_answers() -> None:
    scenario = load(None, {"swarm.duration_s": "80", "swarm.nodes": "6", "graph.kind": "ring"})
    names = ("multi_headed_distillation", "fedmd", "d_psgd")

    full = load(None, {"swarm.nodes": "6", "graph.kind": "full"})

    def serving(exam: str, knobs: dict[str, str], given: Any = scenario) -> list[tuple[Any, Any]]:
        found = [cell.scenario.strategy.knobs for cell in cells(given, names, knobs, 1, exam)]
        return [(knobs.get("ranks"), knobs.get("serve")) for knobs in found]

    assert serving("own", {}) == [(3, 0), (1, 0), (None, None)]
    assert serving("own", {"serve": "2"}, full)[0] == (2, 2), "a head that is to answer learns"
    assert serving("common", {}) == [(3, 3), (1, 1), (None, None)], "a ring of six is three hops wide"
    assert serving("common", {}, full) == [(1, 1), (1, 1), (None, None)]
    assert serving("common", {"ranks": "2"}) == [(2, 2), (2, 2), (None, None)]
    assert serving("common", {"ranks": "0", "serve": "1"})[0] == (0, 1)


def test_settings_that_are_not_a_methods_own_are_said() -> None:
    here, there = replace(DEAR, settings={"scheme": "int8"}), replace(FRUGAL, method="gatta", settings={"rate": 0.1})
    assert notes_of([here, there]) == [
        "rate 0.1, not the method's own: gatta", "scheme int8, not the method's own: d_psgd",
    ]  # fmt: skip
    both = [here, replace(there, settings={"scheme": "int8"})]
    assert notes_of(both) == ["scheme int8, not the method's own: all"]
    assert notes_of([DEAR, FRUGAL]) == [] == notes_of([replace(here, runs=0)])


SMALL = ["--time", "40", "--nodes", "3", "--set", "data.limit_rows=300", "--set", "strategy.period_s=4", "--jobs", "1"]


def invoke(*words: str) -> Any:
    return CliRunner().invoke(group, ["compare", *words])


def test_a_small_comparison_says_the_same_twice_and_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    words = [*SMALL, "--methods", "d_psgd,isolated", "--folder", str(tmp_path), "--json"]
    first = invoke(*words)
    assert first.exit_code == 0, first.output + first.stderr
    data = json.loads(first.stdout)
    by_name = {each["method"]: each for each in data["methods"]}
    shared, alone = by_name["d_psgd"], by_name["isolated"]
    assert len(shared["at_s"]) > LOOKS / 3 and not shared["control"] and shared["runs"] == 1
    assert min(shared["accuracy_own"]) > 0 and 4 <= shared["at_s"][0] < 4.5, "the first round is at 4 s"
    played = data["scenario"]
    assert "strategy" not in played and tuple(played["report"]["at_s"]) == looks(40.0, 4.0) and data["seeds"] == [0]
    assert shared["strategy"]["name"] == "d_psgd" and shared["strategy"]["period_s"] == 4.0
    assert shared["strategy"]["scheme"] == "int8" and alone["strategy"]["name"] == "isolated"
    assert shared["bytes"] == sorted(shared["bytes"]) and shared["bytes"][-1] > 10 * alone["bytes"][-1]
    assert shared["accuracy_own"][-1] > 0.2 and shared["rounds"] == 10
    assert shared["settings"] == {"scheme": "int8", "period_s": 4.0} and alone["settings"] == {"period_s": 4.0}
    assert set(data["for_bytes"]) == {"d_psgd", "isolated"}
    again = invoke(*words)
    assert json.loads(again.stdout) == data and "1 of 2" not in again.stderr, "nothing is played twice"
    text = invoke(*words[:-1], "--bytes", "50000")
    assert "for 50.0 kB" in text.stdout and "In equal time" in text.stdout
    assert "note: scheme int8, not the method's own: d_psgd\n" in text.stdout


def test_other_rows_at_the_same_path_are_played_and_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    data, rng = tmp_path / "mine.csv", np.random.default_rng(1)
    words = ["--data", str(data), "--label", "kind", "--time", "20", "--nodes", "2", "--methods", "isolated",
             "--set", "strategy.period_s=4", "--jobs", "1", "--folder", str(tmp_path / "kept"), "--json"]  # fmt: skip
    found = []
    for labels in (np.arange(200) % 2, rng.integers(0, 2, 200)):
        lines = [f"{at % 2 + 0.01 * at % 0.3:.3f},{at % 3},{'ab'[label]}" for at, label in enumerate(labels)]
        data.write_text("\n".join(["x,z,kind", *lines]) + "\n")
        result = invoke(*words)
        assert result.exit_code == 0, result.output + result.stderr
        found.append(json.loads(result.stdout)["methods"][0]["accuracy_common"][-1])
    assert found[0] > 0.8 > 0.7 > found[1], "labels by chance cannot be learnt"
    data.unlink()
    gone = invoke(*words)
    assert gone.exit_code != 0 and "mine.csv" in gone.stderr and not gone.stdout
    assert len(gone.stderr.splitlines()) == 1


def test_a_process_that_is_killed_is_a_line_and_the_other_methods_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

    def ended(wanted: Any, folder: Path, *words: Any, died: Any, **named: Any) -> Any:
        outcomes = sweep.sweep(wanted, folder, *words, **named)
        died("a process was ended")
        return [*outcomes[:1], None]

    monkeypatch.setattr(module, "sweep", ended)
    result = invoke(*SMALL, "--methods", "isolated,d_psgd", "--folder", str(tmp_path))
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == "edgeswarm: a process was ended"
    assert "\nisolated " in result.stdout and "\nd_psgd " not in result.stdout


def test_a_method_that_cannot_be_played_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    scenario = load(None, {"swarm.duration_s": "40", "swarm.nodes": "3", "data.split": "iid", "data.per_node": "20"})
    bad = cells(load(None, {"swarm.duration_s": "40", "data.split": "classes_per_agent", "data.classes": "11"}),
                ("d_psgd",), {}, 1)  # fmt: skip
    good = cells(scenario, ("isolated",), {"period_s": "4"}, 1)
    curves = compare([*bad, *good], tmp_path, 1)
    assert [each.method for each in curves] == ["isolated", "d_psgd"]
    assert curves[0].runs == 1 and curves[1].runs == 0 and len(curves[1].failed) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "gut"], "is no method"),
        (["--set", "strategy.name=d_psgd"], "by --methods"),
        (["--set", "strategy.rat=1"], "no method has such a knob"),
        (["--set", "graph.kind=rign"], "did you mean 'ring'"),
        (["--data", "nowhere.csv", "--methods", "isolated", "--jobs", "1"], "nowhere.csv"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, words: list[str], said: str) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    result = invoke(*words, "--folder", str(tmp_path))
    assert result.exit_code in (1, 2) and said in result.output + result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("exam", "head"), [("own", "main head"), ("common", "auxiliary head 1")])
def test_which_head_answers_is_said_in_the_text_and_in_the_picture(tmp_path: Path, exam: str, head: str) -> None:
    pytest.importorskip("joblib", reason="runs are played in parallel by joblib")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    words = [*SMALL, "--methods", "multi_headed_distillation,isolated", "--exam", exam, "--folder", str(tmp_path)]
    text = invoke(*words).stdout
    (note,) = [line for line in text.splitlines() if line.startswith("note: multi_headed")]
    assert "multi_headed_distillation answers with " in note and head in note
    assert ("--exam common asks the last" in note) == (exam == "own")
    data = json.loads(invoke(*words, "--json").stdout)
    assert {each["method"]: each["head"] for each in data["methods"]} == {
        "multi_headed_distillation": head, "isolated": "",
    }  # fmt: skip
    curves = [Curve(each["method"], head=each["head"]) for each in data["methods"]]
    assert f"multi_headed_distillation ({head})" in [curve.title for curve in curves]
