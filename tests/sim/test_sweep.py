"""Sweeps: which cells there are, that each is run once and kept, and what they come to."""

from __future__ import annotations

import errno
import json
import os
import signal
import statistics
import sys
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.errors import ConfigError, StateError
from edgeswarm.sim import compare, stamps, sweep_picture
from edgeswarm.sim import sweep as module
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import Scenario, load
from edgeswarm.sim.stamps import Stamps
from edgeswarm.sim.sweep import Row, cells, files, heads, parsed, plain, sweep, table, words
from edgeswarm.sim.sweep_picture import draw, label, numbers

pytest.importorskip("joblib", reason="sweeps are handed out by joblib")
pytest.importorskip("sklearn", reason="the built-in digits come with scikit-learn")

TINY = {
    "swarm.nodes": 3, "swarm.duration_s": 11.0, "report.every_s": 11.0, "data.per_node": 40, "model.hidden": 4,
    "strategy.name": "isolated", "strategy.steps": 1, "data.split": "iid",
}  # fmt: skip


def tiny(**more: Any) -> Scenario:
    return load(None, TINY | more)


def test_values_lists_and_ranges() -> None:
    found = parsed(["strategy.name=d_psgd, isolated", "seed=1..3,7", "strategy.rate=0.1"])
    assert found == {
        "strategy.name": ("d_psgd", "isolated"),
        "swarm.seed": ("1", "2", "3", "7"),
        "strategy.rate": ("0.1",),
    }
    assert parsed(["data.path=../a.csv,/b/../c.csv"]) == {"data.path": ("../a.csv", "/b/../c.csv")}, "no ranges"


def test_a_list_in_brackets_is_one_value() -> None:
    found = parsed(["network.delay_s=0, [0.02, 0.2],5"])
    assert found == {"network.delay_s": ("0", "[0.02, 0.2]", "5")}
    played = cells(tiny(), found)
    assert [cell.scenario.network.delay_s for cell in played] == [(0.0,), (0.02, 0.2), (5.0,)]
    assert played[1].setting == (("network.delay_s", "[0.02, 0.2]"),)
    with pytest.raises(ConfigError, match="the shortest and the longest"):
        cells(tiny(), {"network.delay_s": ("[3,2]",)})
    with pytest.raises(ConfigError, match="must be a number"):
        cells(tiny(), parsed(["network.delay_s=[3,2"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [("rate=1", "as strategy.name="), ("strategy.rate", "KEY=A,B,C"), ("strategy.rate=", "has no value"),
     ("seed=5..1", "a range is two whole numbers"), ("seed=a..b", "a range is"),
     ("seed=1..20000", "1..20000 is 20,000 values, at most 10,000 are run")],
)  # fmt: skip
def test_what_cannot_be_swept_over_is_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parsed([text])


def test_every_combination_once() -> None:
    over = {"strategy.name": ("isolated", "d_psgd"), "strategy.rate": ("0.1", "0.2"), "swarm.seed": ("1", "2")}
    found = cells(tiny(), over)
    assert len(found) == len({cell.key for cell in found}) == 8
    assert {(c.scenario.strategy.name, c.scenario.strategy.knobs["rate"], c.scenario.swarm.seed) for c in found} == {
        (name, rate, seed) for name in over["strategy.name"] for rate in (0.1, 0.2) for seed in (1, 2)
    }
    assert len({cell.setting for cell in found}) == 4, "seeds are repetitions"
    assert [cell.key for cell in found] == [cell.key for cell in cells(tiny(), over)]
    with pytest.raises(ConfigError, match="twice"):
        parsed(["seed=1", "swarm.seed=2"])
    with pytest.raises(ConfigError, match="has no knob 'rate'"):
        cells(tiny(), {"strategy.name": ("prototype_gossip",), "strategy.rate": ("0.1",)})
    with pytest.raises(ConfigError, match=r"1,000,000 cells"):
        cells(tiny(), {"swarm.seed": ("1",) * 1000, "data.per_node": ("1",) * 1000})


def test_a_method_that_is_named_is_played_as_compare_plays_it_but_for_what_is_given() -> None:
    over = {"strategy.name": ("global_update_tracking", "multi_headed_distillation", "d_psgd")}
    by_name = {cell.scenario.strategy.name: cell for cell in cells(tiny(), over)}
    compared = compare.cells(tiny(), over["strategy.name"], {}, 1)
    knobs = {name: cell.scenario.strategy.knobs for name, cell in by_name.items()}
    assert knobs == {cell.scenario.strategy.name: cell.scenario.strategy.knobs for cell in compared}
    assert knobs["global_update_tracking"]["rate"] == 0.1 and by_name["global_update_tracking"].tuning["rate"] == 0.1
    (given,) = cells(tiny(), {"strategy.name": ("global_update_tracking",), "strategy.rate": ("0.02",)})
    (filed,) = cells(tiny(**{"strategy.rate": 0.02}), {"strategy.name": ("global_update_tracking",)})
    for cell in (given, filed):
        assert cell.scenario.strategy.knobs["rate"] == 0.02 and "rate" not in cell.tuning
    (as_it_is,) = cells(tiny(**{"strategy.name": "global_update_tracking"}), {"swarm.seed": ("1",)})
    assert "rate" not in as_it_is.scenario.strategy.knobs, "none is named: the file's own"


def test_means_and_deviations_are_those_of_the_runs_and_what_is_kept_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = cells(tiny(), {"strategy.rate": ("0.01", "0.1"), "swarm.seed": ("1", "2")})
    told: list[int] = []
    outcomes = sweep(wanted, tmp_path, backend="reference", progress=lambda done, of, cell: told.append(done))
    assert told == [1, 2, 3, 4] and all(outcomes)
    assert outcomes[3] == run(wanted[3].scenario, backend="reference"), "a cell is a run like any other"
    rows = table(wanted, outcomes, tmp_path)
    values = [outcome.accuracy_common for outcome in outcomes[:2] if outcome is not None]
    assert [row.setting for row in rows] == [(("strategy.rate", "0.01"),), (("strategy.rate", "0.1"),)]
    assert rows[0].runs == 2 and rows[0].mean["accuracy_common"] == pytest.approx(statistics.fmean(values))
    assert rows[0].sd["accuracy_common"] == pytest.approx(statistics.stdev(values))
    assert heads(rows)[0] == "rate" and len(words(rows[0])) == len(heads(rows)) and " ± " in words(rows[0])[2]
    assert json.dumps(plain(rows)) and draw(rows, "a title", tmp_path / "p.png").stat().st_size > 10_000

    monkeypatch.setattr(module, "spread", lambda *told: pytest.fail("everything is there"))
    assert sweep(wanted, tmp_path, backend="reference") == outcomes


def test_a_sweep_that_was_stopped_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2", "3")})
    first = sweep(wanted, tmp_path, backend="reference", stop=lambda: any(tmp_path.glob("*.json")))
    assert [outcome is not None for outcome in first] == [True, False, False]
    kept = next(tmp_path.glob("*.json"))
    before = kept.stat().st_mtime_ns
    files(wanted, tmp_path, "reference")[1].write_text("cut o")  # as a power cut would never leave it, but a disk might
    whole = sweep(wanted, tmp_path, backend="reference")
    assert all(whole) and whole[0] == first[0] and kept.stat().st_mtime_ns == before


def test_a_cell_that_cannot_be_played_is_said_and_the_others_are_run(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"data.per_node": ("40", "4000")})
    outcomes = sweep(wanted, tmp_path, backend="reference")
    rows = table(wanted, outcomes, tmp_path)
    assert outcomes[0] is not None and outcomes[1] is None
    assert rows[1].runs == 0 and "too few" in rows[1].failed[0] and words(rows[1])[-1] == "-"
    assert table(wanted, sweep(wanted, tmp_path), tmp_path)[1].failed == rows[1].failed


def test_a_cell_is_tried_again_once_its_file_is_there(tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    wanted = cells(tiny(**{"data.path": str(data)}), {"swarm.seed": ("1",)})
    assert sweep(wanted, tmp_path, backend="reference") == [None]
    (failed,) = tmp_path.glob("*.failed")
    assert module.common_fault(row.failed for row in table(wanted, [None], tmp_path)) == failed.read_text()
    data.write_text(rows_of("ab"))
    assert all(sweep(wanted, tmp_path, backend="reference")) and not failed.exists()
    assert module.common_fault([("one",), ("other",)]) == module.common_fault([]) == ""


def rows_of(classes: str) -> str:
    lines = [f"{at % 2}.{at},{at % 7},{classes[at % 2]}" for at in range(400)]
    return "\n".join(["x,z,label", *lines]) + "\n"


def test_a_kept_run_is_of_the_same_files_version_and_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "mine.csv"
    data.write_text(rows_of("ab"))
    wanted = cells(tiny(**{"data.path": str(data)}), {"swarm.seed": ("1", "2")})
    played: list[int] = []

    def again(backend: str = "reference") -> list[Any]:
        played.clear()
        told = {"progress": lambda done, of, cell: played.append(done)}
        return sweep(wanted, tmp_path / "kept", backend=backend, **told)  # type: ignore[arg-type]

    first = again()
    assert played == [1, 2] and again() == first and not played
    data.write_text(rows_of("cd"))
    other = again()
    assert played == [1, 2] and other[0].nodes != first[0].nodes, "a path says nothing about what lies there"
    data.write_text(rows_of("ab"))
    assert again() == first and not played, "what was played before is there still"
    with monkeypatch.context() as patched:
        patched.setattr(stamps, "__version__", "99.0")
        assert again() == first and played == [1, 2]
    again("auto")
    assert played == [1, 2]
    data.unlink()
    assert again() == [None, None], "and not what was played while the file was there"
    assert "mine.csv" in module.common_fault(row.failed for row in table(wanted, [None, None], tmp_path / "kept"))


@pytest.mark.parametrize("key", ["data.path", "data.test_path", "model.path", "encoder.path", "public.path"])
@pytest.mark.parametrize("kind", ["file", "folder", "folder of folders"])
def test_whatever_file_a_scenario_names_counts(tmp_path: Path, key: str, kind: str) -> None:
    held = {"file": "a", "folder": "a/b", "folder of folders": "a/b/c"}[kind]
    (tmp_path / held).parent.mkdir(parents=True, exist_ok=True)
    scenario = tiny(**{key: str(tmp_path / "a")})
    found = [Stamps("auto", tmp_path / "kept").of(scenario)]
    for text in ("one", "two"):
        (tmp_path / held).write_text(text)
        found.append(Stamps("auto", tmp_path / "kept").of(scenario))
    assert len(set(found)) == 3
    if kind != "file":
        (tmp_path / held).rename((tmp_path / held).with_name("renamed"))
        assert Stamps("auto", tmp_path / "kept").of(scenario) not in found, "images have their class from a name"


def test_edges_count_and_results_that_lie_among_the_data_do_not(tmp_path: Path) -> None:
    edges = tmp_path / "edges.txt"
    edges.write_text("n1 n2\nn2 n3\n")
    scenario = tiny(**{"graph.kind": "edges", "graph.file": str(edges), "data.path": str(tmp_path)})
    before = Stamps("auto", tmp_path / "kept").of(scenario)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "run.json").write_text("{}")
    assert Stamps("auto", tmp_path / "kept").of(scenario) == before != Stamps("auto", tmp_path / "other").of(scenario)
    edges.write_text("n1 n2\nn1 n3\n")
    assert Stamps("auto", tmp_path / "kept").of(scenario) != before


def test_a_file_is_read_once_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = tmp_path / "mine.csv", []
    data.write_text(rows_of("ab"))
    monkeypatch.setattr(stamps, "_contents", lambda path, results: read.append(path) or "same")
    wanted = cells(tiny(**{"data.path": str(data)}), {"swarm.seed": ("1", "2", "3")})
    assert len(set(files(wanted, tmp_path, "auto"))) == 3 and read == [data]


def test_files_that_change_while_a_run_is_under_way_spoil_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "mine.csv"
    data.write_text(rows_of("ab"))

    def meddled(*words: Any, **named: Any) -> Any:
        found = run(*words, **named)
        data.write_text(rows_of("cd"))
        return found

    monkeypatch.setattr("edgeswarm.sim.run.run", meddled)
    wanted = cells(tiny(**{"data.path": str(data)}), {})
    assert sweep(wanted, tmp_path, backend="reference") == [None]
    assert "were changed while it was played" in table(wanted, [None], tmp_path)[0].failed[0]


def test_a_run_without_memory_is_said_and_the_others_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(scenario: Scenario, **named: Any) -> Any:
        if scenario.swarm.seed == 2:
            raise MemoryError
        return run(scenario, **named)

    monkeypatch.setattr("edgeswarm.sim.run.run", large)
    wanted = cells(tiny(), {"swarm.seed": ("1", "2", "3")})
    outcomes = sweep(wanted, tmp_path, backend="reference")
    assert [outcome is not None for outcome in outcomes] == [True, False, True]
    assert "out of memory" in table(wanted, outcomes, tmp_path)[0].failed[0]


def test_a_process_that_is_killed_costs_the_runs_that_are_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2", "3", "4")})
    monkeypatch.setattr(module, "_played", killed_at(3, tmp_path))
    died: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = sweep(wanted, tmp_path, 2, backend="reference", died=died.append)
    assert [outcome is not None for outcome in outcomes] == [True, True, False, False]
    (line,) = died
    assert "\n" not in line and "ended from outside" in line and "memory" in line
    assert "2 of 4 runs are missing: swarm.seed = 3; swarm.seed = 4;" in line
    assert table(wanted, outcomes, tmp_path)[0].runs == 2 and not any(tmp_path.glob("*.failed"))
    monkeypatch.undo()
    whole = sweep(wanted, tmp_path, backend="reference", progress=lambda done, of, cell: died.append(f"{done} of {of}"))
    assert all(whole) and whole[:2] == outcomes[:2] and died[1:] == ["2 of 4", "3 of 4", "4 of 4"]


def test_runs_under_way_end_though_the_terminal_interrupts_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, here = module._played, os.getpid()

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGINT)
        return real(key, place, plain, backend)

    monkeypatch.setattr(module, "_played", played)
    assert all(sweep(cells(tiny(), {"swarm.seed": ("1", "2")}), tmp_path, 2, backend="reference"))


def killed_at(seed: int, folder: Path) -> Any:
    """What plays a cell, but for one, whose process ends once two are kept, and those after it, which never end."""
    real = module._played

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        if plain["swarm"]["seed"] > seed:
            time.sleep(600)
        while plain["swarm"]["seed"] == seed:
            if len(list(folder.glob("*.json"))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)
        return real(key, place, plain, backend)

    return played


def test_a_folder_that_fills_up_is_one_line_without_the_pools_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*told: Any) -> None:
        raise StateError("disk full")

    def played(key: str, place: Path, plain: Any, backend: str) -> Any:
        time.sleep(600 if plain["swarm"]["seed"] == 2 else 0)
        return key, place, {}, ""

    monkeypatch.setattr(module, "_keep", full)
    monkeypatch.setattr(module, "_played", played)
    with warnings.catch_warnings(), pytest.raises(StateError, match="disk full"):
        warnings.simplefilter("error")
        sweep(cells(tiny(), {"swarm.seed": ("1", "2", "3")}), tmp_path, 2)


def test_half_a_file_does_not_stay_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, **named: Any) -> int:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StateError, match="disk full: cannot keep a run of the sweep"):
        sweep(cells(tiny(), {}), tmp_path, backend="reference")
    assert not list(tmp_path.iterdir())


def test_in_processes_of_their_own_the_numbers_are_the_same(tmp_path: Path) -> None:
    wanted = cells(tiny(), {"swarm.seed": ("1", "2")})
    assert sweep(wanted, tmp_path / "two", 2, backend="reference") == sweep(
        wanted, tmp_path / "one", backend="reference"
    )


@pytest.mark.parametrize(("where", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        sweep(cells(tiny(), {}), tmp_path, **{where: "tcp://127.0.0.1:1"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not both"):
        sweep(cells(tiny(), {}), tmp_path, dask="a", ray="b")


def row(setting: dict[str, str], own: float, common: float, spent: float, sd: float | None = None) -> Row:
    mean = {"accuracy": own, "accuracy_worst": own, "accuracy_common": common, "bytes_per_node": spent, "age_s": None}
    return Row(tuple(setting.items()), 1 if sd is None else 3, mean, dict.fromkeys(mean, sd))


NEAR = [row({"strategy.name": "d_psgd", "strategy.rate": str(at)}, 0.9, 0.5 + at, 230_000.0 + at) for at in (0.1, 0.2)]


def drawn(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure, as it was drawn."""
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    figures: list[Any] = []
    monkeypatch.setattr(sweep_picture, "saved", lambda figure, path: figures.append(figure) or path)
    draw(rows, "a title", tmp_path / "p.png")
    figures[0].draw_without_rendering()
    return figures[0]


@pytest.mark.parametrize("rows", [NEAR, [*NEAR, replace(NEAR[0], mean=NEAR[0].mean | {"bytes_per_node": 1_100.0})]])
def test_words_of_the_axis_of_bytes_do_not_lie_on_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Row]
) -> None:
    costs = drawn(rows, tmp_path, monkeypatch).axes[1]
    ticks = [text for text in costs.xaxis.get_ticklabels(which="both") if text.get_text()]
    boxes = sorted((text.get_window_extent() for text in ticks), key=lambda box: box.x0)
    assert len(boxes) > 2 and all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert len({text.get_text() for text in ticks}) == len(ticks) and all("B" in text.get_text() for text in ticks)


def test_a_colour_is_one_setting_in_both_panels_and_none_stands_for_an_exam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(NEAR, tmp_path, monkeypatch)
    bars, costs = figure.axes
    colours = [line.get_color() for line in bars.lines if len(line.get_xdata())]
    assert colours[0] == colours[1] != colours[2] == colours[3] and [line.get_color() for line in costs.lines] == [
        colours[0], colours[2],
    ]  # fmt: skip
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"own mix", "all classes alike"}
    assert {line.get_color() for line in legend.get_lines()} == {"black"}
    assert [text.get_text() for text in costs.texts] == ["1", "2"]


def test_bytes_that_lie_between_two_powers_of_ten_have_numbers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*spent: float) -> list[str]:
        axis = drawn([row({}, 0.5, 0.5, each) for each in spent], tmp_path, monkeypatch).axes[1].xaxis
        return [each.get_text() for each in axis.get_ticklabels(minor=True) if each.get_text()]

    assert {"2.0 kB", "5.0 kB", "20.0 kB"} <= set(told(1_500.0, 52_000.0)) and told(1_500.0, 5e6) == []


def test_deviations_are_spoken_of_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def title(rows: list[Row]) -> str:
        return str(drawn(rows, tmp_path, monkeypatch).legends[0].get_title().get_text())

    assert title(NEAR) == "" and title([row({}, 0.9, 0.5, 10.0, 0.01)]) == "mean and standard deviation over the seeds"


def test_labels_say_which_value_is_whose() -> None:
    assert [label(each) for each in NEAR] == ["d_psgd, rate 0.1", "d_psgd, rate 0.2"]
    assert label(row({"data.per_node": "40", "network.delay_s": "[0.1,2]"}, 0, 0, 0)) == (
        "data.per_node 40, network.delay_s [0.1,2]"
    )
    assert label(row({}, 0.0, 0.0, 0.0)) == "as it is"


def test_points_that_lie_on_one_another_share_a_text() -> None:
    places = [(200.0, 50.0), (201.0, 50.1), (200.0, 60.0), (900.0, 50.0)]
    assert numbers(places) == [("1, 2", places[0]), ("3", places[2]), ("4", places[3])]
    assert numbers([]) == [] and numbers([(1.0, 1.0)] * 2) == [("1, 2", (1.0, 1.0))]
