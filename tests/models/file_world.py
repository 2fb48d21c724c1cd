"""Models and damage for the tests of the model file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm.models.card import InputSpec, ModelCard
from edgeswarm.models.content import seal
from edgeswarm.models.file import Model
from edgeswarm.models.json_text import canonical
from edgeswarm.models.reference import ReferenceCase
from tests.tiny_model import FLOAT32, node, onnx, tiny


def with_reference() -> Model:
    """`tiny()` with a case for each graph (the numbers are shapes only: no board computes them here) and a licence."""
    model = tiny()
    rng = np.random.default_rng(5)

    def some(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    forward = ReferenceCase(
        "forward", "forward", {"x": some(2, 3)}, {"embedding": some(2, 4), "logits": some(2, 2)}, 1e-5
    )
    ce = ReferenceCase(
        "ce.padded",
        "ce",
        {"x": some(3, 3), "y": np.array([0, 1, 0]), "w": np.array([1, 1, 0], np.float32)},
        {"gradient": some(model.card.size), "loss": some(), "logits": some(3, 2)},
        1e-5,
    )
    return seal(model.card, model.graphs, model.initial, (forward, ce), "Apache License\nVersion 2.0\n")


def same(one: Model, other: Model) -> bool:
    """Whether two models are equal in everything."""

    def plain(case: ReferenceCase) -> tuple[Any, ...]:
        arrays = [sorted((name, a.dtype.name, a.shape, a.tobytes()) for name, a in side.items())
                  for side in (case.inputs, case.outputs)]  # fmt: skip
        return (case.name, case.graph, case.tolerance, arrays)

    return (
        one.card == other.card
        and dict(one.graphs) == dict(other.graphs)
        and one.initial.tobytes() == other.initial.tobytes()
        and list(map(plain, one.reference)) == list(map(plain, other.reference))
        and one.licence_text == other.licence_text
    )


def resealed(
    members: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda card: None
) -> dict[str, bytes]:
    """The members with `change` made to the card's JSON and all hashes right again: only the content is wrong then."""
    members = dict(members)
    card = json.loads(members["model.json"])
    card["files"] = {
        name: {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)}
        for name, data in members.items()
        if name != "model.json"
    }
    change(card)
    card["hash"] = sha256(canonical({key: value for key, value in card.items() if key != "hash"})).hexdigest()
    members["model.json"] = json.dumps(card).encode()
    return members


def folder_of(members: dict[str, bytes], path: Path) -> Path:
    path.mkdir()
    for name, data in members.items():
        (path / name).write_bytes(data)
    return path


def archive_of(members: dict[str, bytes], path: Path, kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def encoder() -> Model:
    """A model without parameters, labels or losses: what a user's own encoder is."""

    graph = onnx(
        [node("Tanh", ["x"], ["embedding"])], [("x", FLOAT32, ("n", 3))], [("embedding", FLOAT32, ("n", 3))], {}
    )
    card = ModelCard(
        name="encoder",
        architecture="own",
        parameters=(),
        input=InputSpec((3,), "vector", ""),
        labels=(),
        embedding=3,
        heads=0,
        losses={},
        flops=3,
        activation_bytes=24,
        licence="MIT",
        producer={},
    )
    return seal(card, {"forward": graph}, np.zeros(0, np.float32))
