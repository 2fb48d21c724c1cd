"""What an examination can tell: marks row by row, and the error of a difference of two methods."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.sim.evaluation import Exam, Marks, marks
from edgeswarm.sim.evidence import error, worth


def test_the_mean_of_what_answers_are_worth_is_the_mark() -> None:
    mixes = {"n1": np.array([0.9, 0.1, 0.0]), "n2": np.array([0.0, 0.5, 0.5])}  # nobody is asked about the third
    exam = Exam(np.zeros((5, 1), np.float32), np.array([0, 0, 0, 1, 1]), ("a", "b", "c"), mixes)
    answers = {"n1": ("a", "a", "b", "b", None), "n2": ("b", "b", "b", "b", "b")}
    found = worth(exam, answers)
    for at, (name, said) in enumerate(answers.items()):
        own, common = (float(found[goal][at].mean()) for goal in ("own", "common"))
        assert marks(exam, name, said) == Marks(pytest.approx(common), pytest.approx(own))
    assert found["own"][1].mean() == 1.0 and found["common"][1].mean() == 0.4


def test_the_error_is_that_of_paired_answers() -> None:
    none = np.zeros((4, 300))
    assert error(none, none) == pytest.approx(1 / 301), "few rows without a difference prove little"
    assert error(none[:, :2], none[:, :2]) == pytest.approx(1 / 3)
    alternate = none + np.tile([1.0, 0.0], 150)
    assert error(alternate, alternate) == error(none, none), "what is hard for both is no difference"
    assert error(alternate, none) == pytest.approx((0.25 / 300) ** 0.5, rel=0.02)
    lucky = none + np.array([1.0, 0.0, 0.0, 1.0])[:, None]
    assert error(lucky, none) == pytest.approx(np.std([1, 0, 0, 1], ddof=1) / 2, rel=0.02)


def test_two_errors_hold_what_chance_does() -> None:
    """Two methods that are as good, on rows and devices of unlike difficulty: the difference is beyond two of its
    errors in one draw of twenty or fewer."""
    rng = np.random.default_rng(1)
    far = []
    for _ in range(1000):
        hard = 0.9 * rng.random((1, 60)) * (0.7 + 0.3 * rng.random((6, 1)))
        one, other = ((rng.random((6, 60)) < hard).astype(float) for _ in range(2))
        far.append(abs(one.mean() - other.mean()) > 2 * error(one, other))
    assert np.mean(far) < 0.05
