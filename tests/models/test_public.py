"""Public sets as files: what was written is read, anything else is refused in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeswarm.errors import ModelError
from edgeswarm.models.public import PublicSet, read, spread, write

CLASSES = ("no", "yes")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 12)).astype(np.float32)


def made(x: np.ndarray, **more: str) -> PublicSet:
    return PublicSet(np.asarray(x, np.float32), CLASSES, **more)


@pytest.mark.parametrize(
    ("x", "bytes_each"),
    [
        pytest.param(IMAGES, 1, id="whole numbers"),
        pytest.param(IMAGES / np.float32(255), 1, id="parts of 255"),
        pytest.param(RNG.normal(size=(40, 12)), 4, id="any numbers"),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, x: np.ndarray, bytes_each: int) -> None:
    public = made(x, version="spring")
    write(public, tmp_path / "a.npz")
    again = read(tmp_path / "a.npz")
    assert np.array_equal(again.x, public.x)
    assert (again.hash, again.classes, again.version) == (public.hash, CLASSES, "spring")
    write(again, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["x"].nbytes == bytes_each * x.size
        assert sorted(archive.files) == ["classes", "hash", "units", "version", "x"]  # no labels


def test_another_version_or_order_of_classes_is_another_set() -> None:
    public = made(IMAGES)
    others = [made(IMAGES, version="2"), PublicSet(IMAGES, CLASSES[::-1]), made(IMAGES[::-1]), made(IMAGES[1:])]
    assert len({public.hash, *(other.hash for other in others)}) == 5
    assert public.prepared(IMAGES / 255).hash == public.hash
    with pytest.raises(ValueError, match="3 prepared rows are not the 40"):
        public.prepared(IMAGES[:3])


@pytest.mark.parametrize(
    ("x", "classes", "text"),
    [
        (np.zeros((0, 3)), CLASSES, "at least one row"),
        (np.full((2, 3), np.nan), CLASSES, "finite"),
        (np.zeros((2, 3)), ("one",), "2 to 256 different classes"),
        (np.zeros((2, 3)), ("a", "a"), "2 to 256 different classes"),
        (np.zeros((2, 3)), ("a", "b\nc"), "names of one line"),
        (np.zeros((65_537, 1)), CLASSES, "at most 65536 rows"),
    ],
)
def test_what_is_no_public_set(x: np.ndarray, classes: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PublicSet(x.astype(np.float32), classes)


def test_a_file_that_is_not_one_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"

    def refused(text: str, most_bytes: int = 1 << 20) -> None:
        with pytest.raises(ModelError, match=text) as caught:
            read(path, most_bytes)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    refused("no such file")
    path.write_bytes(b"PK no archive")
    refused("no public set, or damaged")
    np.savez(path, x=np.array([{"a": 1}], object))
    refused("no public set, or damaged")
    write(made(IMAGES), path)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refused("no public set, or damaged")
    path.write_bytes(good)
    refused("choose fewer rows", most_bytes=100)
    refused("the 400 this board takes", most_bytes=400)
    refused("unpacked, its rows take", most_bytes=4 * IMAGES.size - 1)
    assert read(path, 4 * IMAGES.size).hash == made(IMAGES).hash
    with np.load(path) as archive:
        parts = dict(archive)
    np.savez(path, **{**parts, "x": parts["x"] ^ 1})
    refused("its hash is")
    np.savez(path, **{**parts, "x": parts["x"].astype(np.float64)})
    refused("unknown kind")
    np.savez(path, **{**parts, "x": np.array([[{"a": 1}]], object)})
    refused("another kind")


def test_any_damage_is_one_model_error(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    write(made(IMAGES), path)
    good, rng = path.read_bytes(), np.random.default_rng(1)
    survived = 0
    for _ in range(300):
        spoilt = bytearray(good)
        for at in rng.integers(0, len(good), int(rng.integers(1, 4))):
            spoilt[at] = int(rng.integers(256))
        path.write_bytes(bytes(spoilt))
        try:
            survived += read(path).hash == made(IMAGES).hash  # a byte that nobody reads, such as a date
        except ModelError:
            continue
    assert survived < 150


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    write(made(IMAGES), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data + bytes(200 << 20) if name == "x.npy" else data)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelError, match="more than the"):
        read(path)


def test_a_spread_choice_covers_more_than_a_random_one() -> None:
    rng = np.random.default_rng(3)
    sizes = (2000, 60, 20, 5)
    x = np.concatenate([rng.normal(9 * at, 1, (size, 40)) for at, size in enumerate(sizes)]).astype(np.float32)
    cluster = np.repeat(np.arange(4), sizes)
    places = spread(x, 24, seed=0)
    assert len(places) == 24 == len(set(places.tolist()))
    assert (np.diff(places) > 0).all()

    def away(chosen: np.ndarray) -> float:
        return float(np.min([((x - x[at]) ** 2).sum(axis=1) for at in chosen], axis=0).mean())

    random = [away(rng.permutation(len(x))[:24]) for _ in range(10)]
    many = spread(x, 240, seed=0)
    assert set(cluster[many]) == {0, 1, 2, 3}
    assert away(places) < np.median(random)
    assert np.array_equal(spread(x, 24, seed=0), places)
    assert np.array_equal(spread(x[:10], 24, seed=0), np.arange(10))


def test_images_have_one_unit_and_tables_a_metric() -> None:
    assert made(IMAGES).metric is None
    assert made(IMAGES / 255).metric is None
    table = made(np.stack([1000 * np.arange(40.0), np.arange(40.0) / 1000, np.ones(40)], axis=1))
    metric = table.metric
    assert metric is not None
    assert np.allclose(table.scaled[:, :2].std(axis=0), 1)
    assert metric[2] == 0
