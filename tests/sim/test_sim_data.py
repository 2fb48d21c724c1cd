"""What is said of samples that cannot be learnt as they are meant, or are fewer than was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeswarm.errors import DataError
from edgeswarm.sim.data import DataSet, read, read_parts
from edgeswarm.sim.evaluation import NOBODYS, Exam, Marks, marks
from edgeswarm.sim.scenario import Scenario, load
from edgeswarm.sim.stage import prepare

ROWS = 200


def table(path: Path, labels: list[str]) -> Path:
    path.write_text("a,b,label\n" + "".join(f"{at},1,{label}\n" for at, label in enumerate(labels)))
    return path


def drawn() -> list[str]:
    return [f"{value:.4f}" for value in np.random.default_rng(0).normal(size=ROWS)]


def test_measurements_are_not_taken_for_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"different labels in 200 rows, such as '.*': these look like measurements"):
        read(table(tmp_path / "m.csv", drawn()))
    x, y = np.ones((ROWS, 2), np.float32), np.array(drawn(), float)
    for names in (("x", "y"), ("x_train", "y_train")):
        np.savez(tmp_path / "m.npz", **dict(zip(names, (x, y), strict=True)))
        with pytest.raises(DataError, match="name the column that holds the class"):
            read(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "names",
    [
        [f"{at / 2:g}" for at in range(9)],  # marks
        [str(at) for at in range(40)],  # whole numbers, many of them
        [f"{at}.5 mm" for at in range(40)],  # words
        [f"{at}.0" for at in range(40)],
    ],
)
def test_numbers_may_be_classes(tmp_path: Path, names: list[str]) -> None:
    labels = [names[at % len(names)] for at in range(ROWS)]
    assert set(read(table(tmp_path / "c.csv", labels)).y) == set(names)


def test_a_public_set_that_is_smaller_than_asked_for_is_said_to_be() -> None:
    rng = np.random.default_rng(0)
    data = DataSet("d", rng.normal(size=(ROWS, 2)).astype(np.float32), tuple("ab" * (ROWS // 2)), ("x", "y"))
    told = {"swarm.nodes": 2, "strategy.name": "prototype_distillation", "data.split": "iid"}
    stage = prepare(load(None, {**told, "public.rows": 5000}), data, "reference")
    assert stage.public is not None and len(stage.public.x) == 80
    said = "of the 5,000 rows for the public set 80 were set aside: not more than half of those to learn from"
    assert said in stage.notes
    assert not any("public" in note for note in prepare(load(None, {**told, "public.rows": 80}), data).notes)


def test_a_class_that_nobody_holds_is_said() -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    data = DataSet("d", x, tuple("abcd" * (ROWS // 4)), ("x", "y"))
    told = {"swarm.nodes": 2, "strategy.name": "prototype_gossip", "data.split": "classes_per_agent", "data.classes": 1}
    notes = prepare(load(None, told), data).notes
    assert any(note.startswith("no device has rows of ") and note.endswith("nobody can learn") for note in notes)


def test_rows_that_are_left_out_are_told(tmp_path: Path) -> None:
    rows = "".join(f"{at},1,{'ab'[at % 2] if at % 4 else ''}\n" for at in range(40))
    path = tmp_path / "d.csv"
    path.write_text(f"a,b,label\n{rows}nan,1,a\n,1,b\n")
    lost = "12 of 42 rows are left out: 1 have an empty cell, 10 have no label, 1 hold a number that is not finite"
    assert read(path).notes == (lost,) and prepare(load(None, {"data.path": str(path)})).notes[0] == lost
    assert read(path, limit_rows=30).notes == (lost,), "nothing was drawn"
    assert read(path, limit_rows=20).notes == (lost, "20 of 30 rows are used, drawn evenly")


def test_what_is_left_out_of_each_device_s_file_is_told_in_one_line(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        table(tmp_path / f"{name}.csv", ["a", "b", ""] * 10)
    told = read_parts(tmp_path, limit_rows=15).notes
    assert told == ("20 of 60 rows are left out: 20 have no label", "30 of 40 rows are used, drawn evenly")


def test_an_archive_is_drawn_from_only_where_it_has_more(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", x_train=np.ones((30, 2)), y_train=np.arange(30) % 3)
    assert read(tmp_path / "m.npz", limit_rows=30).notes == ()
    assert read(tmp_path / "m.npz", limit_rows=12).notes == ("12 of 30 rows are used, drawn evenly",)


# ---- a file to be examined on ----------------------------------------------------------------------------------------


def examined_on(tmp_path: Path, text: str) -> Scenario:
    """Learnt: columns a and b."""
    (tmp_path / "learnt.csv").write_text("a,b,label\n" + "".join(f"{at},{-at},{'uv'[at % 2]}\n" for at in range(40)))
    (tmp_path / "test.csv").write_text(text)
    more = {"data.path": str(tmp_path / "learnt.csv"), "data.test_path": str(tmp_path / "test.csv")}
    return load(None, {"swarm.nodes": 2, "strategy.name": "prototype_gossip", "data.split": "iid", **more})


def test_it_is_read_by_the_names_of_its_columns_as_a_device_does(tmp_path: Path) -> None:
    stage = prepare(examined_on(tmp_path, "more,label,b,a\nwords,u,1,2\nwords,v,3,4\n"))
    assert stage.exam.x.tolist() == [[2, 1], [4, 3]] and stage.exam.y.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"test\.csv:1: no column 'a' for a feature"):
        prepare(examined_on(tmp_path, "p,q,label\n1,2,u\n"))


def test_rows_of_classes_that_nobody_learns_are_wrong_and_told(tmp_path: Path) -> None:
    stage = prepare(examined_on(tmp_path, "a,b,label\n1,2,u\n3,4,w\n5,6,z\n,6,u\n7,8,w\n"))
    assert stage.exam.y.tolist() == [0, NOBODYS, NOBODYS, NOBODYS]
    assert "test.csv: 1 of 5 rows are left out: 1 have an empty cell" in stage.notes
    told = "3 of the 4 rows of the examination are of classes that nobody learns (w, z): whatever is answered is wrong"
    assert any(note.startswith(told) for note in stage.notes)
    assert marks(stage.exam, "n1", ("u", "u", None, "w")) == Marks(common=0.25, own=1.0)
    with pytest.raises(DataError, match="no row kept for examination is of a class that is learnt"):
        prepare(examined_on(tmp_path, "a,b,label\n1,2,w\n"))


def test_before_the_first_answer_there_are_no_marks() -> None:
    exam = Exam(np.zeros((2, 1), np.float32), np.array([0, 1]), ("a", "b"), {"n": np.array([0.5, 0.5])})
    assert marks(exam, "n", (None, None)) is None
    assert marks(exam, "n", ("b", None)) == Marks(common=0.0, own=0.0)
