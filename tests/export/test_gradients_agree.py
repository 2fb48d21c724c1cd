"""Gradients of every built-in model and loss in onnxruntime against torch's own, written with torch's own losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.zoo import SMALL, needs_torch, small

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
needs_torch()

from torch.nn import functional  # noqa: E402

from edgeswarm.export.architectures import create  # noqa: E402
from edgeswarm.export.verify import Session  # noqa: E402
from edgeswarm.models.file import Model  # noqa: E402

HEADS = 2
NAMES = sorted(SMALL)
CLEAN = 1e-5


class Twin:
    """The architecture in torch, its losses as torch's own functions say them, not as edgeswarm exports them."""

    def __init__(self, name: str, model: Model) -> None:
        arguments = SMALL[name]
        net = create(name, arguments["labels"], HEADS, arguments["shape"], **arguments.get("options", {}))
        self.model, self.precise = model, copy.deepcopy(net).double()
        self.plain = net

    def slope(self, loss: str, vector: np.ndarray, batch: Mapping[str, Any], double: bool) -> dict[str, np.ndarray]:
        """Gradient in the vector's order, and the loss."""
        net, dtype = (self.precise, torch.float64) if double else (self.plain, torch.float32)
        named = dict(net.named_parameters())
        with torch.no_grad():
            for name, (where, shape) in self.model.card.layout().items():
                named[name].copy_(torch.from_numpy(vector[where].reshape(shape)))
        inputs = {key: torch.from_numpy(value) for key, value in batch.items()}
        inputs = {key: value if key == "y" else value.to(dtype) for key, value in inputs.items()}
        net.zero_grad(set_to_none=False)
        for value in named.values():
            value.grad = torch.zeros_like(value)
        total = _ce(net, inputs) + (_distill(net, inputs) if loss == "distill" else 0)
        total.backward()
        gradient = np.concatenate([named[name].grad.numpy().ravel() for name in self.model.card.layout()])
        return {"gradient": gradient, "loss": total.detach().numpy()}


def _ce(net: Any, inputs: Mapping[str, Any]) -> Any:
    each = functional.cross_entropy(net(inputs["x"])[0], inputs["y"], reduction="none")
    return (inputs["w"] * each).sum() / inputs["w"].sum()


def _distill(net: Any, inputs: Mapping[str, Any]) -> Any:
    _, embedding, aux = net(inputs["public_x"])
    away = functional.normalize(embedding, dim=1) - inputs["teacher_embedding"]
    pull = (inputs["embedding_weight"] * (away**2).sum(1)).sum()
    heads = aux.shape[1]
    said = [functional.cross_entropy(aux[:, h], inputs["teacher"][:, h], reduction="none") for h in range(heads)]
    return pull + (inputs["teacher_weight"] * torch.stack(said, 1)).sum()


def batch_of(model: Model, kind: str, private: int, public: int, seed: int) -> dict[str, np.ndarray]:
    """Rows for `distill` (those of `ce` come first). kind: "random", "padded" (weights of 0), "blank" (one value in
    every row but for one number), "constant" (one value everywhere)."""
    rng = np.random.default_rng([seed, private, public])
    shape, classes = model.card.input.shape, len(model.card.labels)

    def samples(rows: int) -> np.ndarray:
        x = rng.uniform(0, 1, (rows, *shape))
        if kind in ("blank", "constant"):
            x[:] = rng.uniform(0, 1, (rows, *(1,) * len(shape)))
        if kind == "blank":
            x.reshape(rows, -1)[np.arange(rows), rng.integers(0, x[0].size, rows)] = 1.0
        return x.astype(np.float32)

    def weights(*rows: int) -> np.ndarray:
        drawn = rng.uniform(0.2, 1, rows).astype(np.float32)
        drawn[rows[0] - (rows[0] // 3 if kind == "padded" else 0) :] = 0
        return drawn

    teacher_embedding = rng.normal(size=(public, model.card.embedding))
    teacher_embedding /= np.linalg.norm(teacher_embedding, axis=1, keepdims=True)
    return {
        "x": samples(private),
        "y": rng.integers(0, classes, private),
        "w": weights(private),
        "public_x": samples(public),
        "teacher_embedding": teacher_embedding.astype(np.float32),
        "embedding_weight": weights(public),
        "teacher": rng.dirichlet(np.ones(classes), (public, HEADS)).astype(np.float32),
        "teacher_weight": weights(public, HEADS),
    }


@cache
def twin(name: str) -> Twin:
    return Twin(name, small(name, HEADS))


@cache
def session(name: str, graph: str) -> Session:
    return Session(small(name, HEADS).graphs[graph], f"{name} {graph}")


def run(name: str, loss: str, vector: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    wanted = [tensor.name for tensor in small(name, HEADS).card.losses[loss].inputs]
    return session(name, f"{loss}.gradient").run({"params": vector, **{key: batch[key] for key in wanted}})


def off(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("kind", ["random 1", "random 7", "random 32", "padded 7", "blank 7", "constant 3"])
@pytest.mark.parametrize("loss", ["ce", "distill"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_torchs(name: str, loss: str, kind: str) -> None:
    """In float64, on a draw with no ReLU within rounding of its kink; if there is none, as close as torch's float32."""
    model, word, rows = small(name, HEADS), *kind.split()
    ours, torchs = [], []
    for seed in range(6):
        vector = model.initial + np.random.default_rng(seed).normal(0, 0.02, model.card.size).astype(np.float32)
        batch = batch_of(model, word, int(rows), max(1, int(rows) // 2), seed)
        truth, rough = (twin(name).slope(loss, vector, batch, double) for double in (True, False))
        found = run(name, loss, vector, batch)
        assert found["loss"] == pytest.approx(float(truth["loss"]), rel=2e-5, abs=1e-6)
        ours.append(off(found["gradient"], truth["gradient"]))
        torchs.append(off(rough["gradient"], truth["gradient"]))
        if ours[-1] <= CLEAN:
            return
    assert min(ours) <= 2 * min(torchs), (ours, torchs)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_weight_0_counts_for_nothing(name: str) -> None:
    model = small(name, HEADS)
    batch = batch_of(model, "padded", 9, 6, 0)
    short = {key: value[: 6 if len(value) == 9 else 4] for key, value in batch.items()}
    other = {key: value.copy() for key, value in batch.items()}
    other["x"][6:], other["y"][6:], other["public_x"][4:], other["teacher"][4:] = 0.25, 0, 0.75, 0.5
    for loss in ("ce", "distill"):
        whole = run(name, loss, model.initial, batch)
        assert off(whole["gradient"], run(name, loss, model.initial, short)["gradient"]) < CLEAN
        assert off(whole["gradient"], run(name, loss, model.initial, other)["gradient"]) < CLEAN


def test_no_row_weighs_anything_and_the_gradient_is_0() -> None:
    model = small("lenet5", HEADS)
    batch = {key: value if "weight" not in key and key != "w" else 0 * value
             for key, value in batch_of(model, "random", 4, 3, 0).items()}  # fmt: skip
    for loss in ("ce", "distill"):
        answer = run("lenet5", loss, model.initial, batch)
        assert answer["loss"] == 0 and not answer["gradient"].any()


def test_an_embedding_of_zeros_pulls_with_a_finite_gradient() -> None:
    model = small("mlp", HEADS)
    answer = run("mlp", "distill", 0 * model.initial, batch_of(model, "random", 4, 3, 0))
    assert np.isfinite(answer["gradient"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_graph_and_the_gradient_graph_say_the_same(name: str) -> None:
    model = small(name, HEADS)
    batch = batch_of(model, "random", 5, 2, 1)
    for loss, spec in model.card.losses.items():
        inputs = {"params": model.initial, **{tensor.name: batch[tensor.name] for tensor in spec.inputs}}
        value, slope = session(name, f"{loss}.loss").run(inputs), session(name, f"{loss}.gradient").run(inputs)
        assert set(slope) == {"gradient", *value} == {"gradient", "loss", *spec.outputs}
        for key, said in value.items():
            np.testing.assert_allclose(said, slope[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_forward_graph_is_the_module(name: str) -> None:
    model, net = small(name, HEADS), twin(name).plain
    x = batch_of(model, "random", 5, 1, 2)["x"]
    # For the sake of setting the parameters.
    twin(name).slope("ce", model.initial.copy(), batch_of(model, "random", 2, 1, 0), double=False)
    with torch.no_grad():
        truth = net(torch.from_numpy(x))
    found = session(name, "forward").run({"params": model.initial, "x": x})
    for key, value in zip(("logits", "embedding", "aux"), truth, strict=True):
        np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-4, atol=1e-5)


def test_ce_leaves_auxiliary_heads_alone_and_distill_leaves_the_main_head_to_own_labels() -> None:
    """Head 0 never sees teachers (2211.15774, section 4.2)."""
    model = small("lenet5", HEADS)
    batch = batch_of(model, "random", 5, 4, 3)
    places = model.card.layout()
    ce, both = run("lenet5", "ce", model.initial, batch), run("lenet5", "distill", model.initial, batch)
    for name, (where, _) in places.items():
        if name.startswith("auxiliary."):
            assert not ce["gradient"][where].any() and both["gradient"][where].any()
        if name.startswith("head."):
            np.testing.assert_allclose(both["gradient"][where], ce["gradient"][where], rtol=1e-4, atol=1e-6)
