"""The parts of scripts/replicate/multi_headed_distillation.py: who lies about what, and lines that can fail."""

from __future__ import annotations

from typing import Any

import multi_headed_distillation as mhd
import numpy as np


def test_the_aimed_liar_lies_about_a_class_that_few_others_know_and_knows_nothing_else() -> None:
    mix = np.zeros((3, 4))
    mix[0, [0, 1]], mix[1, [1, 2]], mix[2, [0, 1]] = 0.5, 0.5, 0.5
    assert mhd.rare(mix, 0) == 0, "2 is known by one, 0 by one but the liar; 3 by nobody"
    assert mhd.rare(mix, 2) == 0 and mhd.rare(mix, 1) == 0


def test_every_kind_of_liar_lies_where_it_should() -> None:
    y, own = np.array([2, 9, 3]), np.arange(10) == 3
    lies = {kind: mhd.told_lies(kind, y, 9, own) for kind in mhd.LIARS}
    assert all(each.shape == (3, 10) and each[1, 0] == 1 for each in lies.values()), "9 is called 0 by all of them"
    assert lies["next"].argmax(axis=1).tolist() == [3, 0, 4] and (lies["next"].max(axis=1) == 1).all()
    assert (lies["one class"][:, 0] == 1).all()
    assert (lies["aimed"][[0, 2]] == np.float32(0.1)).all() and not lies["turncoat"][[0, 2]].any()
    assert lies["own honest"][0, 3] == 1 and not lies["own honest"][2].any()


def invented(**shared: float) -> Any:
    """Runs in which every arm has the same figures but for those given."""
    runs = {}
    for arm, plan in mhd.ARMS.items():
        each = [shared.get(arm, 88.0)] * (plan.heads + 1)
        runs[arm] = [{"private": [97.0] * len(each), "shared": each, "private_others": each, "shared_others": each,
                      "bytes": 1.0 if arm == "ours" else 100.0, "seconds": 1.0}]  # fmt: skip
    return runs


def unmet(lines: list[Any]) -> set[str]:
    return {line.wanted for line in lines if line.met is False}


def test_each_liar_is_judged_by_a_line_of_its_own() -> None:
    lies = {liar: f"{liar}: costs <= 2, rank 1" for liar in mhd.LIARS}
    assert set(lies.values()) <= {line.wanted for line in mhd.lines_of(invented())}
    assert not set(lies.values()) & unmet(mhd.lines_of(invented()))
    for liar, line in lies.items():
        assert unmet(mhd.lines_of(invented(**{f"ours, {liar}": 85.9}))) & set(lies.values()) == {line}
    assert not unmet(mhd.lines_of(invented(**{"ours, silent": 80.0}))) & set(lies.values())


def test_arms_that_were_left_out_decide_nothing() -> None:
    runs = invented()
    every = {line.wanted for line in mhd.lines_of(runs)}
    del runs["separate"]
    gone = every - {line.wanted for line in mhd.lines_of(runs)}
    assert gone == {wanted for wanted in every if "separate" in wanted and not wanted.startswith("s = 0")}
    assert mhd.lines_of({arm: runs[arm] for arm in ("top-2, uint8", "MHD, m = 1")})
    assert mhd.lines_of({}) == mhd.full_lines({}) == []


def test_cifar_is_judged_by_lines() -> None:
    good = {"separate": 60.0}
    assert unmet(mhd.full_lines(invented(**good))) == set()
    assert unmet(mhd.full_lines(invented(**good, ours=66.0))) == {
        "CIFAR-10: ours: rank 1 beats separate by >= 8", "CIFAR-10: ... rank 1 at most 1 below float32",
    }  # fmt: skip
    dear = invented(**good)
    dear["ours"][0]["bytes"] = 4.0
    assert unmet(mhd.full_lines(dear)) == {"CIFAR-10: >= 30 times fewer bytes"}
