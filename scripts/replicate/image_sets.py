"""MNIST and CIFAR-10 as the scripts beside this one learn from them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
CHANNELS = {
    "mnist": (np.float32([0.1307]), np.float32([0.3081])),
    "cifar10_jpeg": (np.float32([0.491, 0.482, 0.447]), np.float32([0.247, 0.243, 0.262])),
}
"""Mean and spread of each channel."""


def scaled(x: NDArray[np.uint8]) -> Array:
    """Images as rows of numbers from 0 to 1, channels first."""
    return np.asarray(x.reshape(len(x), -1), np.float32) / np.float32(255)


def normalised(x: NDArray[np.uint8], name: str) -> Array:
    """`scaled`, each channel less its mean over the training images of the data set `name`, over its spread there."""
    mean, spread = CHANNELS[name]
    rows = scaled(x).reshape(len(x), len(mean), -1)
    return np.asarray((rows - mean[:, None]) / spread[:, None], np.float32).reshape(len(x), -1)


@cache
def images(name: str, folder: Path) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """Training and test images, uint8, channels first, with labels."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: --data FOLDER names the folder with {name}.npz")
    with np.load(path) as archive:
        held = dict(archive)
    for part in ("train", "test"):
        if f"jpeg_{part}" in held:
            held[f"x_{part}"] = opened(held[f"jpeg_{part}"], held[f"end_{part}"])
    return held["x_train"], held["y_train"].astype(np.int64), held["x_test"], held["y_test"].astype(np.int64)


def opened(codes: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """JPEG images that lie end to end: (n, 3, h, w)."""
    from PIL import Image

    data, starts = codes.tobytes(), [0, *ends[:-1].tolist()]
    found = [np.asarray(Image.open(io.BytesIO(data[a:b]))) for a, b in zip(starts, ends.tolist(), strict=True)]
    return np.ascontiguousarray(np.array(found).transpose(0, 3, 1, 2))
