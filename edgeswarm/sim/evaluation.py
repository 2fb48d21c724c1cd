"""Examining simulated devices: each is asked about samples that nobody learnt from, all of them in the same calls."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.compute import Answering
from edgeswarm.messages import Array
from edgeswarm.strategies.base import Request

T = TypeVar("T")

AT_ONCE = 64
"""Devices whose questions are put together: enough for a batched call, few enough for memory."""


@dataclass(frozen=True, eq=False)
class Exam:
    """x: (m, d) float32, as the devices learn them.  y: (m,) positions in `classes`.

    mixes: by device, the shares of the classes among its own samples (classes,).
    """

    x: Array
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    mixes: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Marks:
    """Parts of the answers that are right. common: of all classes as the exam has them.  own: with the classes in the
    proportions in which the device itself sees them."""

    common: float
    own: float


def marks(exam: Exam, name: str, answers: Sequence[str | None]) -> Marks:
    """How well device `name` did. Classes that the exam lacks count in neither."""
    place = {label: at for at, label in enumerate(exam.classes)}
    said = np.array([-1 if answer is None else place.get(answer, -1) for answer in answers], np.int64)
    right = (said == exam.y).astype(np.float64)
    asked = np.bincount(exam.y, minlength=len(exam.classes))
    by_class = np.bincount(exam.y, right, len(exam.classes)) / np.maximum(asked, 1)
    mix = np.where(asked > 0, exam.mixes[name], 0.0)
    own = float(by_class @ mix / mix.sum()) if mix.sum() > 0 else float(right.mean())
    return Marks(float(right.mean()), own)


def examined(nodes: Mapping[str, Any], exam: Exam, backend: Answering) -> dict[str, Marks]:
    """Marks by device. nodes: agents by name (`strategy` and `state` are asked, nothing is changed)."""
    found: dict[str, Marks] = {}
    names = list(nodes)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        steps = [nodes[name].strategy.predict(nodes[name].state, exam.x) for name in part]
        for name, (answers, _) in zip(part, together(steps, backend), strict=True):
            found[name] = marks(exam, name, answers)
    return found


def together(steps: Sequence[Generator[Request, Any, T]], backend: Answering) -> list[T]:
    """What the generators return, their requests answered side by side."""
    results: dict[int, T] = {}
    replies: dict[int, Any] = dict.fromkeys(range(len(steps)))
    while replies:
        asked: dict[int, Request] = {}
        for at, reply in replies.items():
            try:
                asked[at] = steps[at].send(reply)
            except StopIteration as stop:
                results[at] = stop.value
        replies = dict(zip(asked, backend.answer_all(list(asked.values())), strict=True)) if asked else {}
    return [results[at] for at in range(len(steps))]
