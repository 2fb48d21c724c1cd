"""Samples from a folder of labelled images: <folder>/<label>/*.png, *.jpg, *.jpeg, as grey or colour numbers 0 to 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.sources.base import MOST_FEATURES, FileSource, Pace, Sample, Schema, check_width
from edgeswarm.errors import DataError
from edgeswarm.messages import Array

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 50_000_000
"""Larger images are dropped undecoded: one of 50 million pixels takes 150 MB, and a small board has no more to give."""


class ImagesSource(FileSource):
    """Each image scaled to `size` x `size`, flattened row by row (colour: red, green, blue of each pixel).

    The order is a shuffle by `seed`, another one at each repetition. Images that cannot be read are dropped and
    counted. Decoding happens in a worker thread. Raises DataError when the folder holds no image or Pillow is absent.
    """

    in_thread = True

    def __init__(
        self,
        path: Path,
        task: str,
        size: int = 28,
        mode: str = "grey",
        classes: tuple[str, ...] = (),
        repeat: bool = False,
        pace: Pace | None = None,
        seed: int = 0,
        most: int = MOST_FEATURES,
    ) -> None:
        super().__init__(path, classes, repeat, pace or Pace(0.0))
        self._image = _pillow()
        self._size = size
        self._mode = {"grey": "L", "rgb": "RGB"}[mode]
        self._seed = seed
        check_width(path, size * size * (1 if mode == "grey" else 3), most)
        channels = ("",) if mode == "grey" else ("r", "g", "b")
        names = tuple(f"y{y}x{x}{channel}" for y in range(size) for x in range(size) for channel in channels)
        self._schema = Schema(task, names, f"image:{size}x{size}:{mode}:0-1")
        self._files = self._list()

    def schema(self) -> Schema:
        """One dimension per pixel and channel."""
        return self._schema

    def rows(self, turn: int = 0) -> Iterator[Sample | None]:
        """Each image once; None for one that was dropped and counted."""
        order = np.random.default_rng((self._seed, turn)).permutation(len(self._files))
        for at in order:
            label, file = self._files[at]
            values = self._decode(file)
            yield None if values is None else self._sample(values, label)

    def _list(self) -> list[tuple[str, Path]]:
        try:
            folders = sorted(place for place in self.path.iterdir() if place.is_dir() and place.name[0] != ".")
            files = [
                (folder.name, file)
                for folder in folders
                for file in sorted(folder.iterdir())
                if file.suffix.lower() in SUFFIXES and file.name[0] != "."
            ]
        except OSError as error:
            raise DataError(fault_text("read images from", self.path, error)) from None
        if not files:
            raise DataError(
                f"{self.path}: no images; they are looked for as <label>/*.png, *.jpg, *.jpeg in that folder"
            )
        return files

    def _decode(self, file: Path) -> Array | None:
        try:
            with self._image.open(file) as image:
                if image.width * image.height > MOST_PIXELS:
                    self.dropped["too_large"] += 1
                    return None
                image.draft(self._mode, (self._size, self._size))  # lets the JPEG decoder skip detail nobody will see
                scaled = image.convert(self._mode).resize((self._size, self._size), self._image.Resampling.BILINEAR)
                x: Array = np.asarray(scaled, np.float32).ravel() / np.float32(255.0)
                return x
        except (self._image.DecompressionBombError, self._image.DecompressionBombWarning):
            self.dropped["too_large"] += 1
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for damaged files, by format
            self.dropped["unreadable"] += 1
        return None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("images need Pillow, which is not installed: pip install 'edgeswarm[images]'") from None
    return Image
