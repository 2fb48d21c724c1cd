"""From a source's rows to what the strategy learns from: pixels in the model's order, and embeddings of an encoder.

Images come with the colours of each pixel side by side, models want one colour after the other (channels first).
An encoder is a model file asked for embeddings; methods then learn from those in place of the samples. All of it is
part of the schema, so nodes with another encoder, or the same one otherwise scaled, never mix what they learnt.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.sources.base import MOST_FEATURES, Schema
from edgeswarm.backends.base import Embed, Request
from edgeswarm.errors import ConfigError, ModelError
from edgeswarm.messages import Array
from edgeswarm.models.card import InputSpec, ModelCard

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 64
MEMORY_BYTES = 32_000_000
"""About what the intermediate values of one call may take; an encoder with large ones gets fewer rows at a time."""
SMALLEST = 1e-12
"""Embeddings shorter than this have no direction and stay as they are; the constant of torch's `normalize`."""

_IMAGE = re.compile(r"image:(\d+)x(\d+):(grey|rgb):")


@dataclass(frozen=True, eq=False)
class Encoder:
    """A model file as an encoder. normalise: scale embeddings to length 1."""

    card: ModelCard
    normalise: bool = True

    def schema(self, raw: Schema) -> Schema:
        """What is learnt from in place of `raw`: e0, e1, ... Raises ConfigError: samples like these do not fit."""
        order_of(raw, self.card.input, f"[encoder] {self.card.name}")
        if self.card.embedding > MOST_FEATURES:
            raise ConfigError(
                f"[encoder] {self.card.name} gives {self.card.embedding} numbers, nodes can exchange at most "
                f"{MOST_FEATURES}; use one with a smaller embedding"
            )
        scaled = "length1" if self.normalise else "as-is"
        made = f"encoder:{self.card.hash}:{scaled}:{raw.fingerprint:016x}"
        if in_bytes(raw, self.card.input):
            made += ":bytes"
        return Schema(raw.task, tuple(f"e{at}" for at in range(self.card.embedding)), made)

    def rows(self, x: Array) -> Generator[Request, Any, Array]:
        """Embeddings (n, e) float32 of rows x (n, d) in the model's order, a few at a time.

        Raises ModelError: some are not finite, so the rows are beyond what the model was made for.
        """
        at_once = int(np.clip(MEMORY_BYTES // max(1, self.card.activation_bytes), 1, ROWS_AT_ONCE))
        parts = []
        for at in range(0, len(x), at_once):
            part: Array = yield Embed(self.card.hash, x[at : at + at_once])
            parts.append(part)
        if not parts:
            return np.zeros((0, self.card.embedding), np.float32)
        e = np.concatenate(parts)
        if not np.isfinite(e).all():
            raise ModelError(f"[encoder] {self.card.name}: an embedding is not finite; look at the samples")
        if not self.normalise:
            return e
        with np.errstate(over="ignore"):
            length = np.sqrt((e.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        return np.asarray(e / np.maximum(length, SMALLEST), np.float32)


class Preparation:
    """What happens to a source's rows before a strategy sees them. raw, schema: before and after."""

    def __init__(self, raw: Schema, encoder: Encoder | None, model: ModelCard | None) -> None:
        """model: that the strategy trains. Raises ConfigError, one line: samples like these do not fit."""
        self.raw = raw
        self._encoder = encoder
        self._order = order_of(raw, encoder.card.input, f"[encoder] {encoder.card.name}") if encoder else None
        self._bytes = encoder is not None and in_bytes(raw, encoder.card.input)
        self._input = encoder.card.input if encoder else None if model is None else model.input
        self._warned = False
        self.schema = encoder.schema(raw) if encoder else raw
        if model is not None:
            order = order_of(self.schema, model.input, f"[model] {model.name}")
            if encoder is None:
                self._order, self._bytes = order, in_bytes(raw, model.input)
            if encoder is None and order is not None:
                features = tuple(raw.features[at] for at in order.tolist())
                self.schema = replace(raw, features=features, encoder=f"{raw.encoder}:chw")
            if encoder is None and self._bytes:
                self.schema = replace(self.schema, encoder=f"{self.schema.encoder}:bytes")

    @property
    def trivial(self) -> bool:
        """Whether rows stay as they are."""
        return self._encoder is None and self._order is None and not self._bytes

    def rows(self, x: Array) -> Generator[Request, Any, Array]:
        """What becomes of rows x (n, d) float32; a generator of requests, as a strategy's step is."""
        if self._order is not None:
            x = x[:, self._order]
        if self._bytes:
            x = x / np.float32(255)
        if not self._warned and (text := too_bright(x, self._input)):
            self._warned = True
            log.warning("%s", text)
        return (yield from self._encoder.rows(x)) if self._encoder is not None else x


def order_of(schema: Schema, spec: InputSpec, who: str) -> NDArray[np.int64] | None:
    """Which column of a row each number of a model's input comes from (d,); None when the order is the same.

    Rows from elsewhere than an image source are taken for images as that source gives them, pixel by pixel, unless an
    npz file holds an array of just the model's shape. who: begins the error. Raises ConfigError, one line: the sizes or
    the colours differ.
    """
    wanted = " x ".join(map(str, spec.shape))
    image = _IMAGE.match(schema.encoder)
    if image is None:
        if len(schema.features) != spec.size:
            raise ConfigError(
                f"{who} takes {wanted} numbers ({spec.units or spec.kind}), the samples have {len(schema.features)}: "
                "use a model made for them, or other [source] features"
            )
        first = schema.form.partition(":")[2] == "x".join(map(str, spec.shape))
        if spec.kind != "image" or len(spec.shape) != 3 or first:
            return None
        return _channels_first(*spec.shape)
    height, width, channels = int(image[1]), int(image[2]), 3 if image[3] == "rgb" else 1
    if spec.kind != "image" and spec.size == height * width * channels:
        return None  # it was made for these numbers as they stand in a row
    if len(spec.shape) != 3 or spec.shape != (channels, height, width):
        fits = len(spec.shape) == 3 and spec.shape[0] in (1, 3) and spec.shape[1] == spec.shape[2]
        mode = "rgb" if spec.shape[0] == 3 else "grey"
        remedy = f'set [source] image_size = {spec.shape[1]} and image_mode = "{mode}"' if fits else "use another model"
        raise ConfigError(f"{who} takes {wanted}, the images are {channels} x {height} x {width}: {remedy}")
    return _channels_first(channels, height, width)


def in_bytes(schema: Schema, spec: InputSpec) -> bool:
    """Whether samples are whole numbers 0 to 255 where the model wants them from 0 to 1."""
    return spec.kind == "image" and "0 to 1" in spec.units and schema.form.startswith("uint8:")


def too_bright(x: Array, spec: InputSpec | None) -> str:
    """One line when images reach far beyond the 0 to 1 that a model was made for; "" otherwise."""
    if spec is None or spec.kind != "image" or "0 to 1" not in spec.units or not x.size or x.max() <= 2.0:
        return ""
    return (
        f"samples reach {float(x.max()):g}, the model was made for numbers from 0 to 1: divide them by 255, or store "
        "them as bytes (uint8), which is done for you"
    )


def _channels_first(channels: int, height: int, width: int) -> NDArray[np.int64] | None:
    if channels == 1:
        return None
    places = np.arange(channels * height * width, dtype=np.int64).reshape(height, width, channels)
    return np.ascontiguousarray(places.transpose(2, 0, 1)).ravel()
