"""Samples from files: what is streamed, what is dropped and counted, and what is refused with its place."""

from __future__ import annotations

import asyncio
import builtins
import json
import re
import zipfile
from hashlib import blake2b

import numpy as np
import pytest
from PIL import Image

from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources import (
    CsvSource,
    ImagesSource,
    NpzSource,
    Pace,
    Schema,
    labelled,
    labelled_file,
    open_source,
)
from edgeswarm.errors import DataError


def take(source, count=None):
    async def run():
        found = []
        async for sample in source.samples():
            found.append(sample)
            if len(found) == count:
                break
        return found

    return asyncio.run(run())


def failure(call, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return re.sub(r"\S*/(?=d\.)", "", text)


# ---- schema ----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_documented_hash():
    text = '[1,"occupancy",["a","b\\u00e4"],"image:2x2"]'
    assert json.loads(text) == [1, "occupancy", ["a", "bä"], "image:2x2"]
    expected = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    assert Schema("occupancy", ("a", "bä"), "image:2x2").fingerprint == expected


def test_anything_that_differs_changes_the_fingerprint():
    schemas = [
        ("t", ("a", "b"), ""),
        ("u", ("a", "b"), ""),
        ("t", ("b", "a"), ""),
        ("t", ("ab",), ""),
        ("t", ("a", "b"), "x"),
    ]
    assert len({Schema(*schema).fingerprint for schema in schemas}) == len(schemas)


# ---- csv -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8", **more):
        path = tmp_path / "d.csv"
        path.write_bytes(text.encode(encoding))
        return CsvSource(path, "t", **more)

    return write


def test_rows_become_samples_in_the_order_of_the_header(table):
    source = table("\ufeffa,label,b,id\n1,on,2.5,r1\n\n3,off,-4e1,r2\n5,,6,\n")
    assert source.schema() == Schema("t", ("a", "b"))
    samples = take(source)
    assert [sample.x.tolist() for sample in samples] == [[1, 2.5], [3, -40], [5, 6]]
    assert samples[0].x.dtype == np.float32
    assert [(sample.label, sample.id) for sample in samples] == [("on", "r1"), ("off", "r2"), (None, None)]
    assert not source.dropped


def test_columns_can_be_chosen_and_ordered(table):
    source = table("a;word;b;y\n1,5;x;2;0\n".replace("1,5", "1.5"), label="y", features=("b", "a"))
    assert take(source)[0].x.tolist() == [2, 1.5]
    assert take(table("a\tlabel\n1\tx\n"))[0].x.tolist() == [1]


def test_rows_that_cannot_be_used_are_counted(table):
    source = table(
        "a,b,label\nnan,1,x\n1,inf,x\n1,1e300,x\n,2,x\n1,2,z\n1,2," + "x" * 65 + "\n7,8,x\n", classes=("x", "x" * 65)
    )
    assert [sample.x.tolist() for sample in take(source)] == [[7, 8]]
    assert source.dropped == {"non_finite": 3, "missing_value": 1, "unknown_class": 1, "bad_label": 1}


@pytest.mark.parametrize(
    ("text", "more", "error"),
    [
        (
            "a,lable\n1,x\n",
            {},
            "d.csv:1: no column 'label' for the label; did you mean 'lable'? (`label` says which)",
        ),
        (
            "a,label\n1,x\n",
            {"features": ("b",)},
            "d.csv:1: no column 'b' for a feature; one of a, label (`features` says which",
        ),
        (
            "a,label\n1,x\n",
            {"features": ("label",)},
            "d.csv:1: column 'label' is the label and cannot be a feature too",
        ),
        ("label\nx\n", {}, "d.csv:1: no column is left for features"),
        ("1,2,3\n4,5,6\n", {}, "d.csv:1: a header with column names is needed, and line 1 holds only numbers"),
        ("", {}, "d.csv:1: the file is empty; a header"),
        ("a,a,label\n1,2,x\n", {}, "d.csv:1: two columns are called 'a'"),
        (
            "a,colour,size,label\n1,red,XL,x\n",
            {},
            "d.csv:2: column 'colour' holds text ('red') (and 1 more such columns)",
        ),
        (",".join(f"c{n}" for n in range(4097)) + ",label\n", {}, "4097 features, nodes can exchange at most 4096"),
    ],
)
def test_what_the_header_and_first_row_show_is_refused_at_once(table, text, more, error):
    assert error in failure(table, text, **more)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a,b,label\n1,2,x\n1,two,x\n", "d.csv:3: column 'b': 'two' is not a number"),
        ("a,b,label\n1,2,x\n1,2_0,x\n", "d.csv:3: column 'b': '2_0' is not a number"),
        ("a,b,label\n1,2,x\n1,2\n", "d.csv:3: 2 columns where the header has 3"),
        ("a,b,label\nnan,2,x\n,2,x\n", "d.csv: holds no usable sample (1 missing_value, 1 non_finite)"),
        ("a,label\n", "d.csv: holds no usable sample (it is empty)"),
        ("a,label\n1," + "x" * 200_000 + "\n", "d.csv: not CSV: field larger than field limit"),
    ],
)
def test_later_rows_are_refused_with_their_line(table, text, error):
    def run():
        take(table(text))

    assert error in failure(run)


def test_files_that_are_no_text_or_not_there(table, tmp_path):
    assert "not UTF-8 text" in failure(table, "a,label\n1,ä\n", encoding="latin-1")
    assert "no such file" in failure(CsvSource, tmp_path / "none.csv", "t")
    assert "this is a folder" in failure(CsvSource, tmp_path, "t")


def test_a_file_can_be_repeated_and_grow(table, tmp_path):
    source = table("a,label\n1,x\n2,x\n", repeat=True)
    assert [int(sample.x[0]) for sample in take(source, 5)] == [1, 2, 1, 2, 1]
    assert "no usable sample" in failure(lambda: take(table("a,label\nnan,x\n", repeat=True)))


def test_a_large_file_is_streamed_not_held(tmp_path):
    """Reading starts before the end of the file is fit to be read."""
    path = tmp_path / "d.csv"
    path.write_text("a,label\n" + "1,x\n" * 100_000 + "broken\n")
    assert len(take(CsvSource(path, "t"), 50_000)) == 50_000


# ---- pace ------------------------------------------------------------------------------------------------------------


class Time:
    """Time that passes only by sleeping, or by hand."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_samples_are_paced_without_bursts(table):
    clock = Time()
    source = table("a,label\n" + "1,x\n" * 5, pace=Pace(4.0, lambda: clock.now, clock.sleep))

    async def run():
        times = []
        async for _ in source.samples():
            times.append(clock.now - 100.0)
            if len(times) == 2:
                clock.now += 10.0  # the learner was slow
        return times

    assert asyncio.run(run()) == [0.25, 0.5, 10.5, 10.75, 11.0]


def test_full_speed_lets_others_have_a_turn(table):
    clock = Time()
    take(table("a,label\n" + "1,x\nnan,x\n" * 500, pace=Pace(0.0, lambda: clock.now, clock.sleep)))
    assert clock.slept == [0] * (1000 // 64)


# ---- npz -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    def write(compressed=False, more=None, **arrays):
        path = tmp_path / "d.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return NpzSource(path, "t", **(more or {}))

    return write


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float64", "float32", ">f4", "uint8", "bool"])
def test_arrays_are_streamed_whole(archive, compressed, order, dtype):
    x = np.asarray(np.arange(9_000 * 6).reshape(9_000, 2, 3) % 251, dtype, order=order)
    source = archive(compressed, x=x, y=np.arange(9_000) % 3)
    samples = take(source)
    assert source.schema() == Schema("t", ("x0", "x1", "x2", "x3", "x4", "x5"))
    assert np.array_equal(np.stack([sample.x for sample in samples]), x.reshape(9_000, 6).astype(np.float32))
    assert [sample.label for sample in samples[:4]] == ["0", "1", "2", "0"]


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array(["a", ""]), ["a", None]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array([1.0, np.nan]), ["1", None]),
        (np.array([0.5, 2.0]), ["0.5", "2"]),
        (np.array([True, False]), ["1", "0"]),
    ],
)
def test_labels_of_any_plain_type(archive, y, labels):
    source = archive(x=np.zeros((2, 1)), labels=y, more={"label": "labels", "features": ("only",)})
    assert [sample.label for sample in take(source)] == labels
    assert source.schema().features == ("only",)


def test_samples_that_cannot_be_used_are_counted_and_labels_stay_with_theirs(archive):
    source = archive(x=np.array([[np.nan], [np.inf], [1e300], [4.0]]), y=np.arange(4))
    assert [(sample.x.tolist(), sample.label) for sample in take(source)] == [([4.0], "3")]
    assert source.dropped == {"non_finite": 3}


@pytest.mark.parametrize(
    ("arrays", "more", "error"),
    [
        ({"X": np.zeros((1, 1)), "y": np.zeros(1)}, {}, "d.npz: no array 'x'; did you mean 'X'?"),
        (
            {"x": np.zeros((1, 1)), "labels": np.zeros(1)},
            {"label": "lables"},
            "no array 'lables'; did you mean 'labels'?",
        ),
        ({"x": np.zeros(3), "y": np.zeros(3)}, {}, "array 'x' has shape (3,); (samples, features) is needed"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, {}, "3 samples in 'x' but 2 labels in 'y'"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((3, 1))}, {}, "array 'y' has shape (3, 1); one label per sample"),
        ({"x": np.array([["a"]]), "y": np.zeros(1)}, {}, "array 'x' holds <U1, not numbers"),
        ({"x": np.zeros((1, 1)), "y": np.zeros(1, complex)}, {}, "array 'y' holds complex128; labels are"),
        ({"x": np.array([[None]]), "y": np.zeros(1)}, {}, "an array holds Python objects"),
        (
            {"x": np.zeros((1, 2)), "y": np.zeros(1)},
            {"features": ("a",)},
            "1 `features` are named, array 'x' has 2",
        ),
        ({"x": np.zeros((1, 4097)), "y": np.zeros(1)}, {}, "4097 features, nodes can exchange at most 4096"),
    ],
)
def test_archives_that_cannot_be_used(archive, arrays, more, error):
    assert error in failure(archive, more=more, **arrays)


def test_files_that_are_no_archives_or_damaged(archive, tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"PK but no")
    assert "not an npz file" in failure(NpzSource, path, "t")
    assert "no such file" in failure(NpzSource, tmp_path / "none.npz", "t")
    archive(x=np.arange(20_000.0).reshape(-1, 2), y=np.zeros(10_000))
    data = bytearray(path.read_bytes())
    data[80_000] ^= 1
    path.write_bytes(data)
    assert "Bad CRC-32" in failure(lambda: take(NpzSource(path, "t")))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9)}")
        file.writestr("y.npy", b"")
    assert "d.npz: damaged" in failure(NpzSource, path, "t")


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for label, shade in (("cat", 0), ("dog", 255)):
        (tmp_path / label).mkdir()
        for n in range(3):
            Image.new("RGB", (8, 6), (shade, shade, 51 * n)).save(tmp_path / label / f"{n}.{'png' if n else 'jpg'}")
    (tmp_path / "cat" / "note.txt").write_text("x")
    (tmp_path / "cat" / ".hidden.png").write_text("x")
    return tmp_path


def test_images_become_numbers_from_0_to_1(folder):
    source = ImagesSource(folder, "t", size=4, mode="rgb")
    samples = take(source)
    assert source.schema().features[:4] == ("y0x0r", "y0x0g", "y0x0b", "y0x1r")
    assert source.schema().encoder == "image:4x4:rgb:0-1"
    assert sorted(str(sample.label) for sample in samples) == ["cat"] * 3 + ["dog"] * 3
    for sample in samples:
        assert sample.x.shape == (48,) and sample.x.dtype == np.float32
        assert np.allclose(sample.x[0::3], 1.0 if sample.label == "dog" else 0.0, atol=0.02)
    assert {round(float(sample.x[2]), 1) for sample in samples} == {0.0, 0.2, 0.4}
    assert take(ImagesSource(folder, "t", size=2), 1)[0].x.shape == (4,)


def test_the_order_is_shuffled_by_the_seed_and_anew_at_each_turn(folder):
    def order(seed):
        samples = take(ImagesSource(folder, "t", size=1, mode="rgb", seed=seed, repeat=True), 18)
        return [sample.x.tobytes() for sample in samples]

    assert order(1) == order(1) != order(2)
    assert order(1)[:6] != order(1)[6:12] and sorted(order(1)[:6]) == sorted(order(1)[6:12])


def test_images_that_cannot_be_used_are_counted(folder, monkeypatch):
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    Image.new("L", (200, 200)).save(folder / "cat" / "large.png")
    whole = (folder / "dog" / "2.png").read_bytes()
    (folder / "dog" / "2.png").write_bytes(whole[:-30])
    monkeypatch.setattr("edgeswarm.agent.sources.images.MOST_PIXELS", 10_000)
    source = ImagesSource(folder, "t", size=2)
    assert len(take(source)) == 5
    assert source.dropped == {"unreadable": 2, "too_large": 1}


def test_folders_that_cannot_be_used(tmp_path, folder, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert "no images; they are looked for as <label>/" in failure(ImagesSource, tmp_path / "empty", "t")
    assert "no such file or folder" in failure(ImagesSource, tmp_path / "none", "t")
    assert "12288 features" in failure(ImagesSource, folder, "t", size=64, mode="rgb")

    real = builtins.__import__

    def without_pillow(name, *args):
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    assert failure(ImagesSource, folder, "t") == (
        "images need Pillow, which is not installed: pip install 'edgeswarm[images]'"
    )


# ---- any of them -----------------------------------------------------------------------------------------------------


def test_open_source_follows_the_settings(folder, tmp_path):
    (tmp_path / "d.csv").write_text("a,y,key\n1,x,k1\n2,z,k2\n")
    settings = SourceConfig("csv", str(tmp_path / "d.csv"), "y", id_key="key", classes=("x",))
    source = open_source(settings, "t")
    assert [(sample.label, sample.id) for sample in take(source)] == [("x", "k1")]
    source = open_source(SourceConfig("images", str(folder), image_size=3, image_mode="rgb"), "t")
    assert source.schema().features[-1] == "y2x2b"
    np.savez(tmp_path / "d.npz", x=np.zeros((1, 1)), y=np.zeros(1))
    assert open_source(SourceConfig("npz", str(tmp_path / "d.npz")), "t").schema() == Schema("t", ("x0",))
    assert open_source(SourceConfig("mqtt", topic="a"), "t").schema() is None
    assert "is not a file" in failure(open_source, SourceConfig("tape"), "t")


def test_a_labelled_file_is_read_for_scoring(folder, tmp_path):
    settings = SourceConfig("mqtt", topic="a", image_size=2)
    path = tmp_path / "d.csv"
    path.write_text("other,b,a,state\n" + "".join(f"w,{n},1,{'late' if n > 900 else 'early'}\n" for n in range(1000)))
    found = labelled_file(settings, path, "state", Schema("t", ("a", "b")), limit_rows=100, seed=3)
    x, y = found.x, found.y
    assert found.of == 1000 and not found.dropped
    assert x.shape == (100, 2) and x.dtype == np.float32 and len(y) == 100
    assert (x[:, 0] == 1).all() and (np.diff(x[:, 1]) > 0).all()
    assert 300 < x[:, 1].mean() < 700  # spread over the file, not its beginning
    assert y[0] == "early"
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2)), y=np.array([1, 2, 3]))
    found = labelled_file(settings, tmp_path / "d.npz", "", Schema("t", ("a", "b")))
    assert found.x.tolist() == [[1, 1]] * 3 and found.y == ("1", "2", "3")
    schema = ImagesSource(folder, "t", size=2).schema()
    assert labelled_file(settings, folder, "", schema).x.shape == (6, 4)


def test_samples_that_are_not_used_are_counted_by_reason(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,label\n1,x\n,x\nnan,x\n2,\n3,\n4,y\n")
    found = labelled(CsvSource(path, "t"), 10, 0)
    assert found.y == ("x", "y") and found.of == 2
    assert found.dropped == {"missing_value": 1, "non_finite": 1, "no_label": 2}


def test_a_labelled_file_must_fit(folder, tmp_path):
    settings = SourceConfig("mqtt", topic="a", image_size=2)
    path = tmp_path / "d.csv"
    path.write_text("a,label\n1,\n")
    assert "no labelled sample" in failure(labelled_file, settings, path, "", Schema("t", ("a",)))
    assert "no column 'b'" in failure(labelled_file, settings, path, "", Schema("t", ("b",)))
    assert "is .csv, .npz, or a folder" in failure(labelled_file, settings, tmp_path / "d.txt", "", Schema("t", ("b",)))
    text = failure(labelled_file, settings, folder, "", Schema("t", ("b",)))
    assert "4 features (image:2x2:grey:0-1), but this node learns from 1 features (plain numbers)" in text
