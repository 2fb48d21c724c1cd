"""The torch backend: the stored forward and loss graphs run with torch functions, gradients by autograd, CPU or CUDA.

It reads the same model file as everybody else; no torch module is involved. `answer_all` puts requests of many agents
that are alike into one call (vmap over parameters and rows), which is what simulations live on; see `torch_group`.

On the CPU a LocalEpoch's updates are NumPy's, as in every backend. On CUDA they stay on the device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeswarm.backends.answering import FORWARD, Answering, Arrays
from edgeswarm.backends.base import LocalEpoch, Request, Trained
from edgeswarm.backends.torch_program import Program
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.models.file import Model
from edgeswarm.models.graph import read_graph

GROUP_BYTES = 64 << 20
"""What one batched call may take on the CPU, roughly: beyond the caches a group gains nothing. On CUDA it is a share of
what is free."""
GROUP_SHARE = 0.5
MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed",
          "bad_alloc")  # fmt: skip


class TorchBackend(Answering):
    """`backends.base.Backend` by torch. Safe in several threads."""

    def __init__(self, device: str = "cpu", threads: int = 1) -> None:
        """device: "cpu" or "cuda" ("cuda:1" too).  threads: of one operation, for the whole process.

        On CUDA, TF32 is switched off for the process: it keeps 10 bits of a product, and all backends are to give the
        same numbers. Raises ModelError: there is no such device.
        """
        super().__init__()
        self.device = torch.device(device)
        self.name = "torch" if self.device.type == "cpu" else "torch-cuda"
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise ModelError("torch finds no CUDA device: use the backend torch or onnx, see `edgeswarm doctor`")
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        torch.set_num_threads(threads)
        self._programs: dict[tuple[str, str, bool], Program] = {}
        self._own: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def run(self, model: Model, graph: str, feeds: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See `Answering.run`. A gradient is taken by autograd of the loss graph."""
        with memory_guard(f"to run {graph} of the model {model.card.name}"):
            given = {name: self.tensor(value) for name, value in feeds.items()}
            if model.card.size and "params" not in given:
                given["params"] = self._initial(model)
            if graph == FORWARD:
                with torch.inference_mode():
                    found = self.program(model, FORWARD)(given)
            else:
                found = slope(self.program(model, loss_graph(graph)), given)
            return {name: array(found[name]) for name in wanted}

    def answer_all(self, requests: Sequence[Request]) -> list[Any]:
        """Answers in order; requests alike in kind, model, loss and shapes are computed together where that pays."""
        from edgeswarm.backends.torch_group import grouped

        return grouped(self, requests)

    def tensor(self, value: NDArray[Any]) -> Tensor:
        """An array on the device; on the CPU without a copy, where it may be written to (torch knows no read-only)."""
        return torch.from_numpy(value if value.flags.writeable else value.copy()).to(self.device)

    def program(self, model: Model, graph: str, many: bool = False) -> Program:
        """The compiled graph. many: for vmap over agents. Raises ModelError: it cannot be run here."""
        key = (model.card.hash, graph, many)
        with self._lock:
            if key not in self._programs:
                if graph not in model.graphs:
                    raise ModelError(f"the model {model.card.name} has no {graph}.onnx: build it anew")
                try:
                    self._programs[key] = Program(read_graph(model.graphs[graph]), self.device, many)
                except ModelError as fault:
                    raise ModelError(f"{graph}.onnx of the model {model.card.name}: {fault}") from None
            return self._programs[key]

    def group_bytes(self) -> int:
        """What one batched call may take."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0] * GROUP_SHARE)
        return GROUP_BYTES

    def model(self, name: str) -> Model:
        """The loaded model of that hash. Raises ModelError: none is."""
        return self._loaded(name)

    def _initial(self, model: Model) -> Tensor:
        """The file's own parameters on the device."""
        if model.card.hash not in self._own:
            self._own[model.card.hash] = self.tensor(np.ascontiguousarray(model.initial, np.float32))
        return self._own[model.card.hash]

    def _train(self, request: LocalEpoch) -> Trained:
        if self.device.type == "cpu":
            return super()._train(request)
        from edgeswarm.backends.torch_group import train_together

        with memory_guard("for a LocalEpoch"):
            return train_together(self, [request])[0]


def loss_graph(graph: str) -> str:
    """The graph of a loss's value, from that of its gradient."""
    return f"{graph.removesuffix('.gradient')}.loss"


def slope(program: Program, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of a loss graph, and "gradient" with respect to "params" (p,)."""
    with torch.enable_grad():
        params = given["params"].detach().requires_grad_()
        found = program({**given, "params": params})
        (gradient,) = torch.autograd.grad(found["loss"], params)
    return {**{name: value.detach() for name, value in found.items()}, "gradient": gradient}


def array(value: Tensor) -> NDArray[Any]:
    """A tensor in main memory as an array that holds nothing else alive."""
    found: NDArray[Any] = value.detach().cpu().contiguous().numpy()
    return found if found.nbytes == value.untyped_storage().nbytes() else found.copy()


@contextmanager
def memory_guard(what: str) -> Iterator[None]:
    """Turns torch's errors about memory into OutOfMemory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemory(f"no memory {what}: use fewer rows at once; nothing was changed") from None
    except RuntimeError as fault:
        if not any(part in str(fault).lower() for part in MEMORY):
            raise
        raise OutOfMemory(f"no memory {what}: use fewer rows at once; nothing was changed") from None
