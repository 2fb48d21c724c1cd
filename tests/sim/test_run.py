"""A scenario played: the same for the same seed, the same after a kill, and what it says of its devices is so."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeswarm.sim.run as run_module
import edgeswarm.sim.stage as stage_module
from edgeswarm.agent.profile import load_profile, speed
from edgeswarm.agent.store import Store
from edgeswarm.backends.base import LocalEpoch, Predict
from edgeswarm.errors import ConfigError, DataError, StateError
from edgeswarm.maths.optimisers import Optimiser, init
from edgeswarm.models.card import PRIVATE
from edgeswarm.models.cost import Speed, cost
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron
from edgeswarm.sim.data import DataSet, read, read_parts
from edgeswarm.sim.outcome import Outcome, from_plain
from edgeswarm.sim.run import CHECKPOINTS, Paused, Progress, kept_scenario, run
from edgeswarm.sim.scenario import Scenario, changed, load
from edgeswarm.sim.stage import prepare
from edgeswarm.sim.world import World

ROOT = Path(__file__).parents[2]


def clusters(rows: int = 600, classes: int = 4, seed: int = 0) -> DataSet:
    """Rows around one centre per class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=rows)
    x = (np.random.default_rng(7).normal(size=(classes, 6)) * 3)[y] + rng.normal(size=(rows, 6))
    return DataSet("clusters", x.astype(np.float32), tuple(f"c{v}" for v in y), tuple(f"x{at}" for at in range(6)))


def npz(path: Path, **how: Any) -> Path:
    data = clusters(**how)
    np.savez(path, x=data.x, y=np.array(data.y))
    return path


SMALL = {
    "swarm.nodes": 4, "swarm.duration_s": 60.0, "report.every_s": 15.0, "model.hidden": 8, "data.alpha": 0.5,
    "strategy.name": "d_psgd", "strategy.rate": 0.05, "strategy.period_s": 5.0, "graph.kind": "ring",
    "network.loss": 0.1, "network.delay_s": (0.0, 0.5),
}  # fmt: skip


def small(**more: Any) -> Scenario:
    return load(None, SMALL | {key.replace("__", "."): value for key, value in more.items()})


def played(scenario: Scenario, **how: Any) -> Outcome:
    return run(scenario, backend="reference", data=clusters(), **how)


def test_one_seed_one_outcome_and_another_another() -> None:
    one, again, other = played(small()), played(small()), played(small(swarm__seed=1))
    assert one == again and one.plain()["nodes"] == again.plain()["nodes"]
    assert one.nodes != other.nodes
    assert from_plain(one.plain()) == one


def test_nothing_of_a_run_stays_in_memory() -> None:
    gc.disable()  # Python would find what is left some time
    try:
        played(small())
        assert not [each for each in gc.get_objects() if type(each) is World]
    finally:
        gc.enable()


def test_devices_learn_together_and_what_they_say_adds_up() -> None:
    together, alone = played(small()), played(changed(small(), {"strategy.name": "isolated"}))
    assert together.at_s == (15.0, 30.0, 45.0, 60.0) and together.method == "d_psgd"
    assert together.accuracy_common is not None and alone.accuracy_common is not None
    assert together.accuracy_common > 0.9 > alone.accuracy_common + 0.05
    for node in together.nodes:
        assert all(len(getattr(node, key)) == 4 for key in ("accuracy", "bytes_sent", "bytes_received", "age_s"))
        assert list(node.bytes_sent) == sorted(node.bytes_sent) and node.bytes_sent[-1] > 1000
        assert sum(node.classes.values()) == node.samples and node.rounds[-1] == 12
        assert node.age_s[-1] is not None and 0 <= node.age_s[-1] < 60
    assert max(node.bytes_received[-1] for node in alone.nodes) < 2000, "alone it hears presence and nothing else"
    assert {node.age_s for node in alone.nodes} == {(None,) * 4}


def test_the_age_is_a_mean_over_time_and_not_that_of_an_instant() -> None:
    """Without delay or loss the age of what a neighbour told grows from 0 to the period of 5 s, again and again."""
    calm = small(network__loss=0.0, network__delay_s=(0.0, 0.0), report__every_s=20.0)
    for node in played(calm).nodes:
        assert node.age_s[1:] == pytest.approx((2.5, 2.5), abs=1e-3)


def test_rows_that_nobody_learns_from_are_named() -> None:
    data = clusters()
    data.x[3:10, 2] = 2e6
    outcome = run(small(swarm__duration_s=15.0), backend="reference", data=data)
    note = next(note for note in outcome.notes if "not learnt from" in note)
    assert ": x2 beyond 1,000,000" in note and 0 < int(note.split(" of ")[0]) <= 7
    assert not any("not learnt from" in note for note in played(small(swarm__duration_s=15.0)).notes)


def test_a_checkpoint_that_cannot_be_saved_costs_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*told: object) -> int:
        raise StateError("no space left")

    monkeypatch.setattr(Store, "save", full)
    said: list[str] = []
    assert played(small(), folder=tmp_path, checkpoint_s=0.0, warn=said.append) == played(small())
    assert said == ["no checkpoint could be saved, the run goes on: no space left"]
    with pytest.raises(Paused) as paused:
        played(small(), folder=tmp_path, pause=lambda: True)
    assert paused.value.kept_s is None


@pytest.mark.parametrize("damage", ["cut short", "checksum"])
def test_a_damaged_checkpoint_costs_the_time_since_the_one_before(tmp_path: Path, damage: str) -> None:
    looked: list[bool] = []
    with pytest.raises(Paused) as paused:
        played(small(), folder=tmp_path, checkpoint_s=0.0, pause=lambda: bool(looked.append(True)) or len(looked) > 20)
    newest = tmp_path / CHECKPOINTS / "state.msgpack"
    data = bytearray(newest.read_bytes())
    if damage == "cut short":
        del data[-100:]
    else:
        data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    said: list[str] = []
    assert played(small(), folder=tmp_path, resume=tmp_path, warn=said.append) == played(small())
    assert len(said) == 1 and damage in said[0] and "kept as state.msgpack.unusable-1" in said[0]
    before_s = float(said[0].removesuffix(" s").rpartition(" at ")[2])
    assert 0 < before_s < paused.value.at_s == paused.value.kept_s


def test_a_disk_that_fills_up_costs_neither_the_run_nor_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses in the middle of the file, from the third checkpoint on."""
    import errno

    from edgeswarm.agent import store

    write, seen, said = store._write, [], []

    def filling(path: Path, data: bytes) -> None:
        seen.append(path)
        write(path, data if len(seen) < 3 else data[: len(data) // 2])
        if len(seen) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write", filling)
    with pytest.raises(Paused) as paused:
        played(small(), folder=tmp_path, checkpoint_s=0.0, pause=lambda: len(seen) > 5, warn=said.append)
    monkeypatch.undo()
    assert len(said) == 1 and said[0].startswith("no checkpoint could be saved, the run goes on: disk full")
    assert paused.value.kept_s is not None and 0 < paused.value.kept_s < paused.value.at_s
    assert sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir()) == [
        "lock", "state.msgpack", "state.previous.msgpack",
    ]  # fmt: skip
    assert played(small(), folder=tmp_path, resume=tmp_path) == played(small())


def test_a_damaged_checkpoint_and_a_second_process_are_told_apart_from_none(tmp_path: Path) -> None:
    with pytest.raises(Paused):
        played(small(), folder=tmp_path, pause=lambda: True)
    with Store(tmp_path / CHECKPOINTS):
        for asked in (lambda: kept_scenario(tmp_path), lambda: played(small(), folder=tmp_path, resume=tmp_path)):
            with pytest.raises(StateError, match="another simulation is at work there") as error:
                asked()
            assert error.value.exit_code == 75
    for path in (tmp_path / CHECKPOINTS).glob("state*"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StateError, match=r"its checkpoint cannot be used .*cut short"):
        kept_scenario(tmp_path)
    with pytest.raises(StateError, match="its checkpoint cannot be used"):
        played(small(), folder=tmp_path, resume=tmp_path)


@pytest.mark.parametrize("name", ["prototype_gossip", "multi_headed_distillation", "isolated", "d_psgd"])
def test_every_kind_of_method_runs_on_what_is_made_for_it(name: str) -> None:
    outcome = played(changed(small(swarm__duration_s=20.0), {"strategy.name": name, "public.rows": 40}))
    assert outcome.accuracy is not None and outcome.accuracy > 0.4


def test_pieces_make_the_whole(tmp_path: Path) -> None:
    scenario, whole = small(), played(small())
    for stops in ((0,), (3, 60, 20)):
        folder = tmp_path / str(len(stops))
        for stop in stops:
            turns = itertools.count()
            with pytest.raises(Paused) as paused:
                played(scenario, folder=folder, resume=folder, pause=lambda c=turns, n=stop: next(c) >= n)
            assert 0 < paused.value.at_s == paused.value.kept_s < 60
        assert kept_scenario(folder) == scenario
        assert played(scenario, folder=folder, resume=folder) == whole
        assert played(scenario, folder=folder, resume=folder) == whole, "a run that is over is over at once"


def test_a_checkpoint_is_of_one_scenario_and_its_data(tmp_path: Path) -> None:
    with pytest.raises(Paused):
        played(small(), folder=tmp_path, pause=lambda: True)
    with pytest.raises(ConfigError, match="another scenario"):
        played(small(swarm__seed=1), folder=tmp_path, resume=tmp_path)
    with pytest.raises(ConfigError, match="data or the model has changed"):
        run(small(), None, tmp_path, folder=tmp_path, backend="reference", data=clusters(seed=5))
    with pytest.raises(Paused) as paused:
        played(small(), pause=lambda: True)
    assert paused.value.kept_s is None and kept_scenario(tmp_path / "none") is None


def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    """kill -9, again and again, each time at least one checkpoint later."""
    code = (
        "from tests.sim.test_run import *\n"
        f"f = Path({str(tmp_path)!r})\n"
        "run(small(), lambda p: print(p.at_s, flush=True), f, folder=f, backend='reference', data=clusters(),"
        " checkpoint_s=0.0)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    reached = 0.0
    for goal_s in (10.0, 30.0, 50.0):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT) as process:
            assert process.stdout is not None
            first = float(process.stdout.readline())
            assert first > 0.9 * reached, "it went on from a checkpoint, not from the beginning"
            for line in process.stdout:
                if float(line) >= goal_s:
                    break
            process.send_signal(signal.SIGKILL)
        reached = goal_s - 0.5  # the checkpoint before the line that was seen
    assert played(small(), folder=tmp_path, resume=tmp_path) == played(small())


def test_progress_is_told_as_it_comes() -> None:
    seen: list[Progress] = []
    outcome = played(small(), progress=seen.append)
    assert [p.at_s for p in seen] == sorted(p.at_s for p in seen) and seen[-1].at_s == 60.0
    assert seen[0].last == {} and seen[0].outcome is None and seen[-1].last == outcome.summary()
    assert len(seen) >= 200


def test_what_is_found_is_added_up_once_an_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Outcome] = []

    def counted(*told: Any) -> Outcome:
        made.append(Outcome(*told))
        return made[-1]

    monkeypatch.setattr(run_module, "Outcome", counted)
    seen: list[Progress] = []
    outcome = played(small(), progress=seen.append)
    assert len(made) == 4 + 1 and len(seen) >= 200, "four examinations, and the whole"
    shown = next(each.outcome for each in reversed(seen) if each.at_s < 60)
    assert shown is not None and shown.at_s == (15.0, 30.0, 45.0) and outcome.at_s[:3] == shown.at_s


def test_a_slice_that_takes_long_is_cut_and_what_was_asked_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time at all for a slice it ends after each instant, at the instant of an examination, too, and the very
    last one; whoever wants to stop is heard there, and it goes on to the same end."""
    scenario = small(network__loss=0.0, network__delay_s=0.0)
    whole = played(scenario)
    monkeypatch.setattr(run_module, "SLICE_LIMIT_S", 0.0)
    looks: list[float] = []
    assert played(scenario, progress=lambda progress: looks.append(progress.at_s)) == whole
    assert len(looks) > 203 and looks.count(15.0) > 1 and looks.count(60.0) > 1
    for stop in (1, looks.index(15.0), looks.index(60.0), len(looks) - 2):
        turns, folder = itertools.count(), tmp_path / str(stop)
        with pytest.raises(Paused) as paused:
            played(scenario, folder=folder, pause=lambda c=turns, n=stop: next(c) >= n)
        assert paused.value.at_s == paused.value.kept_s == looks[stop]
        assert played(scenario, folder=folder, resume=folder) == whole


def event(kind: str, at_s: float, *nodes: str, for_s: float = 0.0) -> str:
    return f'[[event]]\nkind = "{kind}"\nat_s = {at_s}\nfor_s = {for_s}\nnodes = {list(nodes)}\n'.replace("'", '"')


def with_events(tmp_path: Path, text: str, **more: Any) -> Scenario:
    path = tmp_path / "swarm.toml"
    path.write_text(text)
    return load(path, SMALL | {key.replace("__", "."): value for key, value in more.items()})


def test_events_happen(tmp_path: Path) -> None:
    text = (
        event("crash", 10, "n1", for_s=25) + event("leave", 10, "n2") + event("join", 40, "n2")
        + event("join", 20, "n3")
        + event("sleep", 25, "n4", for_s=10)
    )  # fmt: skip
    outcome = played(with_events(tmp_path, text, network__loss=0.0, state__every_s=2.0))
    n1, n2, n3, n4 = outcome.nodes
    assert [value is None for value in n1.accuracy] == [True, True, False, False]
    assert [value is None for value in n2.accuracy] == [True, True, False, False]
    assert [value is None for value in n3.accuracy] == [True, False, False, False] and n3.bytes_sent[0] == 0
    assert None not in n4.accuracy and n4.bytes_sent[2] < n4.bytes_sent[3]
    assert n1.rounds[-1] < n4.rounds[-1] and n2.rounds[-1] < n4.rounds[-1]
    assert n1.rounds[:2] == n2.rounds[:2] == (1, 1) or n1.rounds[:2] == n2.rounds[:2] == (2, 2), "as they last were"
    assert n3.rounds[0] == 0 and [outcome.there(at) for at in range(4)] == [1, 2, 4, 4]
    assert outcome.mean("accuracy", 0) == n4.accuracy[0], "the mean is over those that are there"


def test_before_the_first_answer_there_is_no_accuracy_and_nobody_is_away() -> None:
    outcome = played(small(strategy__period_s=20.0, strategy__name="isolated", swarm__duration_s=30.0))
    assert [node.accuracy[0] for node in outcome.nodes] == [None] * 4 and outcome.there(0) == 4
    assert outcome.mean("accuracy", 0) is None and outcome.accuracy is not None and outcome.notes == ()
    never = played(small(strategy__period_s=100.0, swarm__duration_s=30.0))
    assert never.accuracy is None and never.notes == ("no device did a round in 30 s: [strategy] period_s is 100 s",)


def test_events_that_overlap_last_as_they_are_written(tmp_path: Path) -> None:
    text = (
        event("partition", 10, "n1", for_s=40) + event("partition", 20, "n4", for_s=5)
        + event("sleep", 10, "n2", for_s=10) + event("sleep", 15, "n2", for_s=25)
        + event("crash", 10, "n3", for_s=40) + event("crash", 20, "n3", for_s=5)
    )  # fmt: skip
    seen: dict[float, tuple[bool, bool, str, str]] = {}

    def look(world: World) -> None:
        side, nodes = world.hub.retained.side, world.nodes
        apart = (side("n1") != side("n2"), side("n4") != side("n2"))
        seen[world.clock.now()] = (*apart, nodes["n2"].status, nodes["n3"].status)

    def arranged(world: World, stage: stage_module.Stage) -> None:
        for at_s in (9.5, 17.5, 22.5, 30.0, 45.0, 55.0):
            world.clock.call_at(at_s, look, world)

    played(with_events(tmp_path, text), arranged=arranged)
    assert seen == {
        9.5: (False, False, "running", "running"),
        17.5: (True, False, "asleep", "crashed"),
        22.5: (True, True, "asleep", "crashed"),
        30.0: (True, False, "asleep", "crashed"),
        45.0: (True, False, "running", "crashed"),
        55.0: (False, False, "running", "running"),
    }


@pytest.mark.parametrize(
    ("kind", "nodes"), [("heal", ()), ("broker_restart", ()), ("revive", ("n1",)), ("join", ("n1",))]
)
def test_how_long_is_refused_where_it_means_nothing(tmp_path: Path, kind: str, nodes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"number 1 \({kind} at 20 s\): for_s means nothing here; leave it out"):
        with_events(tmp_path, event(kind, 20, *nodes, for_s=5))


def test_a_graph_that_a_method_does_not_have_is_said_to_be_unused() -> None:
    note = "[graph] is not used: with prototype_gossip everybody hears everybody"
    assert note in prepare(changed(small(), {"strategy.name": "prototype_gossip"}), clusters(), "reference").notes
    assert not prepare(small(), clusters(), "reference").notes


def test_a_partition_makes_news_old_and_healing_makes_them_new(tmp_path: Path) -> None:
    text = event("partition", 20, "n1") + event("heal", 50)
    n1 = played(with_events(tmp_path, text, network__loss=0.0, network__delay_s=0.0)).nodes[0]
    before, early, late, healed = n1.age_s
    assert before is not None and early is not None and late is not None and healed is not None
    # the last news came at 15 s, the next at 50 or 55 s: mean ages of a sawtooth over 15 s each
    assert (before, early, late) == pytest.approx((2.5, 7.5, 22.5), abs=1e-3) and 2.5 < healed < late


def test_a_step_takes_what_the_boards_profile_says() -> None:
    stage = prepare(changed(small(), {"boards.pi-zero-2w": 1.0, "boards.pi-5": 1.0}), clusters(), "reference")
    taken_s = stage.durations()
    assert taken_s is not None and stage.model is not None
    picks = {PRIVATE: np.zeros((8, 32), np.int32)}
    epoch = LocalEpoch("", "ce", stage.model.initial, {}, picks, Optimiser(), init(Optimiser(), stage.model.initial))
    for name, profile in (("n4", "pi-5"), ("n1", "pi-zero-2w")):
        step_s = cost(stage.model.card, speed(load_profile(profile)), 32).step_s
        assert stage.boards[name] == profile and taken_s(name, epoch) == pytest.approx(8 * step_s)
    assert taken_s("n1", Predict("", stage.exam.x)) == 0.0
    assert prepare(small(), clusters(), "reference").durations() is None


def test_boards_that_cannot_keep_up_do_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = played(small(swarm__duration_s=30.0))
    monkeypatch.setattr(stage_module, "speed", lambda profile: Speed(1e9, 1e9, call_s=1.0, base_bytes=0))
    slow = played(changed(small(swarm__duration_s=30.0), {"boards.pi-zero-2w": 1.0}))
    assert slow.nodes[0].board == "pi-zero-2w" and fast.mean("rounds") == 6 and slow.mean("rounds") == 3


def test_narrow_links_bring_less_in_the_same_time() -> None:
    """And no device can tell how long it was under way: without a common clock the ages are those of wide links."""
    calm = {"network.loss": 0.0, "network.delay_s": 0.0}
    wide, narrow = (
        played(changed(small(), calm)),
        played(changed(small(), calm | {"network.uplink_bytes_per_s": 100.0})),
    )
    assert (narrow.mean("bytes_received") or 0) < 0.95 * (wide.mean("bytes_received") or 0), "some is still on its way"
    assert narrow.mean("age_s") == wide.mean("age_s") == pytest.approx(2.5)


def test_rows_that_come_one_by_one_are_tested_before_they_are_learnt() -> None:
    outcome = played(small(data__rate_per_s=2.0))
    stream = outcome.column("accuracy_stream")
    assert len(stream) == 4 and min(stream) > 0.3


# ---- data ------------------------------------------------------------------------------------------------------------


def test_the_examination_holds_rows_of_every_class_that_nobody_has() -> None:
    data = clusters()
    stage = prepare(small(), data, "reference")
    held = {tuple(row) for row in stage.exam.x.tolist()}
    assert len(held) == 120 and set(stage.exam.y.tolist()) == {0, 1, 2, 3}
    given = [tuple(row) for rows in stage.parts.values() for row in stage.x[rows].tolist()]
    assert not held & set(given) and len(given) == len(set(given)) == 480
    for name, rows in stage.parts.items():
        assert stage.exam.mixes[name] == pytest.approx(np.bincount(stage.y[rows], minlength=4) / len(rows))


def test_a_file_with_its_own_examination_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 4, 4), np.uint8)
    np.savez(
        tmp_path / "m.npz", x_train=images[:40], y_train=np.arange(40) % 3, x_test=images[40:], y_test=np.arange(10) % 3
    )
    data = read(tmp_path / "m.npz")
    assert data.x.shape == (40, 16) and data.form == "uint8:4x4" and data.classes == ("0", "1", "2")
    stage = prepare(small(swarm__nodes=2, data__path=str(tmp_path / "m.npz")), None, "reference")
    assert stage.exam.x.shape == (10, 16) and sum(map(len, stage.parts.values())) == 40
    assert read(tmp_path / "m.npz", limit_rows=20).x.shape == (20, 16)


def test_a_file_for_each_device_and_one_to_be_examined_on(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for at in range(3):
        npz(parts / f"b{at}.npz", rows=40, seed=at)
    npz(tmp_path / "test.npz", rows=30, seed=9)
    assert list(read_parts(parts).parts) == ["b0", "b1", "b2"]
    more = {"data__path": str(parts), "data__test_path": str(tmp_path / "test.npz"), "data__split": "files"}
    stage = prepare(small(swarm__nodes=3, **more), None, "reference")
    assert {len(rows) for rows in stage.parts.values()} == {40} and len(stage.exam.y) == 30
    np.testing.assert_array_equal(stage.x[stage.parts["n2"]], clusters(rows=40, seed=1).x)
    some = prepare(small(swarm__nodes=2, swarm__names=("b0", "b2"), **more), None, "reference")
    np.testing.assert_array_equal(some.x[some.parts["b2"]], clusters(rows=40, seed=2).x)
    with pytest.raises(ConfigError, match="3 files, but"):
        prepare(small(swarm__nodes=4, **more), None, "reference")


def test_what_cannot_be_learnt_is_said_in_a_line(tmp_path: Path) -> None:
    one = DataSet("one", np.zeros((20, 2), np.float32), ("a",) * 20, ("p", "q"))
    with pytest.raises(DataError, match="one class alone"):
        prepare(small(), one, "reference")
    rare = DataSet("rare", np.zeros((20, 2), np.float32), ("a",) * 19 + ("b",), ("p", "q"))
    with pytest.raises(DataError, match="class 'b' has 1 row"):
        prepare(small(), rare, "reference")
    with pytest.raises(ConfigError, match=r"\[data\] split = 'main_class': .*too few rows"):
        prepare(small(data__split="main_class", data__per_node=400), clusters(), "reference")
    with pytest.raises(DataError, match="no such file"):
        prepare(small(data__path=str(tmp_path / "none.csv")), None, "reference")
    with pytest.raises(DataError, match=r"a \.csv file, an \.npz file or a folder"):
        prepare(small(data__path=str(tmp_path / "none.txt")), None, "reference")
    other = perceptron(("c0", "c1"), np.zeros(6, np.float32), np.ones(6, np.float32), 4)
    write(other, tmp_path / "other.esm")
    with pytest.raises(ConfigError, match="knows no class 'c2'"):
        prepare(small(model__path=str(tmp_path / "other.esm")), clusters(), "reference")


def test_a_device_without_rows_and_one_with_a_single_class_are_part_of_it() -> None:
    data = clusters()
    scenario = small(data__split="primary_labels", data__primary=1, data__skew=1e9, swarm__nodes=6)
    outcome = run(scenario, backend="reference", data=data)
    assert any(len(node.classes) == 1 for node in outcome.nodes)
    few = DataSet("few", data.x[:30], data.y[:30], data.features)
    empty = run(
        small(data__split="primary_labels", swarm__nodes=20, swarm__duration_s=20.0), backend="reference", data=few
    )
    assert any(not node.samples for node in empty.nodes) and any("has no rows" in note for note in empty.notes)


def test_time_here_is_not_part_of_what_makes_runs_equal() -> None:
    began = time.monotonic()
    one = played(small(swarm__duration_s=16.0))
    assert 0 < one.wall_s <= time.monotonic() - began and one.backend == "reference"
