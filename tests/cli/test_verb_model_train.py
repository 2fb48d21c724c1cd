"""`edgeswarm model train`: learns, writes a new file, and leaves everything as it was when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run
from model_world import blobs, model_file

from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.cli.model.train import KINDS, SCHEDULES
from edgeswarm.errors import OutOfMemory
from edgeswarm.maths import optimisers
from edgeswarm.models.file import read

QUICK = ("--epochs", "3", "--batch", "16", "--rate", "0.05", "--backend", "onnx")


@pytest.fixture
def start(tmp_path: Path) -> Path:
    return model_file(tmp_path)[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return blobs(tmp_path / "data.npz")


def test_what_is_offered_is_what_there_is() -> None:
    assert KINDS == optimisers.KINDS and SCHEDULES == optimisers.SCHEDULES


@pytest.mark.parametrize("backend", ["onnx", "reference"])
def test_it_learns(
    run_json: Callable[..., Any], run: Run, start: Path, data: Path, tmp_path: Path, backend: str
) -> None:
    before = start.read_bytes()
    out = tmp_path / "out.esm"
    told = run_json("model", "train", str(start), "--data", str(data), "-o", str(out), *QUICK, "--backend", backend)
    assert set(told) == {"file", "hash", "backend", "steps", "seconds", "interrupted", "accuracy_before", "accuracy",
                         "epochs"}  # fmt: skip
    assert told["accuracy"] > 0.95 > told["accuracy_before"] and told["interrupted"] is False
    assert told["steps"] == 3 * 12 and [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3]
    assert told["epochs"][2]["loss"] < told["epochs"][0]["loss"]
    assert start.read_bytes() == before
    old, new = read(start), read(out)
    assert told["hash"] == new.card.hash != old.card.hash
    assert not np.array_equal(new.initial, old.initial) and dict(new.graphs) == dict(old.graphs)
    assert new.card.producer["trained_from"] == old.card.hash
    run("model", "check", str(out), "--no-timing", "--backend", "reference")
    run("model", "check", str(out), "--no-timing", "--backend", "onnx")


def test_words_and_numbers(run: Run, start: Path, data: Path, tmp_path: Path) -> None:
    result = run("model", "train", str(start), "--data", str(data), "-o", str(tmp_path / "o.esm"), *QUICK)
    assert "192 samples to learn from, 48 held out" in result.stderr
    assert all(f"epoch {number}/3: loss" in result.stderr for number in (1, 2, 3))
    assert "held out" in result.stdout and "36 in" in result.stdout and "o.esm, hash" in result.stdout
    quiet = run("model", "train", str(start), "--data", str(data), "-o", str(tmp_path / "p.esm"), *QUICK, "-q")
    assert quiet.stderr == ""


def test_the_same_seed_gives_the_same_file(run: Run, start: Path, data: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.esm"
        run("model", "train", str(start), "--data", str(data), "-o", str(out), *QUICK, "--seed", seed)
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimiser(run_json: Callable[..., Any], start: Path, data: Path, tmp_path: Path, kind: str) -> None:
    words = ("--epochs", "4", "--batch", "16", "--rate", "0.02", "--optimiser", kind, "--backend", "reference")
    told = run_json("model", "train", str(start), "--data", str(data), "-o", str(tmp_path / "o.esm"), *words)
    assert told["epochs"][-1]["loss"] < told["epochs"][0]["loss"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule(run: Run, start: Path, data: Path, tmp_path: Path, schedule: str) -> None:
    run("model", "train", str(start), "--data", str(data), "-o", str(tmp_path / "o.esm"), *QUICK,
        "--schedule", schedule, "--warmup", "5", "--weight-decay", "0.001", "--clip", "1")  # fmt: skip


def test_proximal_stays_near(run: Run, start: Path, data: Path, tmp_path: Path) -> None:
    moved = []
    for mu in ("0", "5"):
        out = tmp_path / f"{mu}.esm"
        run("model", "train", str(start), "--data", str(data), "-o", str(out), *QUICK, "--proximal", mu)
        moved.append(float(np.linalg.norm(read(out).initial - read(start).initial)))
    assert moved[1] < 0.6 * moved[0]


def test_a_folder_and_onto_itself(run: Run, data: Path, tmp_path: Path) -> None:
    path, model = model_file(tmp_path, form="")
    run("model", "train", str(path), "--data", str(data), "-o", str(path), *QUICK)
    assert read(path).card.producer["trained_from"] == model.card.hash


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    """From the `at`-th request for steps on, the reference backend raises."""
    from edgeswarm.backends.base import LocalEpoch

    whole, count = ReferenceBackend.answer, 0

    def answer(self: ReferenceBackend, request: Any) -> Any:
        nonlocal count
        if isinstance(request, LocalEpoch):
            count += 1
            if count >= at:
                raise error
        return whole(self, request)

    monkeypatch.setattr(ReferenceBackend, "answer", answer)


def test_ctrl_c_writes_what_was_trained_so_far(
    run: Run, start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tmp_path / "one.esm"
    run("model", "train", str(start), "--data", str(data), "-o", str(one), *QUICK[2:6], "--epochs", "1",
        "--backend", "reference")  # fmt: skip
    interrupted(monkeypatch, 2, KeyboardInterrupt())
    out = tmp_path / "o.esm"
    result = run(
        "model", "train", str(start), "--data", str(data), "-o", str(out), *QUICK, "--backend", "reference", code=130
    )
    assert "interrupted after 12 steps: writing what was trained so far" in result.stderr
    assert np.array_equal(read(out).initial, read(one).initial)


def test_ctrl_c_before_the_first_steps_writes_nothing(
    run: Run, start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, 1, KeyboardInterrupt())
    words = ("--data", str(data), "-o", str(tmp_path / "o.esm"), *QUICK, "--backend", "reference")
    assert "nothing was written" in run("model", "train", str(start), *words, code=130).stderr
    assert not (tmp_path / "o.esm").exists()


def failed(run: Run, start: Path, data: Path, *words: str, code: int) -> str:
    """The one line of a failure that leaves start file and output alone."""
    out = start.parent / "kept.esm"
    out.write_bytes(b"what was there")
    before = start.read_bytes()
    result = run("model", "train", str(start), "--data", str(data), "-o", str(out), *words, code=code)
    assert out.read_bytes() == b"what was there" and start.read_bytes() == before
    assert [path.name for path in start.parent.glob(".*")] == []
    lines = [line for line in result.stderr.splitlines() if line.startswith("edgeswarm: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr and result.stdout == ""
    return lines[0]


def test_out_of_memory_in_the_middle(run: Run, start: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 2, OutOfMemory("this step needs more memory than there is; use a smaller batch"))
    line = failed(run, start, data, *QUICK, "--backend", "reference", code=75)
    assert line == "edgeswarm: this step needs more memory than there is; use a smaller batch"


def test_a_rate_that_is_too_high(run: Run, start: Path, data: Path) -> None:
    line = failed(run, start, data, "--rate", "1e20", "--epochs", "2", "--batch", "16", "--backend", "onnx", code=2)
    assert "the loss is not finite at step" in line and "lower the rate" in line


def test_samples_of_another_shape(run: Run, start: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", x=np.zeros((9, 7)), y=np.arange(9) % 3)
    line = failed(run, start, tmp_path / "wide.npz", code=2)
    assert "wide.npz: 7 numbers a sample, but the model takes 6 (6)" in line


def test_a_class_that_the_model_does_not_know(run: Run, start: Path, tmp_path: Path) -> None:
    line = failed(run, start, blobs(tmp_path / "d.npz", names=("0", "1", "cat")), code=2)
    assert "d.npz: the model knows no class 'cat'; one of 0, 1, 2" in line


def test_data_that_is_not_there_or_damaged(run: Run, start: Path, tmp_path: Path) -> None:
    assert "no such file" in failed(run, start, tmp_path / "none.npz", code=2)
    (tmp_path / "cut.npz").write_bytes(blobs(tmp_path / "d.npz").read_bytes()[:500])
    assert "cut.npz: not an npz file, or a damaged one" in failed(run, start, tmp_path / "cut.npz", code=2)


def test_a_file_that_does_not_train(run: Run, start: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="wrapping an encoder needs onnx")
    from edgeswarm.export.encoder import wrap
    from edgeswarm.models.file import write
    from tests.export.networks import network, saved

    write(wrap(saved(network(), tmp_path / "a.onnx"), "a"), tmp_path / "a.esm")
    assert "does not train" in failed(run, tmp_path / "a.esm", data, code=2)


def test_something_else_in_the_way(run: Run, start: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    result = run("model", "train", str(start), "--data", str(data), "-o", str(tmp_path / "photos"), *QUICK, code=2)
    assert "is in the way and is no model" in result.stderr
    assert "samples to learn from" not in result.stderr  # it was tried before the work, not after
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_disk_that_fills_up_meanwhile_costs_nothing(
    run: Run, start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from edgeswarm.models import file

    out, spare = tmp_path / "out" / "m.esm", tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    written = file._write_archive

    def full(members: dict[str, bytes], path: Path) -> None:
        if path.parent == out.parent:
            raise OSError(28, os.strerror(28))
        written(members, path)

    monkeypatch.setattr(file, "_write_archive", full)
    result = run("model", "train", str(start), "--data", str(data), "-o", str(out), *QUICK, code=2)
    (kept,) = spare.iterdir()
    assert (
        f"No space left on device); check the path, its rights and the free space; what was trained is in {kept}"
        in result.stderr
    )
    assert not np.array_equal(read(kept).initial, read(start).initial)
    assert list(out.parent.iterdir()) == []


def test_a_short_last_batch_is_exact(run: Run, start: Path, tmp_path: Path) -> None:
    """One epoch in one step of all rows: the batch size beyond the rows changes nothing."""
    data = blobs(tmp_path / "few.npz", rows=25)
    files = []
    for batch in ("20", "512"):
        out = tmp_path / f"{batch}.esm"
        run("model", "train", str(start), "--data", str(data), "-o", str(out), "--epochs", "1", "--batch", batch,
            "--backend", "reference")  # fmt: skip
        files.append(read(out).initial)
    assert np.array_equal(*files)
