"""Samples for `edgeswarm model train` and `quantise`: whatever the file, rows in the model's shape and units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeswarm.cli.model.data import Rows, read, split
from edgeswarm.errors import DataError, OutOfMemory
from edgeswarm.models.card import InputSpec

GREY = InputSpec((1, 4, 4), "image", "0 to 1")
COLOUR = InputSpec((3, 4, 4), "image", "0 to 1")
VECTOR = InputSpec((3,), "vector", "")


def npz(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez(path, x=x, y=y)
    return path


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b,c,kind\n1,2,3,cat\n4,5,6,dog\n7,8,,dog\n")
    rows = read(file, VECTOR, ("dog", "cat"), "kind", 100, 0)
    assert rows.x.tolist() == [[1, 2, 3], [4, 5, 6]] and rows.x.dtype == np.float32
    assert rows.y.tolist() == [1, 0] and rows.y.dtype == np.int64


def test_npz_in_the_models_shape(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 4, 4), np.float32)
    rows = read(npz(tmp_path / "a.npz", x, np.array([0, 1, 2, 0, 1, 2])), GREY, ("0", "1", "2"), "", 100, 0)
    assert rows.x.shape == (6, 1, 4, 4) and not rows.from_bytes
    assert np.array_equal(rows.x[:, 0], x)


def test_bytes_of_images_become_0_to_1(tmp_path: Path) -> None:
    x = np.arange(32, dtype=np.uint8).reshape(2, 4, 4) * 8
    rows = read(npz(tmp_path / "a.npz", x, np.array([0, 1])), GREY, ("0", "1"), "", 100, 0)
    assert rows.from_bytes and np.allclose(rows.x[:, 0], x / 255)


def test_bytes_that_are_no_image_stay_numbers(tmp_path: Path) -> None:
    x = np.array([[1, 2, 30], [4, 5, 6]], np.uint8)
    rows = read(npz(tmp_path / "a.npz", x, np.array(["a", "b"])), VECTOR, ("a", "b"), "", 100, 0)
    assert not rows.from_bytes and rows.x.max() == 30


@pytest.mark.parametrize(("mode", "spec"), [("L", GREY), ("RGB", COLOUR)])
def test_a_folder_of_images_has_its_colours_apart(tmp_path: Path, mode: str, spec: InputSpec) -> None:
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    folder = tmp_path / "all" / "red"
    folder.mkdir(parents=True)
    image.new(mode, (4, 4), 255 if mode == "L" else (255, 0, 51)).save(folder / "a.png")
    rows = read(tmp_path / "all", spec, ("blue", "red"), "", 10, 0)
    assert rows.x.shape == (1, *spec.shape) and rows.y.tolist() == [1]
    assert np.allclose(rows.x[0].mean(axis=(1, 2)), [1.0] if mode == "L" else [1.0, 0.0, 0.2])


def test_classes_of_an_encoder_come_from_the_data(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", np.zeros((3, 3), np.float32), np.array(["b", "a", "b"]))
    rows = read(file, VECTOR, (), "", 10, 0)
    assert rows.labels == ("a", "b") and rows.y.tolist() == [1, 0, 1]


def test_fewer_rows_are_drawn_from_all(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", np.arange(3000.0).reshape(1000, 3), np.arange(1000) // 500)
    rows = read(file, VECTOR, ("0", "1"), "", 100, 7)
    assert len(rows.y) == 100 and 25 < rows.y.sum() < 75
    again = read(file, VECTOR, ("0", "1"), "", 100, 7)
    assert np.array_equal(rows.x, again.x)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((2, 5)), [0, 1], "5 numbers a sample, but the model takes 3 (3)"),
        (np.zeros((2, 3)), ["cat", "dig"], "the model knows no class 'dig'; did you mean 'dog'?"),
        (np.full((2, 3), np.nan), ["cat", "dog"], "holds no labelled sample"),
        (np.zeros((2, 3)), ["", ""], "holds no labelled sample"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, x: np.ndarray, y: list[object], said: str) -> None:
    labels = ("0", "1") if y[0] == 0 else ("cat", "dog")
    with pytest.raises(DataError) as error:
        read(npz(tmp_path / "a.npz", x, np.array(y)), VECTOR, labels, "", 100, 0)
    assert said in str(error.value) and "a.npz" in str(error.value) and "\n" not in str(error.value)


def test_other_files_and_folders_without_a_square(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples are a \.csv file, an \.npz file or a folder"):
        read(tmp_path / "a.parquet", VECTOR, (), "", 10, 0)
    with pytest.raises(DataError, match=r"the model takes 3; use \.npz"):
        read(tmp_path, VECTOR, (), "", 10, 0)


def test_out_of_memory_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edgeswarm.agent.sources.labelled_file", full)
    file = npz(tmp_path / "a.npz", np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(OutOfMemory, match="take fewer with --rows"):
        read(file, VECTOR, ("0", "1"), "", 10, 0)


def test_split_keeps_every_row_once_and_the_same_way() -> None:
    rows = Rows(np.arange(50, dtype=np.float32).reshape(50, 1), np.arange(50), tuple("ab"))
    train, held = split(rows, 0.2, 3)
    assert len(held.y) == 10
    assert sorted([*train.y.tolist(), *held.y.tolist()]) == list(range(50))
    assert np.array_equal(split(rows, 0.2, 3)[1].y, held.y) and not np.array_equal(split(rows, 0.2, 4)[1].y, held.y)
    with pytest.raises(DataError, match="too few"):
        split(Rows(rows.x[:1], rows.y[:1], rows.labels), 0.2, 0)
