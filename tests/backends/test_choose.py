"""Which backend works is found out in a child process, kept, and chosen by preference."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends import probe as probing
from edgeswarm.backends import trial
from edgeswarm.backends.choose import NAMES, choose, make, names
from edgeswarm.backends.operators import OPERATORS
from edgeswarm.backends.probe import Probe, died, missing_advice, probe
from edgeswarm.errors import ConfigError
from edgeswarm.models.graph import read_graph

LOADS = """
import numpy as np
__version__ = "9.9"
def get_available_providers(): return {providers}
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
class InferenceSession:
    def __init__(self, data, options, providers): self.providers = providers
    def disable_fallback(self): pass
    def get_providers(self): return {started}
    def run(self, names, feeds):
        {run}
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A package `onnxruntime` with this source, found before the real one, here and in child processes."""
    folder = tmp_path / "site"
    (folder / "onnxruntime").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(folder))

    def write(source: str) -> Path:
        place = folder / "onnxruntime" / "__init__.py"
        place.write_text(source, encoding="utf-8")
        invalidate_caches()
        return place

    return write


def good(run: str = "return [np.array([[41.875, 76.25]])]", providers: str = "['CPUExecutionProvider']",
         started: str = "self.providers") -> str:  # fmt: skip
    return LOADS.format(run=run, providers=providers, started=started)


def no_child(*_: Any, **__: Any) -> Any:
    raise AssertionError("a child was started")


def test_the_graph_of_the_trial_gives_the_expected_numbers() -> None:
    from edgeswarm.backends.interpreter import program

    run = program(read_graph(b64decode(trial.GRAPH), OPERATORS), np.float64)
    x, w = np.arange(16.0).reshape(1, 1, 4, 4), np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(run({"x": x, "w": w})["y"], [trial.EXPECTED])


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_what_is_installed_here_works(name: str) -> None:
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    found = probe(name)
    assert found.works, found
    assert found.version.startswith(("onnxruntime ", "torch "))
    assert found.advice == ""


def test_reference_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_child)
    assert probe("reference") == Probe("reference", True, f"numpy {np.__version__}", "always there", "")
    with pytest.raises(KeyError):
        probe("tensorflow")


@pytest.mark.parametrize(
    ("source", "detail", "advice"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "needs newer CPU instructions", "1.22 or newer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV", "another version"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "lack of memory", "free memory"),
        ("raise ImportError('libcudart.so.13: cannot open\\nshared object')", "libcudart.so.13: cannot open", "anew"),
        ("import os; os._exit(3)", "exit code 3", "anew"),
        (good("return [np.array([[0.0, 76.25]])]"), r"wrong numbers \(0, 76.25\)", "another version"),
        (good("return [np.array([[float('nan'), 76.25]])]"), "wrong numbers", "another version"),
        (good("raise RuntimeError('no kernel image\\nfor sm_87')"), "first kernel failed: no kernel image", "another"),
        (good(providers="[]"), "built without CPUExecutionProvider", "onnxruntime-gpu"),
        (good(started="['Other']"), "did not start", "onnxruntime-gpu"),
    ],
)
def test_a_broken_wheel_is_told_in_one_line(
    wheel: Callable[[str], Path], source: str, detail: str, advice: str
) -> None:
    wheel(source)
    found = probe("onnx")
    assert not found.works
    assert "\n" not in found.detail + found.advice
    assert re.search(detail, found.detail), found
    assert advice in found.advice


def test_a_wheel_that_hangs_is_given_up(wheel: Callable[[str], Path]) -> None:
    wheel("import time; time.sleep(60)")
    found = probe("onnx", limit_s=0.5)
    assert not found.works
    assert "no answer within" in found.detail


def test_what_was_found_is_kept_until_something_changes(
    wheel: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, cache = wheel(good()), tmp_path / "backends.json"
    first = probe("onnx", cache)
    assert first == Probe("onnx", True, "onnxruntime 9.9", "runs on CPU", "")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", no_child)
        assert probe("onnx", cache) == first
        with pytest.raises(AssertionError, match="a child was started"):
            probe("onnx-cuda", cache)
    wheel("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    os.utime(place, ns=(1, 1))
    crashed = probe("onnx", cache)
    assert "illegal instruction" in crashed.detail
    with monkeypatch.context() as patch:  # a crash is cured by another package alone
        patch.setattr(subprocess, "run", no_child)
        assert probe("onnx", cache) == crashed
    wheel(good(providers="[]"))
    assert not probe("onnx", cache).works
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="a child was started"):
        patch.setattr(subprocess, "run", no_child)
        probe("onnx", cache)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"onnx": 3}', '{"onnx": {"key": 1, "answer": {}}}', "\udcff"])
def test_a_damaged_file_costs_time_alone(wheel: Callable[[str], Path], tmp_path: Path, text: str) -> None:
    wheel(good())
    cache = tmp_path / "backends.json"
    cache.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert probe("onnx", cache).works
    assert json.loads(cache.read_text(encoding="utf-8"))["onnx"]["answer"]["works"] is True
    assert probe("onnx", tmp_path / "nowhere" / "backends.json").works


def test_what_is_not_installed_needs_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_child)
    monkeypatch.setattr(probing.importlib.util, "find_spec", lambda name: None)
    found = probe("onnx")
    assert (found.works, found.version, found.detail) == (False, "", "onnxruntime is not installed")
    assert found.advice == 'pip install "edgeswarm[onnx]"'
    assert "32-bit" in missing_advice("onnxruntime", "armv7l")
    assert "CUDA" in missing_advice("torch", "aarch64")


def test_signals_without_a_name() -> None:
    assert died(99, "torch")[0] == "torch crashed with signal 99"


def looks(**works: str) -> Callable[[str, Path | None], Probe]:
    """Backends that work, by name with "-" as "_", and what is wrong with the others."""
    said = {name.replace("_", "-"): text for name, text in works.items()}

    def look(name: str, cache: Path | None) -> Probe:
        if name == "reference":
            return Probe(name, True, "numpy 2", "always there", "")
        wrong = said.get(name, "not installed")
        return Probe(name, not wrong, f"{name} 1.0", wrong or "runs on CPU", "" if not wrong else "install it")

    return look


def test_the_first_that_works_is_taken_and_the_others_explained() -> None:
    backend, reasons = choose(("torch-cuda", "onnx"), look=looks(torch_cuda="no CUDA device can be used", onnx=""))
    assert backend.name == "onnx"
    assert reasons == [
        "torch-cuda: no CUDA device can be used; install it",
        "onnx: onnx 1.0, runs on CPU, 1 thread",
    ]


def test_when_nothing_works_reference_does() -> None:
    backend, reasons = choose(("torch-cuda", "onnx"), threads=2, look=looks())
    assert backend.name == "reference"
    assert [reason.split(":")[0] for reason in reasons] == ["torch-cuda", "onnx", "reference"]


def test_what_was_asked_for_is_taken_or_refused() -> None:
    backend, reasons = choose(("onnx",), "reference", look=looks(onnx=""))
    assert (backend.name, len(reasons)) == ("reference", 1)
    with pytest.raises(ConfigError, match="the backend torch: not installed; install it, or set the backend to auto"):
        choose(("onnx",), "torch", look=looks(onnx=""))
    with pytest.raises(ConfigError, match="there is no backend 'onx': did you mean onnx"):
        choose(("onnx",), "onx", look=looks(onnx=""))
    with pytest.raises(ConfigError, match="there is no backend 'zz': choose auto or one of reference, onnx"):
        choose(("zz",), look=looks(onnx=""))


def test_a_profile_as_names() -> None:
    cuda = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert names(("onnx", "reference"), ("CPUExecutionProvider",)) == ("onnx", "reference")
    assert names(("torch", "onnx"), cuda, True) == (
        "torch-cuda", "onnx-tensorrt", "onnx-cuda", "torch", "onnx", "reference",
    )  # fmt: skip
    assert set(names(("torch", "onnx", "reference"), cuda, True)) == set(NAMES)


@pytest.mark.parametrize("name", ["reference", "onnx", "onnx-cuda", "onnx-tensorrt"])
def test_every_backend_knows_its_name(name: str) -> None:
    assert make(name).name == name


def test_choosing_imports_no_runtime() -> None:
    script = "import sys; from edgeswarm.backends.choose import make; make('onnx'); print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parents[2])  # fmt: skip
    assert not {"onnxruntime", "torch", "onnx"} & set(child.stdout.split())
