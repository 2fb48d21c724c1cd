"""Built models for tests, made once: a build takes seconds, so results are kept beside pytest's own cache.

The key is all that a build depends on: the call, the packages' versions, and the source of everything it runs through.
A machine without torch reads what another one built: both are given one folder as EDGESWARM_CARRIED_MODELS, where the
key is the call alone.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.errors import ModelError
from edgeswarm.export.build import NEEDED, build
from edgeswarm.models.file import Model, read, write

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".pytest_cache" / "models"
KEPT = 60
"""Models on disk; older ones go."""

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"labels": 3, "shape": (6,), "options": {"hidden": (12,)}},
    "lenet5": {"labels": 3, "shape": (1, 12, 12)},
    "cnn": {"labels": 3, "shape": (1, 8, 8), "options": {"channels": (4, 6), "embedding": 8}},
    "resnet8": {"labels": 3, "shape": (3, 8, 8), "options": {"width": 8}},
    "resnet20": {"labels": 3, "shape": (3, 8, 8), "options": {"width": 8}},
    "mobilenet": {
        "labels": 3,
        "shape": (3, 16, 16),
        "options": {"channels": (8, 16), "repeats": 2, "widen": 2, "embedding": 16},
    },
}
"""Every built-in architecture, small enough for a test: `small(name)`."""


def needs_torch() -> None:
    """Skip the calling test where the torch extra is not installed."""
    for package in NEEDED:
        pytest.importorskip(package, reason=f"building models needs {package}: pip install 'edgeswarm[torch]'")


def small(name: str, heads: int = 0) -> Model:
    """The architecture `name`, small."""
    return built(name, heads=heads, **SMALL[name])


def built(name: str, labels: int = 10, **arguments: Any) -> Model:
    """`build(name, labels, **arguments)`, from the cache where it is there. Skips the test without the torch extra."""
    key = (name, labels, repr(sorted(arguments.items())))
    if key not in _MEMORY:
        try:
            _MEMORY[key] = _carried(name, labels, arguments, repr(key))
        except ModelError as error:
            _MEMORY[key] = error  # the next test that asks need not wait for the same failure
    found = _MEMORY[key]
    if isinstance(found, ModelError):
        raise found
    return found


_MEMORY: dict[tuple[str, int, str], Model | ModelError] = {}


def _carried(name: str, labels: int, arguments: dict[str, Any], key: str) -> Model:
    folder = os.environ.get("EDGESWARM_CARRIED_MODELS")
    carried = Path(folder) / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.esm" if folder else None
    if carried is not None and carried.is_file():
        return read(carried)
    needs_torch()
    model = _from_disk(name, labels, arguments, key)
    if carried is not None:
        write(model, carried)
    return model


def _from_disk(name: str, labels: int, arguments: dict[str, Any], key: str) -> Model:
    digest = hashlib.sha256(f"{key} {_surroundings()}".encode()).hexdigest()[:24]
    path = FOLDER / f"{name}-{digest}.esm"
    if path.is_file():
        try:
            return read(path)
        except ModelError:
            path.unlink()  # cut off by a run that was killed
    model = build(name, labels, **arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(model, path)
    for old in sorted(FOLDER.glob("*.esm"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return model


@cache
def _surroundings() -> str:
    """A hash of versions and sources."""
    parts = [sys.version, *(f"{package} {version(package)}" for package in ("numpy", *NEEDED))]
    for folder in ("export", "models", "backends/operators"):
        parts += [path.read_text(encoding="utf-8") for path in sorted((ROOT / "edgeswarm" / folder).rglob("*.py"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
