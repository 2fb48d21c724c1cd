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
    y = np.array([2, 9, 3])
    crude, aimed = mhd.told_lies(y), mhd.told_lies(y, 9)
    assert crude.argmax(axis=1).tolist() == [3, 0, 4] and crude.max(axis=1).tolist() == [1, 1, 1]
    assert (aimed[[0, 2]] == np.float32(0.1)).all() and aimed[1].argmax() == 0 and aimed[1, 0] == 1


def invented(**shared: float) -> Any:
    """Runs in which every arm has the same figures but for those given."""
    runs = {}
    for arm, plan in mhd.ARMS.items():
        each = [shared.get(arm, 88.0)] * (plan.heads + 1)
        runs[arm] = [{"private": [97.0] * len(each), "shared": each, "private_others": each, "shared_others": each,
                      "bytes": 1.0 if arm == "ours" else 100.0, "seconds": 1.0}]  # fmt: skip
    return runs


def unmet(lines: list[Any]) -> set[str]:
    return {line.line for line in lines if line.met is False}


def test_the_worse_of_both_liars_counts() -> None:
    lies = {f"the worse liar costs <= 2, rank 1, against {what}" for what in ("silence", "honesty")}
    assert not lies & unmet(mhd.lines_of(invented()))
    for liar in mhd.LIARS:
        assert lies <= unmet(mhd.lines_of(invented(**{liar: 85.9})))


def test_cifar_is_judged_by_lines() -> None:
    good = {"separate": 60.0}
    assert unmet(mhd.full_lines(invented(**good))) == set()
    assert unmet(mhd.full_lines(invented(**good, ours=66.0))) == {
        "CIFAR-10: ours: rank 1 beats separate by >= 8", "CIFAR-10: ... rank 1 at most 1 below float32",
    }  # fmt: skip
    dear = invented(**good)
    dear["ours"][0]["bytes"] = 4.0
    assert unmet(mhd.full_lines(dear)) == {"CIFAR-10: >= 30 times fewer bytes"}
