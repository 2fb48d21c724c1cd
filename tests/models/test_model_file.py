"""Model files, folder and archive: what was written is read; every kind of damage is one line."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ModelError
from edgeswarm.models import file as file_module
from edgeswarm.models.content import pack
from edgeswarm.models.file import read, seal, write
from edgeswarm.models.limits import Limits
from tests.models.file_world import archive_of, encoder, folder_of, resealed, same, with_reference
from tests.tiny_model import FLOAT32, node, onnx, tiny

Maker = Callable[[dict[str, bytes], Path], Path]
BOTH = pytest.mark.parametrize("make", [folder_of, archive_of], ids=["folder", "archive"])


def line_of(path: Path, **options: Any) -> str:
    """The one line that reading gives."""
    with pytest.raises(ModelError) as caught:
        read(path, **options)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < len(str(path)) + 450
    return line


@pytest.mark.parametrize("name", ["model", "model.esm", "deeper/down/model.esm", "deeper/model"])
def test_written_and_read(tmp_path: Path, name: str) -> None:
    model = with_reference()
    write(model, tmp_path / name)
    assert (tmp_path / name).is_dir() == (not name.endswith(".esm"))
    assert same(read(tmp_path / name), model)
    assert not list(tmp_path.rglob(".*"))


@BOTH
def test_a_model_without_parameters(tmp_path: Path, make: Maker) -> None:
    model = encoder()
    found = read(make(pack(model), tmp_path / "m"))
    assert same(found, model)
    assert found.initial.shape == (0,)


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(with_reference(), tmp_path / f"{name}.esm")
        write(with_reference(), tmp_path / name)
    assert (tmp_path / "a.esm").read_bytes() == (tmp_path / "b.esm").read_bytes()
    write(read(tmp_path / "a"), tmp_path / "c.esm")
    assert (tmp_path / "a.esm").read_bytes() == (tmp_path / "c.esm").read_bytes()
    other = tiny(seed=1)
    assert other.card.hash != tiny(seed=0).card.hash


def test_a_repacked_archive_is_read(tmp_path: Path) -> None:
    model = with_reference()
    assert same(read(archive_of(pack(model), tmp_path / "m.esm", zipfile.ZIP_DEFLATED)), model)


def test_a_model_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("m", "m.esm"):
        write(with_reference(), tmp_path / name)
        write(encoder(), tmp_path / name)
        assert same(read(tmp_path / name), encoder())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m.esm"]


@pytest.mark.parametrize("name", ["m", "m.esm"])
def test_a_failed_write_leaves_the_old_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(with_reference(), tmp_path / name)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(file_module, "_write_file", full)
    with pytest.raises(ModelError, match=r"cannot be written \(No space left"):
        write(encoder(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert same(read(tmp_path / name), with_reference())


def test_what_is_no_model_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("you")
    (tmp_path / "note").write_text("mine")
    (tmp_path / "is.esm").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "letters")
    for name in ("letters", "note", "link"):
        with pytest.raises(ModelError, match="is in the way"):
            write(encoder(), tmp_path / name)
    with pytest.raises(ModelError, match="is a folder"):
        write(encoder(), tmp_path / "is.esm")
    with pytest.raises(ModelError, match="cannot be written"):
        write(encoder(), tmp_path / "note" / "below.esm")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "you"
    (tmp_path / "empty").mkdir()
    write(encoder(), tmp_path / "empty")


def test_an_unsealed_model_is_not_written(tmp_path: Path) -> None:
    model = tiny()
    for wrong in (
        replace(model, initial=model.initial + 1),
        replace(model, card=replace(model.card, flops=1)),
        replace(model, licence_text="mine"),
    ):
        with pytest.raises(ModelError, match="not sealed"):
            write(wrong, tmp_path / "m")
    assert not list(tmp_path.iterdir())


# ---- damage ---------------------------------------------------------------------------------------------------------

MEMBERS = pack(with_reference())


@BOTH
@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_an_absent_member(tmp_path: Path, make: Maker, name: str) -> None:
    line = line_of(make({key: data for key, data in MEMBERS.items() if key != name}, tmp_path / "m"))
    assert name in line
    assert "absent" in line
    assert "copy the model file again" in line


@BOTH
@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_a_member_cut_short_or_changed(tmp_path: Path, make: Maker, name: str) -> None:
    data = MEMBERS[name]
    damage = {"cut": data[:-3], "longer": data + b"x", "flipped": data[:5] + bytes([data[5] ^ 1]) + data[6:], "": b""}
    for word, wrong in damage.items():
        line = line_of(make({**MEMBERS, name: wrong}, tmp_path / f"m{word}"))
        assert name in line
        assert "again" in line


@BOTH
def test_a_member_of_no_known_name(tmp_path: Path, make: Maker) -> None:
    assert "'run.sh' does not belong" in line_of(make({**MEMBERS, "run.sh": b""}, tmp_path / "a"))
    assert "other.onnx: the card does not list it" in line_of(make({**MEMBERS, "other.onnx": b""}, tmp_path / "b"))
    listed = resealed({**MEMBERS, "other.onnx": b""})
    assert "'other.onnx', which does not belong" in line_of(make(listed, tmp_path / "c"))


@BOTH
def test_hashes(tmp_path: Path, make: Maker) -> None:
    card = MEMBERS["model.json"].replace(b'"tiny"', b'"tidy"')
    assert "model.json: its hash is" in line_of(make({**MEMBERS, "model.json": card}, tmp_path / "a"))


@BOTH
def test_another_format(tmp_path: Path, make: Maker) -> None:
    members = resealed(MEMBERS, lambda card: card.update(format=2, tree="yes"))
    line = line_of(make(members, tmp_path / "m"))
    assert line.endswith(
        "model.json: model file of format 2; this edgeswarm reads 1: update edgeswarm or build the model again"
    )


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_no_numbers(tmp_path: Path, make: Maker, value: float) -> None:
    initial = tiny().initial.copy()
    initial[3] = value
    line = line_of(make(resealed({**MEMBERS, "initial.f32": initial.tobytes()}), tmp_path / "m"))
    assert f"initial.f32: parameter 3 of {initial.size} is {value}" in line


def test_parameters_of_another_count(tmp_path: Path) -> None:
    line = line_of(folder_of(resealed({**MEMBERS, "initial.f32": b"\0" * 8}), tmp_path / "m"))
    assert "its shapes make 22 parameters, initial.f32 has 8 bytes" in line


@BOTH
def test_larger_than_the_profile_allows(tmp_path: Path, make: Maker) -> None:
    path = make(MEMBERS, tmp_path / "m")
    assert "the profile allows 2000 (max_model_bytes)" in line_of(path, limits=Limits(file_bytes=2000))
    assert "has 22 parameters; the profile allows 21" in line_of(path, limits=Limits(parameters=21))
    assert "more than 5" in line_of(path, limits=Limits(members=5)) or "at most 5" in line_of(
        path, limits=Limits(members=5)
    )


@BOTH
def test_operators_that_are_not_allowed(tmp_path: Path, make: Maker) -> None:
    path = make(MEMBERS, tmp_path / "m")
    line = line_of(path, allowed={"Split", "Reshape"})
    assert "forward.onnx" in line or "ce.gradient.onnx" in line
    assert "is an operator that is not run here; use only Reshape, Split" in line


def forward(inputs: Any, outputs: Any) -> bytes:
    nodes = [node("Tanh", ["x"], [outputs[0][0]]), *(node("Tanh", ["x"], [value[0]]) for value in outputs[1:])]
    return onnx(nodes, inputs, outputs, {})


P, X = ("params", FLOAT32, (22,)), ("x", FLOAT32, ("n", 3))
LOGITS, EMBEDDING = ("logits", FLOAT32, ("n", 2)), ("embedding", FLOAT32, ("n", 4))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (forward([X], [LOGITS, EMBEDDING]), "inputs are 'x'; the card wants params, x"),
        (forward([X, P], [LOGITS, EMBEDDING]), "inputs are"),
        (forward([P, X, ("z", FLOAT32, ("n",))], [LOGITS, EMBEDDING]), "inputs are"),
        (forward([P, X], [LOGITS]), "outputs are"),
        (forward([P, X], [LOGITS, EMBEDDING, ("aux", FLOAT32, ("n", 1, 2))]), "outputs are"),
        (forward([("params", FLOAT32, (21,)), X], [LOGITS, EMBEDDING]), r"params is float32 of shape \[21\]"),
        (forward([("params", FLOAT32, ("p",)), X], [LOGITS, EMBEDDING]), r"params is float32 of shape \['p'\]"),
        (forward([P, ("x", FLOAT32, (1, 3))], [LOGITS, EMBEDDING]), r"x is float32 of shape \[1, 3\]"),
        (forward([P, ("x", FLOAT32, ("n", 4))], [LOGITS, EMBEDDING]), r"shape \['rows', 3\]"),
        (forward([P, ("x", 7, ("n", 3))], [LOGITS, EMBEDDING]), "x is int64"),
        (forward([P, X], [LOGITS, ("embedding", FLOAT32, ("n", 5))]), "embedding is float32"),
        (forward([P, X], [LOGITS, ("embedding", FLOAT32, (4,))]), "embedding is float32"),
    ],
)
def test_a_graph_that_does_not_fit_the_card(tmp_path: Path, data: bytes, text: str) -> None:
    path = folder_of(resealed({**MEMBERS, "forward.onnx": data}), tmp_path / "m")
    with pytest.raises(ModelError, match=rf"m: forward.onnx: .*{text}.*build the model again"):
        read(path)


@pytest.mark.parametrize("name", ["forward.onnx", "ce.loss.onnx", "ce.gradient.onnx"])
def test_a_broken_graph_under_right_hashes(tmp_path: Path, name: str) -> None:
    line = line_of(folder_of(resealed({**MEMBERS, name: MEMBERS[name][:-40]}), tmp_path / "m"))
    assert f"{name}: the graph cannot be used: cut short" in line


# ---- folder ---------------------------------------------------------------------------------------------------------


def test_links_pipes_and_folders_are_no_members(tmp_path: Path) -> None:
    for at, place in enumerate((Path.symlink_to, None, os.mkfifo)):
        path = folder_of(MEMBERS, tmp_path / f"m{at}")
        (path / "initial.f32").rename(tmp_path / f"outside{at}")
        if place is Path.symlink_to:
            (path / "initial.f32").symlink_to(tmp_path / f"outside{at}")
        elif place is None:
            (path / "initial.f32").mkdir()
        else:
            os.mkfifo(path / "initial.f32")
        assert "initial.f32: it" in line_of(path)


def test_a_folder_of_many_files(tmp_path: Path) -> None:
    for number in range(70):
        (tmp_path / f"{number}").touch()
    assert "more than 64 files" in line_of(tmp_path)


def test_nothing_there_and_something_else_there(tmp_path: Path) -> None:
    assert "No such file" in line_of(tmp_path / "absent.esm")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in line_of(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    assert "no model archive" in line_of(tmp_path / "empty")
    (tmp_path / "folder").mkdir()
    assert "model.json: it is absent" in line_of(tmp_path / "folder")


# ---- archive --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../model.json", "/etc/passwd", "a/model.json", "C:\\x", "initial.f32/", "..", "x\0.onnx"]
)
def test_paths_in_an_archive(tmp_path: Path, name: str) -> None:
    path = archive_of({**MEMBERS, name: b"x"}, tmp_path / "m.esm")
    assert "does not belong in a model file" in line_of(path) or "twice" in line_of(path) or "list" in line_of(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.esm"]


def test_a_member_twice(tmp_path: Path) -> None:
    path = archive_of(MEMBERS, tmp_path / "m.esm")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("initial.f32", b"other")
    assert "one member twice" in line_of(path)


@pytest.mark.parametrize("name", ["initial.f32", "model.json"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    """64 MB of zeros in 64 kB: refused by its declared size, and where that lies, by the bytes it may give."""
    bomb = archive_of({**MEMBERS, name: bytes(64_000_000)}, tmp_path / "m.esm", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    assert f"{name}: it has 64000000 bytes where at most" in line_of(bomb)
    data = bomb.read_bytes()
    true, lie = struct.pack("<L", 64_000_000), struct.pack("<L", len(MEMBERS[name]))
    assert data.count(true) == 2
    bomb.write_bytes(data.replace(true, lie))
    assert "damaged" in line_of(bomb)


def test_every_cut_of_an_archive(tmp_path: Path) -> None:
    data = archive_of(MEMBERS, tmp_path / "whole.esm").read_bytes()
    path = tmp_path / "m.esm"
    for length in [*range(0, len(data), 97), *range(len(data) - 60, len(data))]:
        path.write_bytes(data[:length])
        assert "cut short" in line_of(path)


def test_what_a_model_archive_never_has(tmp_path: Path) -> None:
    path = tmp_path / "m.esm"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"hello"
        archive.writestr("model.json", MEMBERS["model.json"])
    assert "something after its end" in line_of(path)
    archive_of(MEMBERS, path, zipfile.ZIP_BZIP2)
    assert "model.json: it is encrypted or compressed in a way" in line_of(path)
    archive_of(dict.fromkeys((f"a{number}.onnx" for number in range(65)), b""), path)
    assert "65 members; at most 64" in line_of(path)
    plain = archive_of(MEMBERS, path).read_bytes()
    path.write_bytes(plain[:-22] + b"PK\x06\x07" + bytes(16) + plain[-22:])
    assert "64-bit sizes" in line_of(path)
    store = io.BytesIO()
    with zipfile.ZipFile(store, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    encrypted = bytearray(store.getvalue())
    at = encrypted.find(b"PK\x01\x02")
    encrypted[at + 8] |= 1
    path.write_bytes(bytes(encrypted))
    assert "encrypted" in line_of(path)


# ---- seal -----------------------------------------------------------------------------------------------------------


def test_seal_checks_what_read_checks() -> None:
    model = tiny()
    for wrong, text in (
        ({"initial": model.initial[:-1]}, "22 parameters"),
        ({"initial": model.initial * np.nan}, "only finite"),
        ({"graphs": {"forward": model.graphs["forward"]}}, "does not list ce.gradient.onnx"),
        ({"graphs": {**model.graphs, "more": b""}}, "more.onnx"),
        ({"graphs": {**model.graphs, "forward": b"what"}}, "forward.onnx: the graph cannot be used"),
        ({"card": replace(model.card, labels=("a", "b", "c"))}, "logits is float32"),
        ({"card": replace(model.card, name="no name")}, "the name 'no name'"),
    ):
        parts = {"card": model.card, "graphs": model.graphs, "initial": model.initial, **wrong}
        with pytest.raises(ModelError, match=text):
            seal(**parts)
