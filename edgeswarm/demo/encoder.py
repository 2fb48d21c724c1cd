"""The demo's encoder: a small network, trained before the devices start, on images that none of them will see.

It is trained the way a board would do it: a model file with its own gradient graph, run by plain ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import numpy as np

from edgeswarm.backends.base import Backend
from edgeswarm.backends.fit import Fit, accuracy
from edgeswarm.demo.image_data import Images
from edgeswarm.errors import DataError
from edgeswarm.maths import optimisers
from edgeswarm.messages import Array
from edgeswarm.models.file import Model, read, seal

TEMPLATES = {(28, 28, 1): "lenet5-28x28.esm", (32, 32, 3): "cnn-32x32.esm"}
"""Untrained model files that ship with the demo, by (height, width, channels)."""

EPOCHS = 12
BATCH = 32
OPTIMISER = optimisers.Optimiser(kind="adam", rate=1e-3)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A trained model file, and how well its own head does on images it has not seen (0 to 1)."""

    model: Model
    accuracy: float

    def as_json(self) -> dict[str, Any]:
        """Facts for `--json`."""
        card = self.model.card
        return {"model": card.name, "hash": card.hash, "embedding": card.embedding, "accuracy": self.accuracy}


def template(shape: tuple[int, int, int]) -> Model:
    """The untrained model for images of (height, width, channels). Raises DataError: there is none for that shape."""
    name = TEMPLATES.get(shape)
    if name is None:
        known = " or ".join(f"{h} x {w} {'grey' if c == 1 else 'colour'}" for h, w, c in TEMPLATES)
        raise DataError(
            f"the demo has encoders for images of {known}, not {shape[0]} x {shape[1]} with {shape[2]} channels"
        )
    with as_file(files("edgeswarm.demo") / "models" / name) as path:
        return read(path)


def train(
    images: Images, backend: Backend, seed: int, exam: tuple[Array, tuple[str, ...]], told: Callable[[float], None]
) -> Encoder:
    """An encoder trained on `images`, its head examined on `exam` (x (n, d), y). told: hears how much is done, 0 to 1.

    Raises DataError: no template for that shape, more classes than it has.
    """
    model = template(images.shape)
    card = model.card
    names = sorted(set(images.y) | set(exam[1]))
    if len(names) > len(card.labels):
        raise DataError(f"{images.name}: {len(names)} classes; the demo's encoder can tell {len(card.labels)} apart")
    position = {name: at for at, name in enumerate(names)}
    backend.load(model)
    x = channels_first(images.x, card.input.shape)
    y = np.array([position[name] for name in images.y], np.int64)
    fit = Fit(backend, model, x, y, OPTIMISER, BATCH, seed=seed)
    for epoch in range(1, EPOCHS + 1):
        fit.epoch(epoch)
        told(epoch / EPOCHS)
    shaped = channels_first(exam[0].reshape(-1, *images.shape), card.input.shape)
    right = accuracy(backend, model, shaped, np.array([position[name] for name in exam[1]], np.int64), fit.params)
    new = seal(card, model.graphs, fit.params, licence_text=model.licence_text)
    return Encoder(new, right)


def channels_first(x: Array, shape: tuple[int, ...]) -> Array:
    """(n, height, width, channels) as the model wants it, (n, *shape)."""
    return np.ascontiguousarray(np.moveaxis(x, 3, 1)).reshape(-1, *shape)
