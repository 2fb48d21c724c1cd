"""The agent when arithmetic fails, when the board is hot, and when it is stopped in the middle of an epoch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_process import PATIENCE_S, csv_file

from edgeswarm.agent import learner
from edgeswarm.agent.config import load
from edgeswarm.agent.heat import Heat, Verdict
from edgeswarm.agent.ledger import NAME
from edgeswarm.agent.service import Service
from edgeswarm.agent.store import Store
from edgeswarm.backends.base import LocalEpoch, Request
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import OutOfMemory
from edgeswarm.models.file import write
from tests.tiny_model import tiny


@pytest.fixture
def make(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Service]:
    """An agent of `isolated` in this process, without a broker; its state folder is tmp_path / "state"."""
    caplog.set_level("INFO", "edgeswarm")
    write(tiny((4,), ("0", "1", "2")), tmp_path / "model.esm")
    csv_file(tmp_path / "a.csv", 100)

    def service(**knobs: Any) -> Service:
        overrides = {
            "node": "n",
            "broker.url": "mqtt://127.0.0.1:1",
            "source.kind": "csv",
            "source.path": str(tmp_path / "a.csv"),
            "strategy.name": "isolated",
            "model.path": str(tmp_path / "model.esm"),
            "compute.backend": "reference",
            "state.folder": str(tmp_path / "state"),
            "report.every_s": 0.1,
            **{f"strategy.{name}": value for name, value in {"period_s": 0.1, **knobs}.items()},
        }
        config, _ = load(None, overrides, {}, tmp_path / "root", cwd=tmp_path)
        return Service(config)

    return service


def live(service: Service, until: Callable[[dict[str, float]], Any]) -> dict[str, float]:
    """Run it until `until(notes)` is true; the notes then."""

    async def run() -> dict[str, float]:
        running = asyncio.ensure_future(service.run())
        end = time.monotonic() + PATIENCE_S
        while not until(service.report()["notes"]):
            assert not running.done() and time.monotonic() < end, service.report()["notes"]
            await asyncio.sleep(0.02)
        notes: dict[str, float] = service.report()["notes"]
        service.stop()
        await running
        return notes

    return asyncio.run(run())


def saved(tmp_path: Path) -> dict[str, Any]:
    kept = Store(tmp_path / "state").load()
    assert kept is not None
    return kept


def decisions(tmp_path: Path) -> str:
    return (tmp_path / "state" / NAME).read_text()


def test_no_memory_for_a_step_is_said_once_and_it_comes_again(
    make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(learner, "AGAIN_S", 0.05)
    answer, left = ReferenceBackend.answer, [3]

    def full(self: ReferenceBackend, request: Request) -> Any:
        if isinstance(request, LocalEpoch) and left[0]:
            left[0] -= 1
            raise OutOfMemory("no memory for a LocalEpoch: use fewer rows at once")
        return answer(self, request)

    monkeypatch.setattr(ReferenceBackend, "answer", full)
    notes = live(make(steps=2), lambda notes: notes.get("steps", 0) >= 4)
    assert notes["out_of_memory"] == 3 and "faults" not in notes and notes["samples"] == 100
    said = [record.message for record in caplog.records if "no memory for a LocalEpoch" in record.message]
    assert len(said) == 1 and "nothing has changed" in said[0]
    assert decisions(tmp_path).count('"out_of_memory"') == 3
    assert saved(tmp_path)["strategy"]["moments"]["step"] >= 4


def test_a_hot_board_pauses_says_so_and_goes_on(
    make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hot = [True]
    cpu = "cpu-thermal is at 84 °C, 1 °C below its limit of 85 °C"
    monkeypatch.setattr(
        Heat,
        "verdict",
        lambda self: Verdict(True, 84.0, 85.0, cpu) if hot[0] else Verdict(False, 60.0, 85.0, ""),
    )
    paused: list[dict[str, float]] = []

    def until(notes: dict[str, float]) -> bool:
        if hot[0] and notes.get("too_hot") and notes.get("samples") == 100:
            paused.append(notes)
            hot[0] = False
        return notes.get("steps", 0) > 0 and not notes["training_paused"]

    notes = live(make(), until)
    assert paused[0]["training_paused"] == 1 and paused[0]["temperature_c"] == 84 and "steps" not in paused[0]
    assert notes["temperature_c"] == 60 and "faults" not in notes
    said = [record.message for record in caplog.records if "training" in record.message]
    assert said == [f"training pauses: {cpu}", "training goes on"]
    assert '"paused"' in decisions(tmp_path) and '"resumed"' in decisions(tmp_path)


def test_stopped_in_the_middle_of_an_epoch_it_ends_and_keeps_what_it_had(
    make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    answer = ReferenceBackend.answer

    def watched(self: ReferenceBackend, request: Request) -> Any:
        if isinstance(request, LocalEpoch):
            begun.append(time.monotonic())
        return answer(self, request)

    monkeypatch.setattr(ReferenceBackend, "answer", watched)
    long = {"steps": 10_000, "batch": 256, "window": 256}  # minutes of arithmetic
    service = make(**long)
    live(service, lambda notes: bool(begun))
    kept = saved(tmp_path)
    assert kept["strategy"]["moments"]["step"] == 0 and kept["strategy"]["samples"] == kept["source_taken"]
    assert service._compute is not None and service._compute.join(0.0), "the thread has ended"


def test_samples_are_learnt_while_nothing_can_be_trained(
    make: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate beyond all reason: every epoch leaves the finite numbers, and the node lives on."""
    notes = live(
        make(rate=1e3, clip=0.0, weight_decay=10.0, steps=40),
        lambda notes: notes.get("samples") == 100 and notes.get("model_error", 0) >= 2,
    )
    assert "steps" not in notes and "faults" not in notes
    assert '"not_finite"' in decisions(tmp_path)
