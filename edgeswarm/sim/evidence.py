"""What an examination can tell of two methods: the same devices are asked about the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeswarm.sim.evaluation import Exam, right, weights

Answers = NDArray[np.float64]
"""(devices, rows): what each answer is worth; the mean of all is the mean mark of the devices."""


def worth(exam: Exam, answers: Mapping[str, Sequence[str | None]]) -> dict[str, Answers]:
    """By goal (`sim.methods.GOALS`), what the answers of each device are worth."""
    common = np.array([right(exam, said) for said in answers.values()])
    own = np.array([len(exam.y) * weights(exam, name) for name in answers])
    return {"common": common, "own": common * own}


def error(one: Answers, other: Answers) -> float:
    """Standard error of the difference of their means, for other rows and other devices of the same kind.

    Of both by itself, and added up, as if they were drawn independently. Half a row that only `one` knew and half a row
    that only `other` knew are added, so that a few rows without a difference are no proof of there being none (A.
    Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
    24, 2005). What another seed changes in the training itself is not in it.
    """
    apart = one - other
    rows, devices = apart.mean(axis=0), apart.mean(axis=1)
    count = len(rows) + 1
    of_rows = ((rows**2).sum() + 1 - rows.sum() ** 2 / count) / count**2
    of_devices = devices.var(ddof=1) / len(devices) if len(devices) > 1 else 0.0
    return float(np.sqrt(of_rows + of_devices))
