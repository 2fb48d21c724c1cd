"""The worker thread: who goes first, what a hot board does, and that it ends when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

from edgeswarm.agent.compute import Compute, Sets, Stopped, TooHot
from edgeswarm.agent.heat import Verdict
from edgeswarm.backends.base import LocalEpoch, PaperDistance, Predict, Trained
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.strategies.base import equipped
from edgeswarm.strategies.isolated import Isolated
from tests.tiny_model import tiny

PATIENCE_S = 20.0
MODEL = tiny((2,))
X = np.zeros((3, 2), np.float32)


class Thermometer:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.hot = False

    def verdict(self) -> Verdict:
        return Verdict(True, 84.0, 85.0, "cpu is at 84 °C") if self.hot else Verdict(False, 40.0, 85.0, "")


class Backend(ReferenceBackend):
    """The reference, with its own idea of what happens before each request."""

    def __init__(self) -> None:
        super().__init__()
        self.load(MODEL)
        self.done: list[str] = []
        self.before: Callable[[Any], None] = lambda request: None

    def answer(self, request: Any) -> Any:
        self.before(request)
        answer = super().answer(request)
        self.done.append(type(request).__name__)
        return answer


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def make(backend: Backend) -> Iterator[Callable[..., Compute]]:
    made: list[Compute] = []

    def compute(**how: Any) -> Compute:
        made.append(Compute(backend, **how))
        return made[-1]

    yield compute
    for each in made:
        each.stop()
        assert each.join(PATIENCE_S)


def epoch(steps: int = 4) -> LocalEpoch:
    strategy = equipped(Isolated(steps=steps, batch=2), 7, MODEL)
    state = strategy.init("ann", 1)
    rows = state.rows.added(X, np.zeros(3, np.int64))
    return strategy.epoch(state.params, state.moments, rows, 1, 0)


def predict() -> Predict:
    return Predict(MODEL.card.hash, X, MODEL.initial)


def result(future: Future[Any]) -> Any:
    return future.result(PATIENCE_S)


def held(compute: Compute) -> Callable[[], None]:
    """Keep the worker busy until the returned function is called."""
    go, busy = threading.Event(), threading.Event()

    def wait() -> None:
        busy.set()
        go.wait(PATIENCE_S)

    compute.submit(wait)
    assert busy.wait(PATIENCE_S)
    return go.set


def test_what_somebody_waits_for_goes_first(make: Callable[..., Compute], backend: Backend) -> None:
    compute = make()
    go = held(compute)
    training, answer = compute.answer(epoch()), compute.answer(predict(), first=True)
    go()
    assert isinstance(result(training), Trained) and result(answer)["logits"].shape == (3, 2)
    assert backend.done == ["Predict", "LocalEpoch"]


def test_an_inference_is_answered_between_two_steps_of_an_epoch(make: Callable[..., Compute], backend: Backend) -> None:
    compute = make()
    asked: list[Future[Any]] = []
    between = backend.between
    done_then = []

    def counted() -> None:
        if not asked:
            asked.append(compute.answer(predict(), first=True))
        between()
        done_then.append(asked[0].done())

    backend.between = counted
    trained = result(compute.answer(epoch(4)))
    assert done_then == [True] * 3, "it was answered before the second step, not after the last"
    assert backend.done == ["Predict", "LocalEpoch"]
    alone = ReferenceBackend()
    alone.load(MODEL)
    assert np.array_equal(trained.params, alone.answer(epoch(4)).params), "the epoch is none the worse for it"


def test_a_hot_board_does_not_begin_to_train_but_answers(make: Callable[..., Compute], backend: Backend) -> None:
    heat, said, told = Thermometer(), list[Verdict](), threading.Event()

    def changed(verdict: Verdict) -> None:
        said.append(verdict)
        told.set()

    compute = make(heat=heat, changed=changed)
    heat.hot = True
    with pytest.raises(TooHot, match="cpu is at 84"):
        result(compute.answer(epoch()))
    assert result(compute.answer(predict())) and backend.done == ["Predict"]
    assert [verdict.too_hot for verdict in said] == [True] and compute.verdict.temperature_c == 84.0
    told.clear()
    heat.hot = False
    assert told.wait(PATIENCE_S), "nobody asked, and still it noticed that it had cooled down"
    assert not said[-1].too_hot and isinstance(result(compute.answer(epoch())), Trained)


def test_an_epoch_under_way_waits_for_a_while_and_goes_on(make: Callable[..., Compute], backend: Backend) -> None:
    heat = Thermometer()
    compute = make(heat=heat, patience_s=PATIENCE_S, changed=lambda verdict: setattr(heat, "hot", False))
    between = backend.between

    def warmer() -> None:
        heat.hot = not backend.done
        between()
        backend.done.append("step")

    backend.between = warmer
    assert isinstance(result(compute.answer(epoch(3))), Trained)
    assert backend.done == ["step", "step", "LocalEpoch"]


def test_an_epoch_is_given_up_when_it_stays_hot_and_inference_is_answered_meanwhile(
    make: Callable[..., Compute], backend: Backend
) -> None:
    heat = Thermometer()
    compute = make(heat=heat, patience_s=0.2)
    between = backend.between
    asked: list[Future[Any]] = []

    def hotter() -> None:
        heat.hot = True
        asked.append(compute.answer(predict(), first=True))
        between()

    backend.between = hotter
    request = epoch(3)
    kept = request.params.copy()
    with pytest.raises(TooHot):
        result(compute.answer(request))
    assert result(asked[0]) and backend.done == ["Predict"]
    assert np.array_equal(request.params, kept), "what was asked with is as it was"


def test_stopping_gives_up_an_epoch_between_two_steps_and_all_that_waits(backend: Backend) -> None:
    compute = Compute(backend)
    between, steps = backend.between, []

    def last() -> None:
        steps.append(1)
        compute.stop()
        between()

    backend.between = last
    go = held(compute)
    training, waiting = compute.answer(epoch(1000)), compute.answer(predict())
    go()
    with pytest.raises(Stopped):
        result(training)
    with pytest.raises(CancelledError):
        result(waiting)
    assert compute.join(PATIENCE_S) and steps == [1] and not backend.done
    with pytest.raises(CancelledError):
        result(compute.answer(predict()))


def test_trouble_reaches_whoever_asked_and_the_thread_lives_on(make: Callable[..., Compute], backend: Backend) -> None:
    compute = make()

    def full(request: Any) -> None:
        raise MemoryError

    backend.before = full
    with pytest.raises(OutOfMemory, match="not enough memory"):
        result(compute.answer(epoch()))
    backend.before = lambda request: None
    with pytest.raises(ModelError, match="no model 'x' is loaded"):
        result(compute.answer(Predict("x", X)))
    with pytest.raises(ZeroDivisionError):
        result(compute.submit(lambda: 1 / 0))
    assert result(compute.answer(predict()))["embedding"].shape == (3, 4)


def test_a_question_that_was_withdrawn_is_not_answered(make: Callable[..., Compute], backend: Backend) -> None:
    compute = make()
    go = held(compute)
    withdrawn, other = compute.answer(epoch()), compute.answer(predict())
    assert withdrawn.cancel()
    go()
    assert result(other) and backend.done == ["Predict"]


def test_sets_of_prototypes_need_no_model() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32), np.zeros(20, np.int32)
    request = PaperDistance(points, points, 1)
    assert Sets().answer(request) == Sets().answer_all([request])[0] < 0.2
    with pytest.raises(TypeError):
        Sets().answer(predict())
