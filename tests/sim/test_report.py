"""A run as words and pictures: figures that are those of the run, files that can be read again."""

from __future__ import annotations

import builtins
import errno
import io
import json
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.cli import simulate
from edgeswarm.errors import StateError
from edgeswarm.sim import report, report_picture
from edgeswarm.sim.canvas import NoPicture, canvas, saved
from edgeswarm.sim.outcome import NodeOutcome, Outcome, from_plain
from edgeswarm.sim.run import Progress
from edgeswarm.sim.scenario import EventTable, Scenario, load
from edgeswarm.sim.screen import PlainScreen, growth, open_screen, render


def made_up(nodes: int = 3, away: int | None = None, scenario: Scenario | None = None) -> Outcome:
    """Two examinations of devices whose numbers tell them apart; `away` is not there at the second."""

    def node(at: int) -> NodeOutcome:
        gone = at == away
        return NodeOutcome(
            f"n{at + 1}", "pi-4" if at else "", 10 * at, {"a|b": 7, "$c": 2} if at else {},
            (0.5, None if gone else 0.5 + at / (2 * nodes)), (0.4, None if gone else 0.4 + at / (2 * nodes)),
            (None, 0.5), (100, 1_500 * (at + 1)), (200, 2_000_000), (None, None if gone else 12.0), (1, 2),
            (True, not gone),
        )  # fmt: skip

    chosen = scenario or load(None, {"swarm.nodes": nodes, "swarm.duration_s": 120.0})
    return Outcome(
        chosen.plain(), "made up", tuple(map(node, range(nodes))), (60.0, 120.0), ("a note",), 5, 2, "onnx", 3.0
    )


def test_headlines_are_means_over_those_that_are_there() -> None:
    said = dict(report.headlines(made_up(2, away=1)))
    of = "(1 of 2 devices; 1 away)"
    assert said["accuracy, own mix"] == f"50.0 % mean, 50.0 % worst device {of}"
    assert said["accuracy, all alike"] == f"40.0 % mean, 40.0 % worst device {of}"
    assert said["bytes of a device"] == "2.2 kB sent, 2.0 MB received"
    assert said["that is in a day"] == "2.9 GB", "2.002 MB in the second minute, 1,440 times"
    assert said["age of information"] == f"12 s {of}"
    assert dict(report.headlines(made_up(2)))["accuracy, own mix"] == "62.5 % mean, 50.0 % worst device"
    summary = made_up(2, away=1).summary()
    assert (summary["devices"], summary["devices_there"], summary["rounds"]) == (2, 1, 2.0)


def test_only_what_is_sent_by_the_clock_is_told_by_the_day() -> None:
    outcome = made_up(2)
    idle = replace(outcome, nodes=tuple(replace(node, rounds=(2, 2)) for node in outcome.nodes))
    assert "that is in a day" in dict(report.headlines(outcome)) and "that is in a day" not in dict(
        report.headlines(idle)
    )


def test_before_any_answer_a_device_is_not_away_and_after_it_has_0() -> None:
    none, some = ((None, None), (None, None)), ((None, 0.5), (None, None))
    for accuracies, told in ((none, "- mean, - worst device"), (some, "25.0 % mean, 0.0 % worst device")):
        nodes = made_up(2, away=9).nodes
        outcome = replace(made_up(2), nodes=tuple(
            replace(node, accuracy=accuracy) for node, accuracy in zip(nodes, accuracies, strict=True)
        ))  # fmt: skip
        assert dict(report.headlines(outcome))["accuracy, own mix"] == told
        assert report.rows(outcome)[1][4] == "-"


def test_a_method_without_neighbours_has_no_graph() -> None:
    gossip, average = (
        made_up(scenario=load(None, {"swarm.nodes": 3, "graph.kind": "ring", "strategy.name": name}))
        for name in ("prototype_gossip", "d_psgd")
    )
    assert report.title(gossip) == "prototype_gossip on made up, 3 devices, 10 min, seed 0"
    assert report.title(average) == "d_psgd on made up, 3 devices, graph ring, 10 min, seed 0"


def test_a_device_that_is_away_is_drawn_as_away_and_not_at_0() -> None:
    axes = canvas(report_picture.SIZE_INCHES).subplots()
    report_picture._devices(axes, made_up(3, away=1))
    assert axes.texts[0].get_text() == "away" and axes.get_xlim()[0] > 30
    assert [each.get_text() for each in axes.get_yticklabels()] == ["n2 (pi-4)", "n1", "n3 (pi-4)"]
    drawn = [spots.get_offsets()[:, 1].tolist() for spots in axes.collections if len(spots.get_offsets()) == 2]
    assert drawn == [[1, 2], [1, 2]], "the other two alone have dots"


def test_what_happens_is_shaded_as_it_was_played() -> None:
    events = (
        EventTable(10.0, "partition", ("n1",), 80.0), EventTable(20.0, "partition", ("n2",)),
        EventTable(30.0, "crash", ("n1",), 20.0), EventTable(40.0, "heal"), EventTable(50.0, "partition", ("n1",), 5.0),
        EventTable(60.0, "partition", ("n2",)),
    )  # fmt: skip
    found = report_picture.happenings(made_up(scenario=replace(load(None, {"swarm.nodes": 3}), events=events)))
    assert [(at_s, until_s) for at_s, until_s, _ in found] == [
        (10.0, 40.0), (20.0, 40.0), (30.0, 50.0), (40.0, 40.0), (50.0, 55.0), (60.0, 600.0),
    ]  # fmt: skip


def test_a_device_is_away_until_it_is_revived_or_to_the_end() -> None:
    events = (
        EventTable(10.0, "leave", ("n1",)), EventTable(20.0, "crash", ("n*",), 50.0),
        EventTable(30.0, "revive", ("n1",)), EventTable(40.0, "crash", ("n2",)),
    )  # fmt: skip
    found = report_picture.happenings(made_up(scenario=replace(load(None, {"swarm.nodes": 3}), events=events)))
    spans = [(at_s, until_s) for at_s, until_s, _ in found]
    assert spans == [(10.0, 30.0), (20.0, 70.0), (30.0, 30.0), (40.0, 600.0)]


def test_words_and_keys_are_whole_and_apart() -> None:
    events = tuple(EventTable(50.0 + at, "crash", (f"n{at + 1}",), 9.0) for at in range(3))
    base = load(None, {"swarm.nodes": 3, "swarm.duration_s": 120.0})
    figure = canvas(report_picture.SIZE_INCHES)
    axes = figure.subplots()
    report_picture._accuracy(axes, made_up(3, away=1, scenario=replace(base, events=events)))
    figure.canvas.draw()
    words = [each.get_window_extent() for each in axes.texts]
    assert len(words) == 3 and all(left.x1 <= right.x0 for left, right in pairwise(words))
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_what_a_start_costs_is_not_taken_for_what_a_day_costs() -> None:
    node = NodeOutcome("n1", "", 1, {}, (0.5,) * 3, (0.5,) * 3, (None,) * 3, (10_000, 10_010, 10_020), (0, 0, 0))
    outcome = Outcome({}, "x", (node,), (60.0, 120.0, 180.0))
    assert report.day_bytes(outcome) == pytest.approx(10 * 1440)
    once = replace(outcome, nodes=(replace(node, bytes_sent=(10_000,), bytes_received=(0,)),), at_s=(60.0,))
    assert report.day_bytes(once) == pytest.approx(10_000 * 1440), "the whole is all there is"
    assert report.day_bytes(replace(outcome, at_s=())) == 0.0


def test_a_large_swarm_is_told_by_those_that_do_worst() -> None:
    few, many = made_up(report.SHOWN), made_up(report.SHOWN + 5, away=0)
    assert len(report.rows(few)) == report.SHOWN and not report.left_out(few)
    names = [row[0] for row in report.rows(many)]
    assert len(names) == report.SHOWN and "n2" in names and f"n{report.SHOWN + 5}" not in names
    assert report.left_out(many) == f"the {report.SHOWN} devices that do worst; 5 more in report.json"


def test_the_files_can_be_read_again_and_the_pictures_are_pictures(tmp_path: Path) -> None:
    events = (EventTable(30.0, "crash", ("n1",), 20.0), EventTable(90.0, "broker_restart"))
    base = load(None, {"swarm.nodes": 3, "swarm.duration_s": 120.0})
    outcome = made_up(3, away=2, scenario=Scenario(swarm=base.swarm, report=base.report, events=events))
    folder = tmp_path / "new" / "run"
    written = report.write(outcome, folder) + report_picture.draw(outcome, folder)
    assert [path.name for path in written] == ["report.json", "report.md", *report.PICTURES]
    kept = json.loads(written[0].read_text())
    assert from_plain(kept) == outcome and kept["summary"]["accuracy"] == pytest.approx(outcome.accuracy)
    text = written[1].read_text()
    assert "| n3 | pi-4 | 20 | a/b $c | away | - |" in text and all(f"({name})" in text for name in report.PICTURES)
    for path in written[2:]:
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (1000, 560)


def test_a_swarm_of_one_and_one_that_never_was_there_are_drawn_too(tmp_path: Path) -> None:
    one = made_up(1, away=0)
    never = NodeOutcome("n1", "", 0, {}, (None,), (None,), (None,), (0,), (0,), (None,), (0,), (False,))
    nothing = Outcome(one.scenario, "x", (never,), (60.0,))
    for outcome in (one, nothing):
        assert [path.name for path in report_picture.draw(outcome, tmp_path)] == list(report.PICTURES)


def test_without_matplotlib_the_reports_are_there_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NoPicture, match="pip install matplotlib"):
        report_picture.draw(made_up(), tmp_path)
    assert [path.name for path in simulate._written(made_up(), tmp_path)] == ["report.json", "report.md"]
    assert ".png" not in (tmp_path / "report.md").read_text()


def test_what_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError):
        report.write(made_up(), tmp_path / "file" / "below")


def test_a_disk_that_fills_up_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report.write(made_up(), tmp_path) + report_picture.draw(made_up(), tmp_path)
    held = {path: path.read_bytes() for path in before}
    write_text = Path.write_text

    def filling(path: Path, text: str, **how: Any) -> int:
        write_text(path, text[: len(text) // 2], **how)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", filling)
    with pytest.raises(StateError, match="disk full: cannot write the report to"):
        report.write(made_up(away=1), tmp_path)
    monkeypatch.undo()
    from matplotlib.figure import Figure

    def half(figure: Figure, path: Path, **how: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(NoPicture, match="No space left"):
        saved(canvas(report_picture.SIZE_INCHES), tmp_path / "accuracy.png")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held


# ---- while it runs ---------------------------------------------------------------------------------------------------


def progress(at_s: float, outcome: Outcome | None = None) -> Progress:
    return Progress(at_s, 120.0, 2.0, {} if outcome is None else outcome.summary(), outcome)


def test_without_a_terminal_there_are_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 1.0, 10.0, 10.0, 11.0, 20.0, 20.0, 30.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    screen = open_screen("a title")
    assert isinstance(screen, PlainScreen)
    for at_s in (1.0, 30.0, 40.0):
        screen.show(progress(at_s))
    screen.show(progress(60.0, made_up()))
    screen.show(progress(60.0, made_up(away=1)))
    monkeypatch.undo()
    screen.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a title" and lines[1] == "30 of 120 s; 2 s here, about 6 s to go"
    assert lines[2].startswith("60 of 120 s: own mix ") and len(lines) == 4
    assert "; 2 of 3 devices, 1 away; " in lines[3] and "away" not in lines[2]


@pytest.mark.parametrize(("width", "height"), [(100, 40), (60, 12), (30, 6)])
def test_the_live_screen_fits_where_it_is_shown(width: int, height: int) -> None:
    rich = pytest.importorskip("rich.console", reason="the live screen is drawn with rich")
    console = rich.Console(width=width, height=height, record=True, file=io.StringIO())
    for shown in (progress(10.0), progress(120.0, made_up(40, away=3))):
        console.print(render("edgeswarm simulate: " + "x" * 100, shown, width, height))
        lines = console.export_text().splitlines()
        assert len(lines) <= height and max(map(len, lines)) <= width
    assert growth(made_up(), 9) == "▁█  own mix, 50.0 % to 66.7 %" and growth(made_up(), 1)[:3] == "▁  "
