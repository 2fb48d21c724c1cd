"""Data sets that lie beside the repository, in `shared/data` (see the README there); without them tests skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> dict[str, np.ndarray]:
    """Arrays of the data set `name` ("electricity", "phishing", "mnist"). Skips the calling test without the file."""
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"needs {name}.npz in the folder shared/data beside the repository")
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def dealt(data: dict[str, np.ndarray], rows: int, agents: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first `rows` samples dealt in turn to `agents`, as the paper's experiments do: (x float64, y int) of each."""
    x, y = data["x"][:rows].astype(np.float64), data["y"][:rows].astype(int)
    return [(x[agent::agents], y[agent::agents]) for agent in range(agents)]


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    """F1 of class 1. An answer of "none", -1, is scored as a false negative whatever the truth, as the authors do."""
    hits = np.count_nonzero((truth == 1) & (said == 1))
    missed = np.count_nonzero((truth == 1) & (said != 1)) + np.count_nonzero((truth != 1) & (said == -1))
    false_alarms = np.count_nonzero((truth != 1) & (said == 1))
    return 2 * hits / max(1, 2 * hits + missed + false_alarms)
