"""Images for the demo: MNIST, or the reader's own archive, cut into what a laboratory has and what devices see."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.names import did_you_mean
from edgeswarm.errors import DataError
from edgeswarm.messages import Array
from edgeswarm.sim.data import DataSet

LABORATORY = 500
"""Labelled images the encoder is trained on before the devices are switched on. No device ever sees one of them."""

FIELD = 2500
"""Images dealt out to the devices and the examination: enough to learn, few enough for two cores in half a minute."""

KEYS = (("x", "y"), ("x_train", "y_train"))
"""Names of the arrays of images and labels, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """x: (n, height, width, channels) float32, 0 to 1.  y: n class names."""

    name: str
    x: Array
    y: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.x.shape
        return height, width, channels


def mnist() -> Images:
    """70,000 handwritten digits, 28 x 28, grey: fetched once by scikit-learn and kept in its cache folder.

    Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits, 1998. Raises DataError: no scikit-learn,
    no network.
    """
    try:
        from sklearn.datasets import fetch_openml
    except ImportError:
        raise DataError(
            "MNIST is fetched with scikit-learn: pip install 'edgeswarm[demo]', or give --data FILE.npz with arrays "
            "x (images) and y (labels)"
        ) from None
    try:
        found = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except Exception as error:  # whatever a network, a proxy or a full disk can do
        raise DataError(
            f"MNIST could not be fetched ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__}); "
            "give --data FILE.npz with arrays x (images) and y (labels)"
        ) from None
    return Images("MNIST", _scaled(np.asarray(found.data).reshape(-1, 28, 28, 1)), tuple(map(str, found.target)))


def read_images(path: Path) -> Images:
    """Images and labels of a NumPy archive: x (n, height, width[, channels]), bytes or numbers from 0 to 1.

    The arrays are `x` and `y`, or `x_train` and `y_train`. Raises DataError, one line, naming file and array.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            x_key, y_key = next((keys for keys in KEYS if keys[0] in archive.files), KEYS[0])
            for key in (x_key, y_key):
                if key not in archive.files:
                    raise DataError(f"{path}: no array {key!r}{did_you_mean(key, archive.files)}")
            x, y = archive[x_key], archive[y_key]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a NumPy archive'}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a NumPy archive of plain numbers ({str(error)[:100]})") from None
    except MemoryError:
        raise DataError(f"{path}: too large for this machine's memory; give fewer images") from None
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or not len(x) or x.dtype.kind not in "fiub":
        raise DataError(f"{path}: array {x_key!r} is {x.dtype} {x.shape}; images are (n, height, width[, 1 or 3])")
    if y.shape != (len(x),):
        raise DataError(f"{path}: {len(x)} images in {x_key!r}, labels in {y_key!r} have shape {y.shape}")
    return Images(path.stem, _scaled(x), tuple(str(label) for label in y.tolist()))


def _scaled(x: NDArray[Any]) -> Array:
    """Bytes to 0..1, thinned first when there are far more than anybody will look at."""
    most = 20 * (LABORATORY + FIELD)
    if len(x) > most:  # evenly, so that a file sorted by class keeps all of them
        x = x[np.linspace(0, len(x) - 1, most).astype(int)]
    scaled: Array = x.astype(np.float32)
    if x.dtype.kind in "iu" or scaled.max(initial=0) > 1:
        scaled /= 255
    return scaled


def split(images: Images, seed: int) -> tuple[Images, DataSet]:
    """What the laboratory trains the encoder on (LABORATORY images), and what the field holds (at most FIELD).

    The field's rows are flattened row by row, (height, width, channels). Raises DataError when there are too few.
    """
    n = len(images.y)
    if n < 2 * LABORATORY:
        raise DataError(
            f"{images.name}: {n} images; the demo needs at least {2 * LABORATORY}, half of them for the encoder"
        )
    order = np.random.default_rng((seed, 1)).permutation(n)
    lab, field = order[:LABORATORY], order[LABORATORY : LABORATORY + FIELD]
    labels = np.array(images.y)
    height, width, channels = images.shape
    names = tuple(f"x{at}" for at in range(height * width * channels))
    kind = "grey" if channels == 1 else "colour"
    title = f"{images.name}, {height} x {width} {kind}"
    return (
        Images(images.name, images.x[lab], tuple(labels[lab].tolist())),
        DataSet(title, images.x[field].reshape(len(field), -1), tuple(labels[field].tolist()), names),
    )
