"""`build`: from an architecture or the user's own torch module to a model file's content, differentiated and verified.

Runs on a workstation with the torch extra. This module itself imports none of it, so that what is missing can be said.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeswarm.errors import ModelError
from edgeswarm.models.file import Model

NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")

BUILT_IN = ("mlp", "lenet5", "cnn", "resnet8", "resnet20", "mobilenet")
"""Names of `architectures.ARCHITECTURES`, readable without torch."""


def build(
    architecture: str,
    labels: Sequence[str] | int,
    *,
    heads: int = 0,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    units: str = "",
    seed: int = 0,
    name: str = "",
    licence: str = "Apache-2.0",
    licence_text: str = "",
    options: Mapping[str, Any] | None = None,
    normalised: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Model:
    """A model with its forward graph, its losses and their gradients, each proven against torch before it is returned.

    Args:
        architecture: one of `BUILT_IN`, or "module:function" of the user's (see `modules`).
        labels: class names in the order of the logits, or how many (then they are called "0", "1", ...); at least 2.
        heads: auxiliary heads; with one or more, the model carries the loss `distill` beside `ce`.
        shape: of one sample, channels first for images; None: the built-in architecture's own.
        mean, std: the input's, one number or one per channel; (x - mean) / std becomes part of the graph.
        units: for people, e.g. "grey 0 to 1".
        seed: of the initial values. The same call with the same versions gives the same bytes.
        name: of the model; "": the architecture's.
        licence: SPDX name or short text; licence_text: the whole text, for the file's LICENSE.
        options: of the architecture (`architectures.ARCHITECTURES`), or keyword arguments of the user's function.
        normalised: embeddings are scaled to length 1 by the graph.
        progress: called with one line at each stage.
    Raises:
        ModelError, one line: the torch extra is missing; the user's function cannot be found, raises or returns
        something else; the module cannot be trained row by row (BatchNorm, Dropout); an operation has no ONNX operator
        or no gradient, named with its place in the module; the gradient differs from torch's.
    """
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(f"building a model needs {', '.join(missing)} here: pip install 'edgeswarm[torch]'")
    # Only now: a board without torch may import this module.
    from edgeswarm.export.assemble import Order, assemble

    names = tuple(str(number) for number in range(labels)) if isinstance(labels, int) else tuple(labels)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ModelError(f"a classifier needs two or more labels, all different, not {len(names)}: {', '.join(names)}")
    if heads < 0:
        raise ModelError(f"heads is 0 or more, not {heads}")
    if shape is not None and not (1 <= len(shape) <= 3 and all(length >= 1 for length in shape)):
        raise ModelError(f"shape is (numbers,) or (channels, height, width), all 1 or more, not {tuple(shape)}")
    if ":" not in architecture and architecture not in BUILT_IN:
        raise ModelError(
            f"no built-in architecture {architecture!r}: one of {', '.join(BUILT_IN)}, or your own as module:function"
        )
    return assemble(
        Order(
            architecture=architecture,
            labels=names,
            heads=heads,
            shape=None if shape is None else tuple(shape),
            mean=tuple(mean),
            std=tuple(std),
            units=units,
            seed=seed,
            name=name,
            licence=licence,
            licence_text=licence_text,
            options=dict(options or {}),
            normalised=normalised,
        ),
        progress,
    )
