"""`edgeswarm public`: what is made can be shown, and holds no labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeswarm.cli import group
from edgeswarm.models.public import read


def run(*words: object) -> Any:
    return CliRunner().invoke(group, ["public", *map(str, words)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.normal(size=(60, 4)).astype(np.float32), y=np.resize(np.array(["b", "a", "c"]), 60))
    return path


def test_make_then_show(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "set.npz"
    made = run("make", data, "-o", out, "--rows", 20, "--json")
    assert made.exit_code == 0, made.output
    facts = json.loads(made.stdout)
    public = read(out)
    assert (facts["rows"], facts["features"], facts["classes"]) == (20, 4, ["a", "b", "c"])
    assert facts["hash"] == public.hash
    with np.load(data) as archive:
        assert {tuple(row) for row in public.x} <= {tuple(row) for row in archive["x"]}
    shown = json.loads(run("show", out, "--json").stdout)
    assert shown["hash"] == public.hash
    assert shown["message_bytes"]["top2"] <= shown["message_bytes"]["uint8"] < shown["message_bytes"]["float32"]
    assert public.hash in run("show", out).stdout
    again = run("make", data, "-o", tmp_path / "again.npz", "--rows", 20)
    assert "20 of 60 samples of 4 numbers, 3 classes, no labels" in again.stdout
    assert (tmp_path / "again.npz").read_bytes() == out.read_bytes()


def test_the_choice_can_be_even_and_the_classes_given(tmp_path: Path, data: Path) -> None:
    run("make", data, "-o", tmp_path / "a.npz", "--rows", 20, "--random", "--labels", "c, b, a", "--set-version", "2")
    public = read(tmp_path / "a.npz")
    assert (public.classes, public.version) == (("c", "b", "a"), "2")
    run("make", data, "-o", tmp_path / "b.npz", "--rows", 20, "--random", "--seed", 1)
    assert not np.array_equal(read(tmp_path / "b.npz").x, public.x)


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, data: Path) -> None:
    for words, text in (
        (("show", tmp_path / "none.npz"), "none.npz: no such file"),
        (("show", data), "no public set, or damaged"),
        (("make", tmp_path / "none.csv", "-o", tmp_path / "a.npz"), "none.csv"),
        (("make", data, "-o", tmp_path / "no" / "a.npz"), "a.npz"),
        (("make", data, "-o", tmp_path / "a.npz", "--labels", "one"), "2 to 256 different classes"),
    ):
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert text in result.stderr
        assert result.stderr.count("\n") == 1


def test_another_set_is_not_replaced_unasked(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "set.npz"
    assert run("make", data, "-o", out, "--rows", 20).exit_code == 0
    before = out.read_bytes()
    assert run("make", data, "-o", out, "--rows", 20).exit_code == 0, "the same set again changes nothing"
    refused = run("make", data, "-o", out, "--rows", 10)
    assert refused.exit_code != 0 and "--force" in refused.stderr and out.read_bytes() == before
    assert run("make", data, "-o", out, "--rows", 10, "--force").exit_code == 0 and len(read(out).x) == 10
    assert run("make", data, "-o", data, "--rows", 10).exit_code != 0, "the samples themselves least of all"
