"""Which backend does the arithmetic here: the first of a preference that works, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from edgeswarm.backends.base import Backend
from edgeswarm.backends.probe import Probe, probe
from edgeswarm.backends.trial import CPU, CUDA, PROVIDERS, TENSORRT
from edgeswarm.errors import ConfigError

NAMES = ("reference", "onnx", "onnx-cuda", "onnx-tensorrt", "torch", "torch-cuda")
"""Every backend by name; `Backend.name` is one of these."""
AUTO = "auto"
LAST = ("onnx", "reference")
"""What is tried when nothing preferred works; reference always does."""


def names(backends: Iterable[str], providers: Iterable[str] = (), cuda: bool = False) -> tuple[str, ...]:
    """A firmware profile's preference as names of backends: those that use its accelerator first, then the others.

    backends: "onnx", "torch", "reference" in order of preference.  providers: onnxruntime's execution providers, in
    order.  cuda: whether the board has a CUDA device.
    """
    backends, providers = tuple(backends), tuple(providers)
    fast: list[str] = []
    for backend in backends:
        if backend == "torch" and cuda:
            fast.append("torch-cuda")
        elif backend == "onnx":
            known = {TENSORRT: "onnx-tensorrt", CUDA: "onnx-cuda"}
            fast += [known[provider] for provider in providers if provider in known]
    return tuple(dict.fromkeys((*fast, *backends, "reference")))


def choose(
    preference: Sequence[str],
    wanted: str = AUTO,
    *,
    threads: int = 1,
    arena: bool = True,
    cache: Path | None = None,
    look: Callable[[str, Path | None], Probe] = probe,
) -> tuple[Backend, list[str]]:
    """A backend that works here, and one line for each that was looked at; the last line is about the chosen one.

    preference: names, best first; after them come `LAST`.  wanted: "auto", or the name of the only one that will do.
    threads, arena: see `OnnxBackend`.  cache: see `probe`.  Blocks while libraries are tried: not for an event loop.
    Raises ConfigError, in one line: there is no such backend, or the one asked for does not work here.
    """
    for name in (*preference, *(() if wanted == AUTO else (wanted,))):
        if name not in NAMES:
            near = get_close_matches(name, (AUTO, *NAMES), 1)
            hint = f"did you mean {near[0]}?" if near else f"choose auto or one of {', '.join(NAMES)}"
            raise ConfigError(f"there is no backend {name!r}: {hint}")
    reasons: list[str] = []
    for name in dict.fromkeys((*preference, *LAST)) if wanted == AUTO else (wanted,):
        found = look(name, cache)
        if found.works:
            count = f"{threads} thread{'s' * (threads != 1)}"
            reasons.append(f"{name}: {found.version}, {found.detail}, {count}")
            return make(name, threads, arena), reasons
        reasons.append(f"{name}: {found.detail}; {found.advice}")
    raise ConfigError(f"the backend {reasons[-1]}, or set the backend to auto")


def make(name: str, threads: int = 1, arena: bool = True) -> Backend:
    """The backend `name`, one of NAMES, whether it works here or not. Its library is imported here or later.

    Raises ImportError: torch is not installed.
    """
    if name in PROVIDERS:
        from edgeswarm.backends.onnx import OnnxBackend

        providers = {"onnx": (CPU,), "onnx-cuda": (CUDA, CPU), "onnx-tensorrt": (TENSORRT, CUDA, CPU)}[name]
        return OnnxBackend(threads=threads, providers=providers, arena=arena)
    if name in ("torch", "torch-cuda"):
        from edgeswarm.backends.torch import TorchBackend

        return TorchBackend(device="cuda" if name == "torch-cuda" else "cpu", threads=threads)
    from edgeswarm.backends.reference import ReferenceBackend

    return ReferenceBackend()
