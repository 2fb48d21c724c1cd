"""Do two machines compute the same gradients? `save FOLDER` on one, `check FOLDER` on the other.

Saved are built-in models with batches of noise, of blank images (every max-pool window ties) and with weights of 0,
and what this machine's onnxruntime computes for them. Checked is the relative L2 difference: at most 1e-5 for small
nets; deep nets of ReLUs may have an activation within rounding of 0, which goes either way, so there it is 5e-3.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from edgeswarm.backends.base import Gradient
from edgeswarm.backends.onnx import OnnxBackend
from edgeswarm.models.file import read, write

MODELS: dict[str, tuple[dict[str, Any], float]] = {
    "mlp": ({"shape": (784,)}, 1e-5),
    "lenet5": ({"shape": (1, 28, 28)}, 1e-5),
    "resnet8": ({"shape": (3, 32, 32)}, 5e-3),
}
LABELS = 10
ROWS = 8


def batches(shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Inputs of the loss "ce" by name."""
    random = np.random.default_rng(5)
    y = random.integers(0, LABELS, ROWS)
    ones = np.ones(ROWS, np.float32)
    noise = random.random((ROWS, *shape), np.float32)
    blank = np.zeros((ROWS, *shape), np.float32)
    blank[:, ..., shape[-1] // 3 : shape[-1] // 2] = noise[:, ..., shape[-1] // 3 : shape[-1] // 2]
    padded = ones.copy()
    padded[5:] = 0.0
    return {
        "noise": {"x": noise, "y": y, "w": ones},
        "blank": {"x": blank, "y": y, "w": ones},
        "padded": {"x": noise, "y": y, "w": padded},
    }


def save(folder: Path) -> None:
    """Build the models and write them with this machine's gradients."""
    from edgeswarm.export.build import build

    folder.mkdir(parents=True, exist_ok=True)
    for name, (arguments, _) in MODELS.items():
        model = build(name, LABELS, **arguments)
        write(model, folder / f"{name}.esm")
        backend = OnnxBackend(threads=1)
        backend.load(model)
        found = {
            batch: backend.answer(Gradient(model.card.hash, "ce", model.initial, inputs)).gradient
            for batch, inputs in batches(arguments["shape"]).items()
        }
        np.savez(folder / f"{name}.npz", **found)


def check(folder: Path) -> bool:
    """Print the difference for each model and batch; False when one is too large."""
    good = True
    for name, (arguments, most) in MODELS.items():
        model = read(folder / f"{name}.esm")
        backend = OnnxBackend(threads=1)
        backend.load(model)
        with np.load(folder / f"{name}.npz", allow_pickle=False) as saved:
            for batch, inputs in batches(arguments["shape"]).items():
                there = saved[batch].astype(np.float64)
                here = backend.answer(Gradient(model.card.hash, "ce", model.initial, inputs)).gradient
                apart = float(np.linalg.norm(here - there) / np.linalg.norm(there))
                good &= apart <= most
                verdict = "" if apart <= most else f"  MORE THAN {most:g}"
                print(f"  {platform.machine()} {name:<8} {batch:<7} relative L2 {apart:.1e}{verdict}", flush=True)
    return good


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "check"):
        sys.exit("gradients.py save|check FOLDER")
    if sys.argv[1] == "save":
        save(Path(sys.argv[2]))
    elif not check(Path(sys.argv[2])):
        sys.exit(3)
