"""The built-in architectures: sizes, shapes, and that the list without torch is the list with it."""

from __future__ import annotations

import pytest

from edgeswarm.export.build import BUILT_IN
from tests.zoo import SMALL, needs_torch

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
needs_torch()

from edgeswarm.export.architectures import ARCHITECTURES, create  # noqa: E402


def test_the_names_are_known_without_torch() -> None:
    assert tuple(ARCHITECTURES) == BUILT_IN
    assert set(SMALL) == set(BUILT_IN)


@pytest.mark.parametrize(
    ("name", "parameters", "embedding"),
    [
        ("mlp", 159_010, 200),
        ("lenet5", 61_706, 84),
        ("cnn", 105_866, 64),
        ("resnet8", 77_850, 64),
        ("resnet20", 272_282, 64),
        ("mobilenet", 87_210, 128),
    ],
)
def test_sizes(name: str, parameters: int, embedding: int) -> None:
    net = create(name, 10)
    assert sum(value.numel() for value in net.parameters()) == parameters
    with torch.no_grad():
        logits, embedded = net(torch.zeros(2, *ARCHITECTURES[name].shape))
    assert logits.shape == (2, 10) and embedded.shape == (2, embedding)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 33, 47)])
def test_images_of_any_size_and_heads(name: str, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        logits, embedding, aux = create(name, 4, 3, shape, mean=[0.5] * shape[0], std=[0.25])(torch.zeros(2, *shape))
    assert logits.shape == (2, 4) and aux.shape == (2, 3, 4) and embedding.ndim == 2


def test_every_option_named_is_one_the_architecture_takes() -> None:
    for name, known in ARCHITECTURES.items():
        create(name, 3, **known.options)
