"""The hold-out: a number once there is an answer, and none before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from edgeswarm.agent.evaluation import HoldOut
from edgeswarm.agent.serving import Serving


class _Strategy:
    """Answers with what the state says, for every row."""

    def predict(self, state: str | None, x: Any, alone: bool = False) -> Any:
        return [state] * len(x), np.zeros(len(x))
        yield


def _now(work: Callable[[], Any]) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(work())
    return done


def test_before_the_first_answer_there_is_no_score() -> None:
    async def play() -> list[dict[str, float]]:
        agent: Any = SimpleNamespace(strategy=_Strategy(), state=None)
        compute: Any = SimpleNamespace(backend=SimpleNamespace(answer=None), submit=_now)
        serving = Serving(agent, compute, cast(Any, SimpleNamespace(trivial=True)))
        notes: dict[str, float] = {}
        held_out = HoldOut(np.zeros((4, 2), np.float32), ["a", "b", "a", "a"], serving, notes, Counter())
        seen = []
        for agent.state in (None, "c", "a"):
            await held_out.score()
            seen.append(dict(notes))
        return seen

    assert [each.get("holdout_swarm") for each in asyncio.run(play())] == [None, 0.0, 0.75]
