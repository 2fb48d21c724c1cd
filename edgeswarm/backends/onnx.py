"""The onnx backend: the stored graphs run by plain onnxruntime, on a CPU or through CUDA or TensorRT.

Parameters are inputs of the graphs, so one session per graph serves all agents of a process. Weights that only serve
(`params=None`) are baked into the forward graph, where the runtime folds and packs them once.

Session options, as measured with one thread and batches of 32 (onnxruntime 1.31): memory patterns off, because they
plan a second block beside the arena (ResNet-8's peak 143 -> 104 MiB, steps equally fast); the arena on (off is slower
and takes no less); spinning off, because threads that wait busily take the processor from the agent itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeswarm.backends import parts
from edgeswarm.backends.answering import FORWARD, Answering, Arrays
from edgeswarm.backends.trial import CPU, CUDA, PROVIDERS, TENSORRT, one_line
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.models.file import Model
from edgeswarm.models.graph import bake

PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    # TF32 keeps 10 bits of a product; all backends are to give the same numbers.
    CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
    TENSORRT: {"trt_fp16_enable": "0", "trt_int8_enable": "0"},
}
GRADIENT = ".gradient"
MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "available memory", "cannot allocate",
          "alloc_failed", "cuda failure 2:", "cudaerrormemoryallocation")  # fmt: skip
"""In an error's text (small letters), where memory is what is missing."""


class OnnxBackend(Answering):
    """`backends.base.Backend` by onnxruntime. Safe in several threads: a session may run in many at once."""

    fresh = True

    def __init__(self, threads: int = 1, providers: Sequence[str] = (CPU,), arena: bool = True) -> None:
        """threads: of one operation.  providers: execution providers, the best first; what the first cannot run the
        next ones do.  arena: keep freed memory for the next step.

        Imports nothing: onnxruntime is loaded with the first request. Raises ValueError: no thread, or no provider.
        """
        super().__init__()
        if threads < 1 or not providers:
            raise ValueError("an onnx backend needs at least one thread and one provider")
        self.name = next((name for name, provider in PROVIDERS.items() if provider == providers[0]), "onnx")
        self._threads, self._providers, self._arena = threads, tuple(providers), arena
        self._sessions: dict[tuple[str, str, bool], Any] = {}
        self._lock = threading.Lock()

    def run(self, model: Model, graph: str, feeds: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See `Answering.run`. On a processor, gradients of large models are taken over a few rows at a time."""
        if not graph.endswith(GRADIENT) or self._providers[0] != CPU:
            return self._run_once(model, graph, feeds, wanted)
        spec = model.card.losses[graph.removesuffix(GRADIENT)]
        params, rows = feeds["params"], {name: value for name, value in feeds.items() if name != "params"}
        return parts.in_parts(
            spec,
            rows,
            parts.parts(model.card, spec, rows),
            lambda part: self._run_once(model, graph, {"params": params, **part}, wanted),
        )

    def _run_once(self, model: Model, graph: str, feeds: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        baked = graph == FORWARD and bool(model.card.size) and "params" not in feeds
        session = self._session(model, graph, baked)
        try:
            return dict(zip(wanted, session.run(list(wanted), dict(feeds)), strict=True))
        except MemoryError:
            raise
        except Exception as fault:  # the runtime's own classes share no base but this one
            rows = max((len(value) for name, value in feeds.items() if name != "params"), default=0)
            if memory_text(fault):
                raise OutOfMemory(
                    f"no memory to run {graph} of the model {model.card.name} on {rows} rows: "
                    "use fewer rows at once; nothing was changed"
                ) from None
            raise ModelError(f"{graph} of the model {model.card.name} on {rows} rows: {told(fault)}") from fault

    def _session(self, model: Model, graph: str, baked: bool) -> Any:
        """The runtime's session for a graph, made once."""
        key = (model.card.hash, graph, baked)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._make(model, graph, baked)
            return self._sessions[key]

    def _make(self, model: Model, graph: str, baked: bool) -> Any:
        place = f"{graph}.onnx of the model {model.card.name}"
        if graph not in model.graphs:
            raise ModelError(f"the model {model.card.name} has no {graph}.onnx: build it anew")
        try:
            import onnxruntime as ort  # type: ignore[import-not-found, unused-ignore]
        except ImportError as fault:
            raise ModelError(
                f'onnxruntime cannot be loaded ({one_line(fault)}): pip install "edgeswarm[onnx]"'
            ) from None
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is told once, by the exception
        options.enable_cpu_mem_arena = self._arena
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        present = set(ort.get_available_providers())
        if self._providers[0] not in present:
            raise ModelError(f"this onnxruntime has no {self._providers[0]}: install a build that has it, or use onnx")
        chosen = [(name, dict(PROVIDER_OPTIONS.get(name, {}))) for name in self._providers if name in present]
        try:
            data = bake(model.graphs[graph], model.initial) if baked else model.graphs[graph]
            session = ort.InferenceSession(data, options, providers=chosen)
        except (ModelError, MemoryError):
            raise
        except Exception as fault:
            if memory_text(fault):
                raise OutOfMemory(f"no memory to load {place}: use a smaller model; nothing was changed") from None
            raise ModelError(f"onnxruntime {ort.__version__} refuses {place}: {told(fault)}") from fault
        if session.get_providers()[0] != self._providers[0]:
            raise ModelError(f"{self._providers[0]} did not start for {place}: run `edgeswarm doctor` to see why")
        session.disable_fallback()  # never on another provider in silence after a failure
        return session


def memory_text(fault: BaseException) -> bool:
    """Whether an error of the runtime says that memory was missing."""
    text = str(fault).lower()
    return any(part in text for part in MEMORY)


def told(fault: BaseException) -> str:
    """The runtime's words on one line, without its prefix."""
    return one_line(str(fault).replace("[ONNXRuntimeError] : ", "")) or type(fault).__name__
