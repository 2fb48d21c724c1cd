"""`edgeswarm model quantise`: an int8 encoder that is as good, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run

from edgeswarm.models.file import read, write
from tests.zoo import built

pytest.importorskip("onnx", reason="quantising needs the onnx package")
pytest.importorskip("onnxruntime", reason="quantising needs onnxruntime")


def heaps(path: Path, rows: int = 300, outlier: bool = False) -> Path:
    """Images of one bright quarter, four classes; outlier: the first is brighter by far than any image should be."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=rows)
    x = 0.2 * rng.random((rows, 8, 8), np.float32)
    for label, (top, left) in enumerate(((0, 0), (0, 4), (4, 0))):
        x[y == label, top : top + 4, left : left + 4] += 0.7
    if outlier:
        x[::7] *= 1e6
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CNN that knows the heaps."""
    from click.testing import CliRunner

    from edgeswarm.cli import group

    folder = tmp_path_factory.mktemp("trained")
    write(built("cnn", labels=3, shape=(1, 8, 8), options={"channels": (8, 16), "embedding": 64}), folder / "new.esm")
    words = ["model", "train", folder / "new.esm", "--data", heaps(folder / "data.npz"), "-o", folder / "cnn.esm",
             "--epochs", "8", "--rate", "0.05", "--backend", "onnx"]  # fmt: skip
    result = CliRunner().invoke(group, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "cnn.esm"


def test_as_good_and_smaller(run_json: Callable[..., Any], run: Run, trained: Path, tmp_path: Path) -> None:
    data, out = heaps(tmp_path / "data.npz"), tmp_path / "int8.esm"
    told = run_json("model", "quantise", str(trained), "--data", str(data), "-o", str(out))
    assert set(told) == {"file", "hash", "ok", "points_lost", "before", "after"}
    assert told["ok"] is True and told["points_lost"] <= 1
    assert told["before"]["accuracy"] > 0.95 and told["after"]["accuracy"] > 0.94
    assert told["after"]["size_bytes"] < 0.7 * told["before"]["size_bytes"]
    assert told["hash"] == read(out).card.hash
    for backend in ("onnx", "reference"):
        run("model", "check", str(out), "--no-timing", "--backend", backend)


def test_words(run: Run, trained: Path, tmp_path: Path) -> None:
    data, out = heaps(tmp_path / "data.npz"), tmp_path / "int8.esm"
    result = run("model", "quantise", str(trained), "--data", str(data), "-o", str(out))
    assert "calibrating on 240 samples, measuring on 60" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if line][:3] == ["numbers", "float32", "int8"]
    assert "int8.esm, hash" in result.stdout


def test_refused_when_more_than_a_point_is_lost(
    run: Run, run_json: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    """A few samples a million times too bright stretch every range, and int8 then tells nothing apart."""
    data, out = heaps(tmp_path / "data.npz", outlier=True), tmp_path / "int8.esm"
    result = run("model", "quantise", str(trained), "--data", str(data), "-o", str(out), code=6)
    assert "refused: " in result.stdout and "1 allowed; nothing was written" in result.stdout
    told = run_json("model", "quantise", str(trained), "--data", str(data), "-o", str(out), code=6)
    assert told["ok"] is False and told["file"] is None and told["points_lost"] > 1
    assert not out.exists()
    run("model", "quantise", str(trained), "--data", str(data), "-o", str(out), "--allow", "100")
    assert out.exists()


def test_refusals(run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = heaps(tmp_path / "data.npz"), tmp_path / "int8.esm"
    run("model", "quantise", str(trained), "--data", str(data), "-o", str(out))
    again = run("model", "quantise", str(out), "--data", str(data), "-o", str(tmp_path / "b.esm"), code=2)
    assert "is int8 already" in again.stderr
    np.savez(tmp_path / "wide.npz", x=np.zeros((9, 81)), y=np.arange(9) % 3)
    wide = run("model", "quantise", str(trained), "--data", str(tmp_path / "wide.npz"), "-o", str(out), code=2)
    assert "81 numbers a sample, but the model takes 1,8,8 (64)" in wide.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gone = run("model", "quantise", str(trained), "--data", str(data), "-o", str(out), code=2)
    assert "quantising needs onnx and onnxruntime: pip install onnx onnxruntime" in gone.stderr
