from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run

from edgeswarm.agent.config import build_strategy
from edgeswarm.agent.equipment import Files, described, equip
from edgeswarm.agent.settings import ComputeConfig, GraphConfig, ModelConfig, StrategyConfig
from edgeswarm.agent.sources.base import Schema
from edgeswarm.agent.store import Store
from edgeswarm.backends.sets import answer
from edgeswarm.cli.learnt import load
from edgeswarm.cli.rows import read_rows
from edgeswarm.errors import DataError
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron
from edgeswarm.strategies.base import Batch, finish
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.strategies.sharing_state import Copy

CENTRES = {"red": (0.0, 0.0), "green": (8.0, 0.0), "blue": (0.0, 8.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a node that learnt three classes far apart, saved as an agent does."""
    rng = np.random.default_rng(3)
    names = rng.choice(list(CENTRES), 150)
    x = np.array([CENTRES[name] for name in names], np.float32) + rng.normal(size=(150, 2)).astype(np.float32)
    strategy = PrototypeGossip(schema=99)
    state, _ = finish(strategy.step(strategy.init("node-1", 1), Batch(0.0, x, tuple(names.tolist()))), answer)
    place = tmp_path_factory.mktemp("state")
    with Store(place) as store:
        store.save({"strategy": strategy.dump(state), "features": ["a", "b"], "source_path": "", "source_taken": 0})
    return place


def answers(text: str) -> list[str]:
    return [line.split("\t")[0] for line in text.splitlines()]


def test_a_file(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("time,b,a\n10:00,0,0\n10:01,0,8\n10:02,8,0\n")
    text = run("predict", "--state", str(folder), str(file)).stdout
    assert answers(text) == ["red", "green", "blue"]
    assert all(0.5 < float(line.split("\t")[1]) <= 1.0 for line in text.splitlines())


@pytest.mark.parametrize(
    "text",
    ["a,b\n8,0\n", "b;a\n0;8\n", "b\ta\n0\t8\n", "\ufeffa,b\n8,0\n", '{"a": 8, "b": 0}\n', "[8, 0]\n",
     '{"features": {"b": 0, "a": 8}}\n', '{"features": [8, 0], "id": "x"}\n', '{"a": 8, "b": 0, "place": "roof"}',
     "\n\na,b\n\n8,0\n"],
)  # fmt: skip
def test_stdin_in_every_form(run: Run, folder: Path, text: str) -> None:
    for words in ((), ("-",)):
        assert answers(run("predict", "--state", str(folder), *words, input=text).stdout) == ["green"]


def test_label_prints_the_accuracy(run: Run, folder: Path) -> None:
    text = "a,b,truth\n8,0,green\n0,8,blue\n0,0,blue\n8,0,\n"
    lines = run("predict", "--state", str(folder), "--label", "truth", input=text).stdout.splitlines()
    assert len(lines) == 5 and lines[-1] == "66.7 % right (2 of 3)"
    text = '{"a":8,"b":0,"truth":"green"}\n{"features":[0,8],"truth":"red"}\n'
    assert "50.0 % right (1 of 2)" in run("predict", "--state", str(folder), "--label", "truth", input=text).stdout


def test_json(run_json: Callable[..., Any], folder: Path) -> None:
    data = run_json("predict", "--state", str(folder), "--label", "truth", input="a,b,truth\n8,0,green\n,0,red\n")
    assert set(data) == {"predictions", "rows", "unusable", "labelled", "right", "accuracy"}
    assert (data["rows"], data["unusable"], data["labelled"], data["accuracy"]) == (2, 1, 1, 1.0)
    first, second = data["predictions"]
    assert (first["line"], first["class"], first["label"]) == (2, "green", "green")
    assert (second["class"], second["fault"]) == (None, "a value is missing")


@pytest.mark.parametrize(
    ("cell", "fault"),
    [("", "a value is missing"), ("warm", "'warm' is not a number"), ("inf", "not finite"), ("1e99", "not finite")],
)
def test_an_unusable_row_keeps_its_place(run: Run, folder: Path, cell: str, fault: str) -> None:
    result = run("predict", "--state", str(folder), input=f"a,b\n8,0\n{cell},0\n0,8\n")
    assert answers(result.stdout) == ["green", "-", "blue"]
    assert "stdin:3: " in result.stderr and fault in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,c\n1,2\n", "stdin:1: no column 'b' for a feature"),
        ("a,bb\n1,2\n", "did you mean 'bb'?"),
        ("a,b\n1,2,3\n", "stdin:2: 3 columns where the header has 2"),
        ('{"a": 1}\n', "stdin:1: no feature 'b'"),
        ("[1, 2, 3]\n", "stdin:1: 3 numbers where this node learnt from 2"),
        ('[1, 2]\n{"a": \n', "stdin:2: not a sample"),
        ('{"features": null}\n', "stdin:1: holds no features"),
    ],
)
def test_wrong_input_names_the_line(run: Run, folder: Path, text: str, said: str) -> None:
    assert said in run("predict", "--state", str(folder), input=text, code=2).stderr


def test_a_wrong_label_column(run: Run, folder: Path) -> None:
    stderr = run("predict", "--state", str(folder), "--label", "trut", input="a,b,truth\n1,2,x\n", code=2).stderr
    assert "no column 'trut' for the label; did you mean 'truth'?" in stderr


def test_nothing_to_predict(run: Run, folder: Path) -> None:
    assert run("predict", "--state", str(folder), input="").stdout == ""
    assert run("predict", "--state", str(folder), input="a,b\n").stdout == ""


def test_alone_is_passed_on(run: Run, folder: Path) -> None:
    assert answers(run("predict", "--alone", "--state", str(folder), input="a,b\n0,8\n").stdout) == ["blue"]


def test_it_works_while_an_agent_holds_the_folder_and_changes_nothing(run: Run, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}
    with Store(folder):
        assert answers(run("predict", "--state", str(folder), input="a,b\n0,8\n").stdout) == ["blue"]
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}


def test_no_state(run: Run, tmp_path: Path) -> None:
    assert "there is no state folder" in run("predict", "--state", str(tmp_path / "none"), input="", code=75).stderr
    assert "nothing is saved" in run("predict", "--state", str(tmp_path), input="", code=75).stderr


def test_a_state_of_another_kind(run: Run, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.save({"strategy": {"strategy": "walk", "schema": 1}, "features": []})
    assert "not one this version can use" in run("predict", "--state", str(tmp_path), input="", code=75).stderr


def test_no_file(run: Run, folder: Path) -> None:
    assert "nowhere.csv" in run("predict", "--state", str(folder), "nowhere.csv", code=2).stderr


RING = ("ann", "bob", "cid", "dan", "eve")


@pytest.mark.parametrize("kind", ["ring", "edges"])
def test_what_is_averaged_with_neighbours_is_the_average_that_the_device_answers_with(
    kind: str, run_json: Callable[..., Any], tmp_path: Path
) -> None:
    """All five are there and known; ann hears two of them."""
    write(perceptron(("no", "yes"), np.zeros(3), np.ones(3), 4), tmp_path / "model.esm")
    (tmp_path / "edges").write_text("".join(f"{a} {b}\n" for a, b in pairwise((*RING, RING[0]))))
    graph = GraphConfig("ring", RING) if kind == "ring" else GraphConfig("edges", file=str(tmp_path / "edges"))
    files = Files(ModelConfig(str(tmp_path / "model.esm")), graph=graph)
    found, knobs = equip(files, ComputeConfig(backend="reference"), None, node="ann"), StrategyConfig("body_average")
    raw = Schema("task", ("x0", "x1", "x2"), "", "")
    strategy = found.equipped(build_strategy(knobs), raw.fingerprint)
    state = strategy.load("ann", strategy.dump(strategy.init("ann", 1)))
    size, rng = strategy.split(state.params)[0].size, np.random.default_rng(1)
    copies = {f"{name}/body": Copy(1, 1, rng.normal(size=size).astype(np.float32), 0.0, 0.0, 9) for name in RING[1:]}
    state = replace(state, peers=RING[1:], copies=copies, rounds=1)
    folder = tmp_path / "state"
    with Store(folder) as store:
        also = described(raw, found, files, knobs, "ann")
        store.save({"strategy": strategy.dump(state), "features": list(raw.features), **also})
    (tmp_path / "edges").unlink()  # what was learnt with is what counts, not what the file says now
    saved = load(folder)
    assert np.array_equal(saved.strategy.served(saved.state), strategy.served(state))
    x = rng.normal(size=(20, 3)).astype(np.float32)
    answers, sure = finish(strategy.predict(state, x), found.backend.answer)
    text = "x0,x1,x2\n" + "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())
    shown = run_json("predict", "--state", str(folder), input=text)["predictions"]
    assert [each["class"] for each in shown] == answers
    assert [each["confidence"] for each in shown] == pytest.approx(sure.tolist(), abs=6e-5)  # four digits are shown


def test_a_stream_is_answered_row_by_row() -> None:
    """The reader must not run ahead of the answers: a sensor at the other end waits for each."""
    taken = []

    def lines() -> Any:
        for line in ("a,b\n", "1,2\n", "3,4\n"):
            taken.append(line)
            yield line

    rows = read_rows(lines(), ("a", "b"), "", "stdin")
    next(rows)
    assert taken == ["a,b\n", "1,2\n"]
    next(rows)
    assert taken[-1] == "3,4\n"


@pytest.mark.parametrize(
    "text", ["\x00", "{", "[", "{}", "[[]]", '{"a": [1]}', '"a', "a,b\n\x00,\x01\n", "[1e999, 2]", "[true, false]"]
)
def test_odd_bytes_give_a_row_or_a_data_error(text: str) -> None:
    try:
        rows = list(read_rows(text.splitlines(keepends=True), ("a", "b"), "", "x"))
    except DataError:
        return
    assert all(row.x is None or np.isfinite(row.x).all() for row in rows)


def test_json_lines_of_json_output_are_one_object(run: Run, folder: Path) -> None:
    assert json.loads(run("predict", "--state", str(folder), "--json", input="").stdout)["rows"] == 0
