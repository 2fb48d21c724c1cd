"""`edgeswarm model check`: a good file is good on every backend, whatever is wrong is one line and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Run
from model_world import model_file, tampered

from edgeswarm.backends.choose import NAMES
from edgeswarm.cli.model.board import BACKENDS
from edgeswarm.errors import OutOfMemory
from edgeswarm.models.file import seal, write
from tests.zoo import small

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"file", "ok", "error", "faults", "model", "hash", "backend", "backend_reasons", "profile", "values", "batch",
        "step_s", "inference_s", "peak_memory_bytes"}  # fmt: skip


def test_the_backends_offered_are_those_there_are() -> None:
    assert BACKENDS[0] == "auto" and set(BACKENDS[1:]) == set(NAMES)


@pytest.mark.parametrize("backend", ["auto", "onnx", "reference", "torch"])
@pytest.mark.parametrize("form", [".esm", ""])
def test_a_good_file(run: Run, tmp_path: Path, backend: str, form: str) -> None:
    if backend in ("onnx", "torch"):
        pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend), reason="that backend's package")
    path, model = model_file(tmp_path, form=form)
    result = run("model", "check", str(path), "--backend", backend, "--batch", "4", "--no-timing")
    assert "good: 7 values within their limits" in result.stdout and "too far" not in result.stdout
    assert model.card.hash[:12] in result.stdout
    assert ("backend onnx" if backend == "auto" else f"backend {backend}") in result.stderr


def test_json_with_measurements(run_json: Callable[..., Any], tmp_path: Path) -> None:
    path, model = model_file(tmp_path)
    data = run_json("model", "check", str(path), "--backend", "onnx", "--batch", "8")
    assert set(data) == KEYS
    assert data["ok"] is True and data["error"] is None and data["faults"] == []
    assert data["hash"] == model.card.hash and data["backend"] == "onnx" and data["batch"] == 8
    assert data["step_s"] > 0 and data["inference_s"] > 0 and data["peak_memory_bytes"] > 20_000_000
    assert {(value["case"], value["value"]) for value in data["values"]} >= {
        ("ce", "gradient"), ("ce", "loss"), ("forward", "logits"), ("forward, parameters given", "embedding"),
    }  # fmt: skip
    assert all(value["ok"] and value["difference"] <= value["limit"] for value in data["values"])


def test_distillation_is_checked_too(run_json: Callable[..., Any], tmp_path: Path) -> None:
    path, _ = model_file(tmp_path, heads=2)
    values = run_json("model", "check", str(path), "--no-timing", "--backend", "reference")["values"]
    assert ("distill", "public_aux") in {(value["case"], value["value"]) for value in values}


def test_values_that_differ_end_with_6(run: Run, run_json: Callable[..., Any], tmp_path: Path) -> None:
    model = small("mlp")
    case = next(case for case in model.reference if case.graph == "ce")
    wrong = replace(case, outputs={**case.outputs, "gradient": case.outputs["gradient"] * np.float32(1.001)})
    others = [other for other in model.reference if other is not case]
    write(seal(model.card, model.graphs, model.initial, [*others, wrong]), tmp_path / "m.esm")
    result = run("model", "check", str(tmp_path / "m.esm"), "--no-timing", "--backend", "reference", code=6)
    assert "too far" in result.stdout and "gradient of ce" in result.stdout and "1.0e-03" in result.stdout
    data = run_json("model", "check", str(tmp_path / "m.esm"), "--no-timing", "--backend", "reference", code=6)
    assert data["ok"] is False and len(data["faults"]) == 1
    assert [value["ok"] for value in data["values"]].count(False) == 1


def test_a_file_without_reference_values_proves_nothing(run: Run, tmp_path: Path) -> None:
    model = small("mlp")
    write(seal(model.card, model.graphs, model.initial), tmp_path / "m.esm")
    assert (
        "holds no reference values"
        in run("model", "check", str(tmp_path / "m.esm"), "--no-timing", "--backend", "reference", code=6).stdout
    )


def test_more_memory_or_time_than_the_profile_allows_ends_with_6(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = model_file(tmp_path)
    from edgeswarm.cli.model import board

    place = board.here("pi-5")
    monkeypatch.setattr(
        board, "here",
        lambda name: replace(place, budget=replace(place.budget, max_step_s=1e-9, memory_bytes=1_000_000)),
    )  # fmt: skip
    result = run("model", "check", str(path), "--batch", "4", "--backend", "reference", code=6)
    assert "the profile allows" in result.stdout and "1.0 MB are allowed" in result.stdout


# ---- bad input ------------------------------------------------------------------------------------------------------


def refused(run: Run, path: Path, *words: str, code: int = 2) -> str:
    """The one line on stderr."""
    result = run("model", "check", str(path), *words, code=code)
    errors = [line for line in result.stderr.splitlines() if line.startswith("edgeswarm: ")]
    assert len(errors) == 1 and result.stdout == ""
    assert "Traceback" not in result.stderr
    return errors[0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated(run: Run, tmp_path: Path, share: float) -> None:
    path, _ = model_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    line = refused(run, path)
    assert "cut short" in line and "copy the model file again" in line


def test_absent_and_other_files(run: Run, tmp_path: Path) -> None:
    assert "No such file" in refused(run, tmp_path / "none.esm")
    (tmp_path / "photo.esm").write_bytes(b"\x89PNG" * 100)
    assert "no model archive" in refused(run, tmp_path / "photo.esm")
    (tmp_path / "empty").mkdir()
    assert "this is no model" in refused(run, tmp_path / "empty")


def test_another_version(run: Run, tmp_path: Path) -> None:
    path = tampered(tmp_path, lambda card: card.update(format=2))
    assert "model file of format 2; this edgeswarm reads 1" in refused(run, path)


def test_a_wrong_hash(run: Run, tmp_path: Path) -> None:
    path, _ = model_file(tmp_path, form="")
    data = bytearray((path / "initial.f32").read_bytes())
    data[0] ^= 1
    (path / "initial.f32").write_bytes(data)
    assert "initial.f32: its sha256 is" in refused(run, path)


def test_a_changed_card(run: Run, tmp_path: Path) -> None:
    path, _ = model_file(tmp_path, form="")
    card = (path / "model.json").read_text()
    (path / "model.json").write_text(card.replace('"mlp"', '"mlq"', 1))
    assert "its content gives" in refused(run, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_no_numbers(run: Run, tmp_path: Path, value: float) -> None:
    vector = small("mlp").initial.copy()
    vector[3] = value
    line = refused(run, tampered(tmp_path, initial__f32=vector.tobytes()))
    assert "initial.f32: parameter 3 of" in line and "only finite numbers are taken" in line


def test_an_operator_that_boards_do_not_run(run: Run, tmp_path: Path) -> None:
    data = small("mlp").graphs["forward"]
    assert data.count(b"Relu") >= 1
    line = refused(run, tampered(tmp_path, forward__onnx=data.replace(b"Relu", b"Loop")))
    assert "forward.onnx: " in line and "Loop" in line


def test_another_operator_set(run: Run, tmp_path: Path) -> None:
    data = small("mlp").graphs["forward"].replace(b"Relu", b"Rel\xff")
    assert "forward.onnx: " in refused(run, tampered(tmp_path, forward__onnx=data))


def test_larger_than_the_profile_allows(run: Run, tmp_path: Path) -> None:
    path, model = model_file(tmp_path)
    text = (ROOT / "firmware_profiles" / "pi-5.toml").read_text()
    for name, value in (("max_params", model.card.size - 1), ("max_model_bytes", path.stat().st_size - 1)):
        lines = [f"{name} = {value}" if line.startswith(f"{name} =") else line for line in text.splitlines()]
        profile = tmp_path / "pi-5.toml"
        profile.write_text("\n".join(lines) + "\n")
        assert "the profile allows" in refused(run, path, "--profile", str(profile))


def test_out_of_memory_in_the_middle(
    run: Run, run_json: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeswarm.backends.reference import ReferenceBackend

    path, _ = model_file(tmp_path)

    def full(*_: object) -> None:
        raise OutOfMemory("this step needs more memory than there is; use a smaller batch")

    monkeypatch.setattr(ReferenceBackend, "answer", full)
    line = refused(run, path, "--backend", "reference", code=75)
    assert line == "edgeswarm: this step needs more memory than there is; use a smaller batch"
    data = run_json("model", "check", str(path), "--backend", "reference", code=75)
    assert data == {"file": str(path), "ok": False, "error": line.removeprefix("edgeswarm: ")}


def test_errors_as_json(run_json: Callable[..., Any], tmp_path: Path) -> None:
    data = run_json("model", "check", str(tmp_path / "none.esm"), code=2)
    assert data["ok"] is False and "No such file" in data["error"]


def test_unknown_profiles_and_backends(run: Run, tmp_path: Path) -> None:
    path, _ = model_file(tmp_path)
    assert "no firmware profile is called 'pi-55'" in refused(run, path, "--profile", "pi-55")
    assert "'tensorflow' is not one of" in run("model", "check", str(path), "--backend", "tensorflow", code=2).stderr


@pytest.mark.parametrize("backend", ["onnx", "reference"])
def test_a_board_has_neither_torch_nor_onnx(tmp_path: Path, backend: str) -> None:
    path, _ = model_file(tmp_path)
    gone = "'torch', 'onnx', 'onnxscript'" + (", 'onnxruntime'" if backend == "reference" else "")
    program = (
        f"import sys\nfor name in ({gone}):\n    sys.modules[name] = None\n"
        f"sys.argv = ['edgeswarm', 'model', 'check', {str(path)!r}, '--backend', {backend!r}, '--no-timing']\n"
        "from edgeswarm.cli import main\nmain()\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    assert "good: 7 values" in done.stdout


def test_members_of_an_archive_cannot_point_elsewhere(run: Run, tmp_path: Path) -> None:
    path, _ = model_file(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.onnx", b"x")
    assert "does not belong in a model file" in refused(run, path)
