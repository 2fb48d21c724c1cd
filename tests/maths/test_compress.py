"""Vectors in fewer bytes: what comes back, how far off it is, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths.compress import LARGEST, STEP, compress, restore
from edgeswarm.messages import SCALE_BLOCK, VECTOR_SCHEMES

RNG = np.random.default_rng(0)
VECTORS = {
    "normal": RNG.normal(size=1000).astype(np.float32),
    "zero": np.zeros(300, np.float32),
    "one": np.array([-0.3], np.float32),
    "odd": RNG.normal(size=SCALE_BLOCK + 1).astype(np.float32),
    "tiny": np.float32(1e-9) * RNG.normal(size=700).astype(np.float32),
    "huge": np.float32(1e30) * RNG.normal(size=700).astype(np.float32),
    "mixed": (10.0 ** RNG.uniform(-6, 4, 2000)).astype(np.float32),
}


@pytest.mark.parametrize("scheme", VECTOR_SCHEMES)
@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("stochastic", [False, True])
def test_what_comes_back_is_finite_and_of_the_same_length(scheme: str, name: str, stochastic: bool) -> None:
    vector = VECTORS[name]
    packed = compress(vector, scheme, 0.2, np.random.default_rng(1) if stochastic else None)
    back = restore(packed)
    assert back.dtype == np.float32 and back.shape == vector.shape and np.isfinite(back).all()
    assert packed.size == vector.size and packed.scheme == scheme


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("name", ["normal", "odd", "one", "mixed"])
@pytest.mark.parametrize("stochastic", [False, True])
def test_the_error_is_at_most_one_step_of_its_block(scheme: str, name: str, stochastic: bool) -> None:
    vector = VECTORS[name]
    back = restore(compress(vector, scheme, rng=np.random.default_rng(2) if stochastic else None))
    for begin in range(0, vector.size, SCALE_BLOCK):
        block, found = vector[begin : begin + SCALE_BLOCK], back[begin : begin + SCALE_BLOCK]
        step = float(np.abs(block).max()) / LARGEST[scheme] * 1.002 + 1e-7
        assert np.abs(block - found).max() <= (step if stochastic else step / 2 * 1.002)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_rounding_by_chance_is_right_on_average(scheme: str) -> None:
    vector = VECTORS["normal"]
    rng = np.random.default_rng(3)
    found = np.mean([restore(compress(vector, scheme, rng=rng)) for _ in range(400)], 0)
    step = np.abs(vector).max() / LARGEST[scheme]
    assert np.abs(found - vector).max() < 5 * step / 2 / np.sqrt(400)


def test_floats_are_as_good_as_their_type() -> None:
    vector = VECTORS["normal"]
    assert np.array_equal(restore(compress(vector, "float32")), vector)
    assert np.array_equal(restore(compress(vector, "float16")), vector.astype(np.float16).astype(np.float32))


def test_top_keeps_the_largest_and_drops_the_rest() -> None:
    vector = VECTORS["normal"]
    packed = compress(vector, "top", 0.1)
    back = restore(packed)
    kept = np.flatnonzero(back)
    assert packed.places.size == 100 and set(kept) <= set(packed.places.tolist())
    assert np.abs(vector[packed.places]).min() >= np.abs(np.delete(vector, packed.places)).max()
    assert np.linalg.norm(back - vector) < np.linalg.norm(vector)
    assert compress(vector, "top", 1e-9).places.size == 1, "one number at least"


@pytest.mark.parametrize(("scheme", "bytes_each"), [("float32", 4), ("float16", 2), ("int8", 1), ("int4", 0.5)])
def test_bytes(scheme: str, bytes_each: float) -> None:
    packed = compress(np.ones(10 * SCALE_BLOCK, np.float32), scheme)
    assert packed.codes.nbytes == bytes_each * 10 * SCALE_BLOCK
    assert packed.scale.nbytes == (20 if scheme.startswith("int") else 0)


def test_what_cannot_be_compressed_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        compress(np.array([1, np.nan], np.float32), "int8")
    with pytest.raises(ValueError, match="scheme is one of"):
        compress(np.ones(3, np.float32), "int2")
    with pytest.raises(ValueError, match="at least one number"):
        compress(np.zeros(0, np.float32), "float32")


def test_entropy_has_one_step_for_all() -> None:
    vector = VECTORS["normal"].copy()
    packed = compress(vector, "entropy")
    step = float(packed.scale[0])
    assert step == pytest.approx(STEP * np.sqrt(np.mean(vector**2)), rel=1e-3)
    assert np.abs(restore(packed) - vector).max() <= step / 2 * 1.001
    sparse = np.zeros(100_000, np.float32)
    sparse[7] = 1.0
    assert restore(compress(sparse, "entropy"))[7] == pytest.approx(1.0, rel=1e-3), "however few are large"


def test_differences_by_entropy_arrive_at_what_is_meant() -> None:
    """With the error left over for the next one, a receiver comes as near as one likes, outlier and all."""
    wanted = np.zeros(100_000, np.float32)
    wanted[:3] = 1.0, -0.5, 0.001
    seen = np.zeros_like(wanted)
    for _ in range(12):
        seen += restore(compress(wanted - seen, "entropy"))
    assert np.abs(wanted - seen).max() < 1e-5
