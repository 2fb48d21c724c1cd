"""What is said of samples that cannot be learnt as they are meant, or are fewer than was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeswarm.errors import DataError
from edgeswarm.sim.data import DataSet, read
from edgeswarm.sim.scenario import load
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
