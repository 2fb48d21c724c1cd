"""Model files and samples for tests of `edgeswarm model`. Its name is its own: many folders have a world."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm.models.file import Model, write
from edgeswarm.models.json_text import canonical
from tests.zoo import small


def model_file(folder: Path, name: str = "mlp", form: str = ".esm", heads: int = 0) -> tuple[Path, Model]:
    """A small built-in architecture on disk, as an archive or (form "") a folder."""
    model = small(name, heads)
    path = folder / f"{name}{form}"
    write(model, path)
    return path, model


def tampered(folder: Path, change: Callable[[dict[str, Any]], None] = lambda card: None, **members: bytes) -> Path:
    """A model folder with other members (dots as "__"), its card changed by `change`, and all hashes made right again:
    what somebody who knows the format could send."""
    path, _ = model_file(folder, form="")
    for name, data in members.items():
        (path / name.replace("__", ".")).write_bytes(data)
    card = json.loads((path / "model.json").read_text())
    for name, entry in card["files"].items():
        data = (path / name).read_bytes()
        entry["sha256"], entry["size_bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    change(card)
    (path / "model.json").write_text(json.dumps(rehashed(card)))
    return path


def rehashed(card: dict[str, Any]) -> dict[str, Any]:
    """The card with the hash that its content has."""
    plain = {key: value for key, value in card.items() if key != "hash"}
    return {**plain, "hash": hashlib.sha256(canonical(plain)).hexdigest()}


def blobs(path: Path, rows: int = 240, seed: int = 0, names: tuple[str, ...] = ("0", "1", "2")) -> Path:
    """An npz file of six numbers a sample in three well separated heaps, one per class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(len(names), size=rows)
    centres = 4 * np.eye(6, dtype=np.float32)[: len(names)]
    x = centres[y] + 0.3 * rng.normal(size=(rows, 6)).astype(np.float32)
    np.savez(path, x=x, y=np.array(names)[y])
    return path
