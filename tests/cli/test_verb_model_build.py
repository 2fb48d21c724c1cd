"""`edgeswarm model build`: built-in, user's own and wrapped; what is missing or wrong is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run

from edgeswarm.cli.model.build import BUILT_IN
from edgeswarm.models.file import read
from tests.zoo import needs_torch

MLP = ("mlp", "--input", "6", "--option", "hidden=16", "--labels", "red, green,blue")


def test_the_architectures_named_are_those_there_are() -> None:
    from edgeswarm.export.build import BUILT_IN as there

    assert there == BUILT_IN


def test_a_model_file_and_what_was_verified(run: Run, tmp_path: Path) -> None:
    needs_torch()
    (tmp_path / "LICENCE").write_text("Do what you like.\n")
    result = run("model", "build", *MLP, "-o", str(tmp_path / "a.esm"), "--name", "tiny", "--licence", "MIT",
                 "--licence-file", str(tmp_path / "LICENCE"), "--mean", "0.5", "--std", "2", "--normalise")  # fmt: skip
    assert "7 values by onnxruntime, worst relative error" in result.stdout
    assert "forward: " in result.stderr and "ce: " in result.stderr
    model = read(tmp_path / "a.esm")
    assert (model.card.name, model.card.licence, model.card.labels) == ("tiny", "MIT", ("red", "green", "blue"))
    assert model.licence_text == "Do what you like.\n" and model.card.normalised and model.card.embedding == 16
    assert model.card.hash[:12] in result.stdout


def test_json_a_folder_and_the_same_again(run_json: Callable[..., Any], tmp_path: Path) -> None:
    needs_torch()
    told = [run_json("model", "build", *MLP, "-o", str(tmp_path / name)) for name in ("a", "b.esm")]
    assert set(told[0]) == {"file", "name", "hash", "size", "size_bytes", "losses", "embedding", "verified",
                            "worst_difference", "seconds"}  # fmt: skip
    assert told[0]["hash"] == told[1]["hash"] and (tmp_path / "a" / "model.json").is_file()
    assert told[0]["size"] == 6 * 16 + 16 + 16 * 3 + 3 and 0 <= told[0]["worst_difference"] < 1e-5


def test_a_users_own_module(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch()
    (tmp_path / "a_users_net.py").write_text(
        "from torch import nn\n"
        "def create(classes, width=4):\n"
        "    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    run("model", "build", "a_users_net:create", "--input", "3", "--classes", "2", "--option", "width=7", "-o", "n.esm")
    assert read(tmp_path / "n.esm").card.embedding == 7


def test_an_encoder_of_the_users(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="wrapping an encoder needs onnx")
    from tests.export.networks import network, saved

    saved(network(outputs=("out", "r")), tmp_path / "net.onnx")
    words = ("model", "build", "--encoder", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "e.esm"))
    assert "say which is the embedding: --embedding NAME" in run(*words, code=2).stderr
    result = run(*words, "--embedding", "out", "--normalise")
    assert "net: an encoder, embedding 5" in result.stdout
    assert run("model", "check", str(tmp_path / "e.esm"), "--no-timing").exit_code == 0
    wrong = run(*words, "--embedding", "out", "--heads", "2", code=2)
    assert "--heads says how to make a new model" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what to build: one of mlp, lenet5"),
        (("mlp", "--encoder", "a.onnx"), "say what to build"),
        (("mlp", "--classes", "3", "--labels", "a,b"), "give --classes or --labels, not both"),
        (("mlp", "--option", "hidden"), "--option is NAME=VALUE, not 'hidden'"),
        (("mlp", "--input", "3,x"), "'3,x' is not a list of lengths"),
        (("mlp", "--input", "0"), "'0' is not a list of lengths"),
        (("mlp", "--mean", "x"), "'x' is not a list of numbers"),
        (("mlp", "--embedding", "e"), "--embedding belongs to --encoder"),
        (("mlp", "--licence-file", "none.txt"), "no such file"),
        (("lenet6",), "no built-in architecture 'lenet6': one of mlp, lenet5"),
        (("mlp", "--labels", "a"), "two or more labels"),
        (("lenet5", "--input", "4"), "lenet5"),
        (("mlp", "--option", "depth=3"), "architecture mlp has no option 'depth'"),
        (("nowhere:create", "--input", "3"), "no module 'nowhere'"),
        (("--encoder", "none.onnx"), "none.onnx: No such file"),
    ],
)
def test_wrong_words(run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    needs_torch()
    result = run("model", "build", *words, "-o", str(tmp_path / "a.esm"), code=2)
    assert said in " ".join(result.stderr.split()) and "Traceback" not in result.stderr
    assert not (tmp_path / "a.esm").exists()


def test_without_the_extra_the_command_that_installs_it_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("model", "build", "mlp", "-o", str(tmp_path / "a.esm"), code=2)
    assert len(result.stderr.splitlines()) == 1 and "pip install 'edgeswarm[torch]'" in result.stderr
    result = run("model", "build", "--encoder", "a.onnx", "-o", str(tmp_path / "a.esm"), code=2)
    assert "wrapping an encoder needs onnx and onnxruntime: pip install onnx onnxruntime" in result.stderr
