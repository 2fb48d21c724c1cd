"""A user's own torch module becomes a model: which outputs it may have, and which part each parameter belongs to."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.zoo import needs_torch

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
needs_torch()

from edgeswarm.export.build import build  # noqa: E402
from edgeswarm.export.modules import standard  # noqa: E402
from edgeswarm.export.verify import Session  # noqa: E402
from edgeswarm.models.card import BODY, HEAD  # noqa: E402
from edgeswarm.models.file import Model  # noqa: E402
from tests.export import users_modules  # noqa: E402

USERS = "tests.export.users_modules"


def forward(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    return Session(model.graphs["forward"], "forward").run({"params": model.initial, "x": x})


def test_logits_alone_the_last_linear_layers_input_is_the_embedding() -> None:
    model = build(f"{USERS}:plain", 3, shape=(5,), options={"width": 7}, seed=4)
    torch.manual_seed(4)
    net = users_modules.plain(3, 7)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    answer = forward(model, x)
    with torch.no_grad():
        np.testing.assert_allclose(answer["embedding"], net[:2](torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(answer["logits"], net(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)
    assert model.card.embedding == 7 and model.card.name == "tests.export.users_modules-plain"


def test_the_body_comes_first_whatever_the_modules_order() -> None:
    card = build(f"{USERS}:pair", ("a", "b", "c"), shape=(5,), name="mine", licence="MIT", units="volts").card
    assert [(parameter.name, parameter.part) for parameter in card.parameters] == [
        ("embed.weight", BODY),
        ("embed.bias", BODY),
        ("classify.weight", HEAD),
        ("classify.bias", HEAD),
    ]
    assert card.body_size == 4 * 5 + 4 and card.size == card.body_size + 3 * 4 + 3
    assert (card.name, card.licence, card.input.units, card.input.kind) == ("mine", "MIT", "volts", "vector")
    assert card.labels == ("a", "b", "c")


def test_heads_are_put_on_the_embedding_of_a_module_that_has_none() -> None:
    model = build(f"{USERS}:pair", 3, heads=2, shape=(5,))
    assert [parameter.name for parameter in model.card.parameters if parameter.part == HEAD] == [
        "classify.weight",
        "classify.bias",
        "added.linear.weight",
        "added.linear.bias",
    ]
    assert forward(model, np.zeros((4, 5), np.float32))["aux"].shape == (4, 2, 3)
    assert set(model.card.losses) == {"ce", "distill"}


def test_a_layer_that_does_not_learn_is_a_constant_of_the_graph() -> None:
    model = build(f"{USERS}:frozen", 3, shape=(5,), seed=1)
    assert next(parameter.name for parameter in model.card.parameters) == "embed.bias"
    torch.manual_seed(1)
    net = users_modules.frozen(3)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(forward(model, x)["logits"], net(torch.from_numpy(x))[0], rtol=1e-5, atol=1e-6)


def test_the_inputs_mean_and_spread_are_part_of_the_graph() -> None:
    plain = build(f"{USERS}:pair", 3, shape=(5,))
    scaled = build(f"{USERS}:pair", 3, shape=(5,), mean=(100.0,), std=(20.0,))
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    one, other = forward(plain, x), forward(scaled, 100 + 20 * x)
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-4, atol=1e-4)


def test_embeddings_of_length_1_change_no_logits() -> None:
    plain, unit = (build(f"{USERS}:pair", 3, shape=(5,), normalised=flag) for flag in (False, True))
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    one, other = forward(plain, x), forward(unit, x)
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-6)
    np.testing.assert_allclose(
        one["embedding"] / np.linalg.norm(one["embedding"], axis=1, keepdims=True), other["embedding"], rtol=1e-5
    )
    assert unit.card.normalised and not plain.card.normalised


def test_a_file_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net_for_edgeswarm.py").write_text(
        "from torch import nn\n"
        "def make(classes, shape):\n"
        "    return nn.Sequential(nn.Linear(shape[0], 4), nn.ReLU(), nn.Linear(4, classes))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert build("my_net_for_edgeswarm:make", 2, shape=(6,)).card.size == 6 * 4 + 4 + 4 * 2 + 2
    assert sys.path == path
    monkeypatch.delitem(sys.modules, "my_net_for_edgeswarm")


def test_modules_with_heads_of_their_own_are_taken_as_they_are() -> None:
    whole = standard(Three(), 3, 2, (5,))
    assert whole.added is None and len(whole(torch.zeros(2, 5))) == 3


class Three(torch.nn.Module):
    """Logits, embedding, and two heads of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.heads = torch.nn.Linear(5, 4), torch.nn.Linear(4, 9)

    def forward(self, x):  # type: ignore[no-untyped-def]
        embedding = self.embed(x)
        three = self.heads(embedding).reshape(-1, 3, 3)
        return three[:, 0], embedding, three[:, 1:]
