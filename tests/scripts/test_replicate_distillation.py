"""The parts of scripts/replicate/multi_headed_distillation.py: who lies about what, and lines that can fail."""

from __future__ import annotations

from typing import Any

import multi_headed_distillation as mhd
import numpy as np
import pytest
from tables import drawn, missed


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
                      "unseen": {kind: [0.0, 80.0] for kind in plan.kinds},
                      "bytes": 1.0 if arm == "ours" else 100.0, "seconds": 1.0}]  # fmt: skip
    return runs


WHOLE = """
separate: beta_sh < 55, beta_priv > 92
rank 1 beats separate by >= 30
main beta_priv at most 1 below separate
main beta_sh beats separate by >= 8
beats mean and random by >= 4, rank 1
cycle: rank 3 beats rank 1 by >= 3
complete: no rank beats rank 1 by > 2
islands >= 10 below complete, every rank
s = 0: not below separate
top-2 uint8 loses at most 1, rank 1
ours: rank 1 beats separate by >= 30
ours: >= 30 times fewer bytes than float32
... rank 1 at most 1 lower
... beta_priv at most 1 below separate
unlike models: every kind gains >= 40 on classes that it never saw
next: costs <= 2, rank 1
one class: costs <= 2, rank 1
aimed: costs <= 2, rank 1
turncoat: costs <= 2, rank 1
own honest: costs <= 2, rank 1
says nothing
next: to the published form
aimed: to the published form
""".strip().splitlines()
"""What a run of every arm decides, or reports."""


def wanted(runs: Any) -> list[str]:
    return [line.wanted for line in drawn(mhd.LINES, runs)]


def unmet(runs: Any, asked: Any = mhd.LINES) -> set[str]:
    return {line.wanted for line in drawn(asked, runs) if line.met is False}


def test_a_whole_run_decides_every_line_and_another_asked_for_arm_none_less() -> None:
    assert wanted(invented()) == WHOLE
    assert not any(
        "no number" in line.ours for asked in (mhd.LINES, mhd.CIFAR_LINES) for line in drawn(asked, invented())
    )
    assert wanted({arm: [] for arm in mhd.ARMS}) == WHOLE == [line.wanted for line in mhd.LINES]
    assert len(missed(drawn(mhd.LINES, {arm: [] for arm in mhd.ARMS}))) == len(WHOLE), "no number is not met"


@pytest.mark.parametrize("figure", ["private", "shared", "shared_others", "bytes"])
def test_a_figure_under_another_name_is_missed(figure: str) -> None:
    runs = invented()
    for (one,) in runs.values():
        one["mistaken"] = one.pop(figure)
    assert wanted(runs) == WHOLE
    assert any(f"no number: KeyError('{figure}')" in text for text in missed(drawn(mhd.LINES, runs)))


def test_each_liar_is_judged_by_a_line_of_its_own() -> None:
    lies = {liar: f"{liar}: costs <= 2, rank 1" for liar in mhd.LIARS}
    assert not set(lies.values()) & unmet(invented())
    for liar, line in lies.items():
        assert unmet(invented(**{f"ours, {liar}": 85.9})) & set(lies.values()) == {line}
    assert not unmet(invented(**{"ours, silent": 80.0})) & set(lies.values())


def test_one_kind_of_model_that_does_not_learn_from_the_others_is_enough_to_miss_the_line() -> None:
    runs = invented()
    line = "unlike models: every kind gains >= 40 on classes that it never saw"
    assert line not in unmet(runs)
    for kind in set(mhd.ARMS["unlike models"].kinds):
        runs["unlike models"][0]["unseen"][kind] = [41.0, 80.0]
        assert line in unmet(runs)
        runs["unlike models"][0]["unseen"][kind] = [0.0, 80.0]


def test_arms_that_were_left_out_decide_nothing() -> None:
    runs = invented()
    del runs["separate"]
    assert set(WHOLE) - set(wanted(runs)) == {
        each for each in WHOLE if "separate" in each and not each.startswith("s = 0")
    }
    assert wanted({arm: runs[arm] for arm in ("top-2, uint8", "MHD, m = 1")}) == ["top-2 uint8 loses at most 1, rank 1"]
    assert drawn(mhd.LINES, {}) == drawn(mhd.CIFAR_LINES, {}) == [] and missed([])


def test_an_arm_that_nobody_knows_is_missed() -> None:
    beats = mhd.beats(mhd.Beta("ours"), mhd.Beta("separated"), least=0)
    (line,) = drawn([mhd.Asked("claim", "wanted", beats)], {"ours": invented()["ours"]})
    assert line.met is False and "separated" in line.ours


def test_cifar_is_judged_by_lines() -> None:
    good = {"separate": 60.0}
    assert unmet(invented(**good), mhd.CIFAR_LINES) == set()
    assert unmet(invented(**good, ours=66.0), mhd.CIFAR_LINES) == {
        "CIFAR-10: ours: rank 1 beats separate by >= 8", "CIFAR-10: ... rank 1 at most 1 below float32",
    }  # fmt: skip
    dear = invented(**good)
    dear["ours"][0]["bytes"] = 4.0
    assert unmet(dear, mhd.CIFAR_LINES) == {"CIFAR-10: >= 30 times fewer bytes"}
