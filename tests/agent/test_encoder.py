"""From a source's rows to what is learnt from: order of colours, embeddings, and a schema that says which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.agent import encoder as encoding
from edgeswarm.agent.encoder import Encoder, Preparation, order_of
from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources import Schema, labelled_file, open_source
from edgeswarm.backends.base import Embed, Request
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ConfigError, DataError, ModelError
from edgeswarm.models.card import InputSpec
from edgeswarm.strategies.base import finish
from tests.tiny_model import tiny

COLOUR = tiny((3, 4, 4), embedding=5)


def image_schema(size: int = 4, mode: str = "rgb") -> Schema:
    channels = ("r", "g", "b") if mode == "rgb" else ("",)
    names = tuple(f"y{y}x{x}{c}" for y in range(size) for x in range(size) for c in channels)
    return Schema("t", names, f"image:{size}x{size}:{mode}:0-1")


def plain_schema(d: int, form: str = "") -> Schema:
    return Schema("t", tuple(f"x{at}" for at in range(d)), form=form)


def answered(model: Any) -> Any:
    backend = ReferenceBackend()
    backend.load(model)
    return backend.answer


def embeddings(schema: Schema, x: Any, normalise: bool = False) -> Any:
    preparation = Preparation(schema, Encoder(COLOUR.card, normalise), None)
    return finish(preparation.rows(np.asarray(x, np.float32)), answered(COLOUR))


def wanted(pictures: Any) -> Any:
    """Embeddings of pictures (n, height, width, 3), by hand."""
    d, e = 48, 5
    a = COLOUR.initial[: d * e].reshape(d, e)
    return np.tanh(np.asarray(pictures, np.float32).transpose(0, 3, 1, 2).reshape(-1, d) @ a)


def test_colours_are_brought_into_the_models_order() -> None:
    pictures = np.random.default_rng(0).random((70, 4, 4, 3)).astype(np.float32)
    rows = pictures.reshape(70, -1)
    assert np.allclose(embeddings(image_schema(), rows), wanted(pictures), atol=1e-6)
    assert np.allclose(embeddings(plain_schema(48), rows), wanted(pictures), atol=1e-6), "rows are read as images are"
    assert np.allclose(embeddings(plain_schema(48, "float32:4x4x3"), rows), wanted(pictures), atol=1e-6)
    first = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(70, -1)
    assert np.allclose(embeddings(plain_schema(48, "float32:3x4x4"), first), wanted(pictures), atol=1e-6)


def test_bytes_become_numbers_from_0_to_1() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3))
    got = embeddings(plain_schema(48, "uint8:4x4x3"), pictures.reshape(5, -1))
    assert np.allclose(got, wanted(pictures / 255), atol=1e-6)


def test_embeddings_have_length_1_when_asked() -> None:
    rows = np.random.default_rng(0).random((9, 48)).astype(np.float32)
    plain, scaled = embeddings(image_schema(), rows), embeddings(image_schema(), rows, True)
    assert scaled.dtype == np.float32 and np.allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)
    assert np.allclose(scaled, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    assert not embeddings(image_schema(), np.zeros((1, 48)), True).any(), "no direction, and no division by zero"
    assert embeddings(image_schema(), rows[:0]).shape == (0, 5)


def test_rows_go_to_the_backend_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = answered(COLOUR)

    def listening(request: Request) -> Any:
        assert isinstance(request, Embed)
        asked.append(len(request.x))
        return answer(request)

    rows = np.zeros((150, 48), np.float32)
    finish(Encoder(COLOUR.card).rows(rows), listening)
    assert asked == [64, 64, 22]
    asked.clear()
    monkeypatch.setattr(encoding, "MEMORY_BYTES", 10 * COLOUR.card.activation_bytes)
    finish(Encoder(COLOUR.card).rows(rows[:25]), listening)
    assert asked == [10, 10, 5], "an encoder with large intermediate values gets fewer"


def test_the_schema_tells_encoders_sources_and_scaling_apart() -> None:
    other = tiny((3, 4, 4), embedding=5, seed=1)
    raw = image_schema()
    schemas = [
        Encoder(COLOUR.card).schema(raw),
        Encoder(COLOUR.card, False).schema(raw),
        Encoder(other.card).schema(raw),
        Encoder(COLOUR.card).schema(replace(raw, task="u")),
        Encoder(COLOUR.card).schema(plain_schema(48)),
        Encoder(COLOUR.card).schema(plain_schema(48, "uint8:4x4x3")),
    ]
    assert len({schema.fingerprint for schema in schemas}) == len(schemas)
    assert schemas[0].features == ("e0", "e1", "e2", "e3", "e4")
    assert Encoder(COLOUR.card).schema(raw).fingerprint == schemas[0].fingerprint


def test_a_model_on_raw_images_has_them_in_its_order_and_says_so() -> None:
    preparation = Preparation(image_schema(2), None, tiny((3, 2, 2)).card)
    assert preparation.schema.features[:5] == ("y0x0r", "y0x1r", "y1x0r", "y1x1r", "y0x0g")
    assert preparation.schema.fingerprint != image_schema(2).fingerprint and not preparation.trivial
    row = np.arange(12, dtype=np.float32)[None]
    assert finish(preparation.rows(row), answered(COLOUR))[0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    grey = Preparation(image_schema(4, "grey"), None, tiny((1, 4, 4)).card)
    assert grey.trivial and grey.schema == image_schema(4, "grey")


def test_a_model_may_be_trained_on_embeddings() -> None:
    preparation = Preparation(image_schema(), Encoder(COLOUR.card), tiny((5,)).card)
    assert preparation.schema == Encoder(COLOUR.card).schema(image_schema())
    with pytest.raises(ConfigError, match=r"\[model\] tiny takes 6 numbers \(vector\), the samples have 5"):
        Preparation(image_schema(), Encoder(COLOUR.card), tiny((6,)).card)


@pytest.mark.parametrize(
    ("schema", "shape", "said"),
    [
        (image_schema(5), (3, 4, 4), "takes 3 x 4 x 4, the images are 3 x 5 x 5: set [source] image_size = 4"),
        (image_schema(4, "grey"), (3, 4, 4), 'are 1 x 4 x 4: set [source] image_size = 4 and image_mode = "rgb"'),
        (image_schema(4), (1, 4, 4), 'image_mode = "grey"'),
        (image_schema(4), (3, 4, 5), "use another model"),
        (plain_schema(47), (3, 4, 4), "takes 3 x 4 x 4 numbers (0 to 1), the samples have 47"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(schema: Schema, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        order_of(schema, InputSpec(shape, "image", "0 to 1"), "[encoder] x")
    assert str(caught.value).startswith("[encoder] x takes ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_in_a_row_is_fine_for_a_model_of_as_many_numbers() -> None:
    assert order_of(image_schema(), InputSpec((48,), "vector", ""), "x") is None


def test_an_embedding_too_wide_to_be_exchanged_is_refused() -> None:
    wide = replace(COLOUR.card, embedding=4097)
    with pytest.raises(ConfigError, match="gives 4097 numbers, nodes can exchange at most 4096"):
        Encoder(wide).schema(image_schema())


def test_a_source_may_be_as_wide_as_its_encoder_takes(tmp_path: Path) -> None:
    file = tmp_path / "wide.npz"
    np.savez(file, x=np.zeros((2, 50, 50, 3), np.uint8), y=np.zeros(2))
    settings = SourceConfig("npz", str(file))
    with pytest.raises(DataError, match="7500 features, nodes can exchange at most 4096"):
        open_source(settings, "t")
    schema = open_source(settings, "t", most=7500).schema()
    assert schema is not None and schema.form == "uint8:50x50x3" and len(schema.features) == 7500
    with pytest.raises(DataError, match="7500 features, the model takes 5000"):
        open_source(settings, "t", most=5000)
    assert labelled_file(settings, file, "", schema).x.shape == (2, 7500)


def test_a_file_to_score_against_must_be_stored_alike_where_that_matters(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4, 3), np.uint8), y=np.zeros(2))
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 48), np.float32), y=np.zeros(2))
    settings = SourceConfig("npz", str(tmp_path / "a.npz"))
    schema = open_source(settings, "t").schema()
    assert schema is not None
    assert labelled_file(settings, tmp_path / "b.npz", "", schema).x.shape == (2, 48)
    with pytest.raises(DataError, match=r"stored as plain rows, but this node's source stores them as uint8:4x4x3"):
        labelled_file(settings, tmp_path / "b.npz", "", schema, same_form=True)


def test_an_embedding_that_is_not_finite_is_an_error_and_never_a_sample() -> None:
    with pytest.raises(ModelError, match=r"\[encoder\] tiny: an embedding is not finite"):
        finish(Encoder(COLOUR.card).rows(np.zeros((2, 48), np.float32)), lambda request: np.full((2, 5), np.nan))
