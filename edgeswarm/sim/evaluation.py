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

NOBODYS = -1
"""Place of a class that nobody learns: whatever is answered there is wrong, as on a device."""
AT_ONCE = 64
"""Devices whose questions are put together: enough for a batched call, few enough for memory."""


@dataclass(frozen=True, eq=False)
class Exam:
    """x: (m, d) float32, as the devices learn them.  y: (m,) positions in `classes`, or NOBODYS.

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


def right(exam: Exam, answers: Sequence[str | None]) -> NDArray[np.float64]:
    """1 for each answer that is right, else 0: (m,)."""
    place: dict[str | None, int] = {label: at for at, label in enumerate(exam.classes)}
    said = np.array([place.get(answer, NOBODYS) for answer in answers], np.int64)
    found: NDArray[np.float64] = ((said == exam.y) & (exam.y != NOBODYS)).astype(np.float64)
    return found


def weights(exam: Exam, name: str) -> NDArray[np.float64]:
    """What each answer counts with the classes as device `name` sees them: (m,), 1 in all. Classes that the exam lacks
    count for nothing."""
    known = exam.y != NOBODYS
    asked = np.bincount(exam.y[known], minlength=len(exam.classes))
    mix = np.where(asked > 0, exam.mixes[name], 0.0)
    if mix.sum() <= 0:
        return np.full(len(exam.y), 1 / len(exam.y))
    return np.where(known, (mix / mix.sum() / np.maximum(asked, 1))[exam.y], 0.0)


def marks(exam: Exam, name: str, answers: Sequence[str | None]) -> Marks | None:
    """How well device `name` did. None before there is any answer, as in `agent.serving.Serving.score`."""
    if all(answer is None for answer in answers):
        return None
    found = right(exam, answers)
    return Marks(float(found.mean()), float(found @ weights(exam, name)))


def answered(nodes: Mapping[str, Any], exam: Exam, backend: Answering) -> dict[str, Sequence[str | None]]:
    """What each device answers. nodes: agents by name (`strategy` and `state` are asked, nothing is changed)."""
    found: dict[str, Sequence[str | None]] = {}
    names = list(nodes)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        steps = [nodes[name].strategy.predict(nodes[name].state, exam.x) for name in part]
        for name, (answers, _) in zip(part, together(steps, backend), strict=True):
            found[name] = answers
    return found


def examined(nodes: Mapping[str, Any], exam: Exam, backend: Answering) -> dict[str, Marks | None]:
    """`marks` by device, of what is `answered`."""
    return {name: marks(exam, name, answers) for name, answers in answered(nodes, exam, backend).items()}


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
