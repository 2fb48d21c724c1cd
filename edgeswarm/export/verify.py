"""Proof of a model's graphs before anybody gets them: onnxruntime's answers against torch's in float64.

Random images alone do not prove a gradient: pooling over a constant background ties everywhere, padded rows must count
for nothing, and one row must do as well as many. Where a pre-activation lies within rounding of ReLU's kink, float32
and float64 rightly differ by some 1e-4, in torch too; so each kind of batch is drawn up to `DRAWS` times and one clean
draw is enough, or, where torch's own float32 never gets clean either, being no more than twice as far off as torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeswarm.errors import ModelError
from edgeswarm.export.architectures import Shape, first_line
from edgeswarm.models.card import PRIVATE, LossSpec, TensorSpec
from edgeswarm.models.reference import ReferenceCase

KINDS = (("random", 1, 1), ("random", 7, 5), ("random", 32, 24), ("padded", 7, 5), ("blank", 7, 5))
"""(what the rows are like, private rows, public rows)."""
DRAWS = 8
CLEAN = 1e-5
"""Relative L2 difference of gradients up to which float32 agrees with float64."""
REFERENCE_ROWS = (4, 3)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Graphs:
    """A loss's two graphs, as stored."""

    loss: bytes
    gradient: bytes


class Session:
    """A graph in onnxruntime, one thread."""

    def __init__(self, graph: bytes, what: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"onnxruntime cannot load {what}: {first_line(error)}") from error
        self._what = what
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        """All outputs by name."""
        try:
            return dict(zip(self._names, self._session.run(None, inputs), strict=True))
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run {self._what}: {first_line(error)}") from error


class Verifier:
    """Batches like the inputs a model expects, from fixed seeds, and the graphs' answers to them.

    mean, std: of the input as it comes.  classes: of the labels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], classes: int) -> None:
        self._classes = classes
        self._mean, self._std = np.float32(np.mean(mean)), np.float32(np.mean(std))

    def loss(self, name: str, module: nn.Module, spec: LossSpec, params: Tensor, graphs: Graphs) -> float:
        """Check a loss's graphs; the worst relative difference of the gradient over all kinds of batches.

        The vector is moved a little off the initial one, so that a layer that starts at zero hides no other's gradient.
        Raises: ModelError: gradient, loss or outputs differ from torch's.
        """
        noise = np.random.default_rng(1).normal(0, 0.01, params.numel()).astype(np.float32)
        vector = params.numpy() + noise
        exact = copy.deepcopy(module).double()
        value, slope = Session(graphs.loss, f"{name}.loss"), Session(graphs.gradient, f"{name}.gradient")
        return max(self._kind(name, module, exact, spec, vector, value, slope, kind) for kind in KINDS)

    def _kind(
        self,
        name: str,
        module: nn.Module,
        exact: nn.Module,
        spec: LossSpec,
        vector: NDArray[np.float32],
        value: Session,
        slope: Session,
        kind: tuple[str, int, int],
    ) -> float:
        ours, torchs = [], []
        keys = ("gradient", "loss", *spec.outputs)
        for draw in range(DRAWS):
            batch = self.batch(spec, *kind, seed=draw)
            truth, rough = answers(exact, spec, vector, batch), answers(module, spec, vector, batch)
            found, said = slope.run({"params": vector, **batch}), value.run({"params": vector, **batch})
            apart = {key: off(found[key], truth[key]) for key in keys}
            apart |= {f"{key} alone": off(said[key], truth[key]) for key in keys[1:]}
            ours.append(max((distance, key) for key, distance in apart.items()))
            torchs.append(max(off(rough[key], truth[key]) for key in keys))
            if ours[-1][0] <= CLEAN:
                return ours[-1][0]
        distance, key = min(ours)
        if distance > 2 * min(torchs):
            raise ModelError(
                f"{name}: the graph's {key} is off torch's float64 by {distance:.1e} ({kind[0]}, {kind[1]} rows), "
                f"torch's own float32 by {min(torchs):.1e}: please report this module"
            )
        return distance

    def reference(self, name: str, module: nn.Module, spec: LossSpec, params: Tensor, graphs: Graphs) -> ReferenceCase:
        """A small batch (blank, ordinary and padded rows) at the initial vector with torch's float64 answers.

        Of a few draws the one is taken whose gradient moves least when every parameter moves by a rounding of float32,
        and three times that movement is tolerated: a batch near a kink would fail on boards that are right.
        """
        exact, vector = copy.deepcopy(module).double(), params.numpy().astype(np.float64)
        slope = Session(graphs.gradient, f"{name}.gradient")
        best: tuple[float, Arrays, Arrays] | None = None
        for draw in range(4):
            batch = self.batch(spec, "mixed", *REFERENCE_ROWS, seed=100 + draw)
            truth = answers(exact, spec, vector, batch)
            rng = np.random.default_rng(draw)
            moved = max(
                off(answers(exact, spec, vector * (1 + rng.normal(0, 1e-7, vector.size)), batch)[key], truth[key])
                for key in ("gradient", *spec.outputs)
                for _ in range(2)
            )
            found = slope.run({"params": params.numpy(), **batch})
            moved = max(moved, *(off(found[key], truth[key]) for key in truth))
            if best is None or moved < best[0]:
                best = moved, batch, truth
        assert best is not None
        return ReferenceCase(name, name, best[1], _float32(best[2]), _rounded_up(max(CLEAN, 3 * best[0])))

    def forward(self, module: nn.Module, params: Tensor, shape: Shape, graph: bytes) -> ReferenceCase:
        """Check the forward graph on 1, 7 and 32 rows, and give a reference case of 4.

        Raises: ModelError: outputs differ from torch's.
        """
        exact, session = copy.deepcopy(module).double(), Session(graph, "forward")
        names = ("logits", "embedding", "aux")
        spec = LossSpec((TensorSpec("x", shape, "float32", PRIVATE),), ())
        for kind, rows, _ in (*KINDS, ("mixed", REFERENCE_ROWS[0], 0)):
            batch = self.batch(spec, kind, rows, 1, seed=7)
            found = session.run({"params": params.numpy(), **batch})
            x = torch.from_numpy(batch["x"])
            with torch.no_grad():
                truth = dict(zip(names, (value.numpy() for value in exact(params.double(), x.double())), strict=False))
                rough = dict(zip(names, (value.numpy() for value in module(params, x)), strict=False))
            for key, value in truth.items():
                allowed = max(CLEAN, 4 * off(rough[key], value))
                if found[key].shape != value.shape or off(found[key], value) > allowed:
                    raise ModelError(f"forward: the graph's {key} is not torch's ({kind}, {rows} rows)")
        return ReferenceCase("forward", "forward", batch, _float32(truth), CLEAN)

    def batch(self, spec: LossSpec, kind: str, private: int, public: int, seed: int) -> Arrays:
        """Inputs of a loss. kind: "random"; "padded": the last third weighs 0; "blank": one value but for a few
        numbers; "mixed": the first row blank, the last of weight 0."""
        rng = np.random.default_rng([seed, private, public])
        arrays: Arrays = {}
        for tensor in spec.inputs:
            rows = private if tensor.group == PRIVATE else public
            shape = (rows, *tensor.shape)
            if tensor.dtype == "int64":
                arrays[tensor.name] = rng.integers(0, self._classes, shape)
            elif tensor.weight:
                weights = rng.uniform(0.5, 1.5, shape) / (1 if tensor.group == PRIVATE else rows)
                idle = {"padded": rows // 3, "mixed": min(1, rows - 1)}.get(kind, 0)
                weights[rows - idle :] = 0
                arrays[tensor.name] = weights.astype(np.float32)
            elif tensor.name == "teacher":
                arrays[tensor.name] = rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)
            elif tensor.name == "teacher_embedding":
                pulled = rng.normal(size=shape)
                arrays[tensor.name] = (pulled / np.linalg.norm(pulled, axis=1, keepdims=True)).astype(np.float32)
            else:
                arrays[tensor.name] = self._samples(rng, shape, {"blank": rows, "mixed": 1}.get(kind, 0))
        return arrays

    def _samples(self, rng: np.random.Generator, shape: tuple[int, ...], blank: int) -> NDArray[np.float32]:
        """Uniform numbers of the input's mean and spread; in the first `blank` rows only one patch of them differs."""
        x = rng.uniform(-1.7, 1.7, shape).astype(np.float32)
        if len(shape) == 4:
            patch = np.zeros(shape, bool)
            patch[:, :, shape[2] // 4 : shape[2] // 2, shape[3] // 4 : shape[3] // 2] = True
        else:
            patch = np.broadcast_to(rng.uniform(size=shape[1:]) < 0.2, shape)
        patch = patch.copy()
        patch[blank:] = True
        scaled: NDArray[np.float32] = (self._mean + self._std * np.where(patch, x, np.float32(-0.4))).astype(np.float32)
        return scaled


def answers(module: nn.Module, spec: LossSpec, vector: NDArray[Any], batch: Arrays) -> Arrays:
    """torch's gradient, loss and outputs, in the precision of the module's parameters."""
    exact = next(module.parameters()).dtype
    params = torch.from_numpy(vector.astype(np.float64 if exact == torch.float64 else np.float32)).requires_grad_()
    inputs = [torch.from_numpy(batch[tensor.name]) for tensor in spec.inputs]
    with torch.enable_grad():
        loss, *outputs = module(params, *[value.to(exact) if value.is_floating_point() else value for value in inputs])
        (slope,) = torch.autograd.grad(loss, params)
    named = zip(("gradient", "loss", *spec.outputs), (slope, loss, *outputs), strict=True)
    return {name: value.detach().numpy() for name, value in named}


def off(found: NDArray[Any], truth: NDArray[Any]) -> float:
    """Relative L2 difference; the difference itself where the truth is 0, infinity where something is not finite or the
    shapes differ."""
    if found.shape != truth.shape or not np.isfinite(found).all():
        return float("inf")
    length = float(np.linalg.norm(truth.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - truth)) / (length or 1.0)


def _float32(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name: np.asarray(value, np.float32, order="C") for name, value in arrays.items()}


def _rounded_up(number: float) -> float:
    """To one significant digit, so that the last bits of a measurement are not part of a model's hash."""
    power = 10.0 ** np.floor(np.log10(number))
    return float(f"{np.ceil(number / power - 1e-9) * power:.0e}")
