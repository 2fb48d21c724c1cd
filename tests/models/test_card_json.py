"""A card as JSON: one text for one card, and nothing unknown or out of range gets in."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.models.card import PUBLIC, InputSpec, LossSpec, ModelCard, Parameter, TensorSpec
from edgeswarm.models.card_json import hash_of, read_card, write_card
from edgeswarm.models.json_text import Bad
from edgeswarm.models.limits import Limits
from tests.models.file_world import with_reference

CARD = with_reference().card
PLAIN = json.loads(write_card(CARD))


def test_a_card_survives() -> None:
    assert read_card(write_card(CARD)) == CARD


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=30)
SHAPES = st.lists(st.integers(1, 20), max_size=3).map(tuple)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    parts = sorted(draw(st.lists(st.sampled_from(["body", "head"]), min_size=1, max_size=5)))
    names = draw(st.lists(WORDS, min_size=len(parts), max_size=len(parts), unique=True))
    labels = tuple(draw(st.lists(WORDS, min_size=1, max_size=5, unique=True)))
    inputs = draw(st.lists(WORDS.filter(lambda word: word != "params"), min_size=1, max_size=4, unique=True))
    specs = tuple(TensorSpec(name, draw(SHAPES), "float32", PUBLIC, draw(st.booleans())) for name in inputs)
    card = ModelCard(
        name=draw(NAMES),
        architecture=draw(WORDS),
        parameters=tuple(Parameter(n, draw(SHAPES), part) for n, part in zip(names, parts, strict=True)),
        input=InputSpec(draw(SHAPES), "vector", draw(WORDS)),
        labels=labels,
        embedding=draw(st.integers(1, 100)),
        heads=draw(st.integers(0, 4)),
        losses={"ce": LossSpec(specs, ("logits",))},
        flops=draw(st.integers(0, 2**53)),
        activation_bytes=0,
        licence=draw(WORDS),
        producer={draw(WORDS): draw(WORDS)},
        normalised=draw(st.booleans()),
    )
    return replace(card, hash=hash_of(card))


@given(cards())
def test_any_card_survives(card: ModelCard) -> None:
    text = write_card(card)
    assert read_card(text) == card
    assert write_card(read_card(text)) == text


def test_order_of_tables_and_spaces_do_not_matter() -> None:
    other = replace(CARD, files=dict(reversed(list(CARD.files.items()))))
    assert write_card(other) == write_card(CARD)
    assert read_card(json.dumps(PLAIN).encode()).hash == CARD.hash


def test_every_value_is_part_of_the_hash() -> None:
    for change in ({"name": "other"}, {"flops": 1}, {"labels": ("a", "b")}, {"files": {}}, {"normalised": True}):
        assert hash_of(replace(CARD, **change)) != CARD.hash
    with pytest.raises(Bad, match="its hash is"):
        read_card(write_card(replace(CARD, flops=CARD.flops + 1)))


def changed(path: str, value: Any) -> bytes:
    """The card with one value changed and its hash right again where that is possible."""
    plain: Any = copy.deepcopy(PLAIN)
    at: Any = plain
    *way, last = path.split("/")
    for key in way:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is ...:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(plain).encode()


@pytest.mark.parametrize("form", [2, 0, 10**6])
def test_another_format_is_named_first(form: int) -> None:
    with pytest.raises(Bad) as caught:
        read_card(json.dumps({"format": form, "something": "else"}).encode())
    assert caught.value.line() == (
        f"model file of format {form}; this edgeswarm reads 1: update edgeswarm or build the model again"
    )


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("format", "1", "no format number"),
        ("format", True, "no format number"),
        ("format", ..., "no format number"),
        ("name", ..., "name is missing"),
        ("more", 1, "the key 'more' is unknown"),
        ("name", 5, "name must be a text"),
        ("name", "", "name must be a text of 1 to 64"),
        ("name", "../up", "letters, digits"),
        ("name", "a\nb", "printable"),
        ("architecture", "\ud800", "printable"),
        ("parameters", {}, "parameters must be a list"),
        ("parameters/0", 7, r"parameters\[0\] must be a JSON object"),
        ("parameters/0/shape", 3, r"parameters\[0\].shape must be a list"),
        ("parameters/0/shape/0", -1, r"parameters\[0\].shape\[0\] must be a whole number from 1"),
        ("parameters/0/shape/0", 3.0, "must be a whole number"),
        ("parameters/0/shape/0", True, "must be a whole number"),
        ("parameters/0/shape/0", 2**40, "must be a whole number from 1"),
        ("parameters/0/shape/0", 2**30, "the profile allows 10000000"),
        ("parameters/0/part", "tail", "one of body, head"),
        ("parameters/0/part", ["body"], "one of body, head"),
        ("parameters/0/part", "head", "has|hash"),
        ("parameters/2/part", "body", "a parameter of the body comes after"),
        ("parameters/1/name", "A", "two parameters have one name"),
        ("input/kind", "sound", "one of image, vector"),
        ("input/kind", "image", "an image has the shape"),
        ("input/extra", 1, "unknown"),
        ("labels", ["a", "a"], "one entry twice"),
        ("labels", ["a", 1], r"labels\[1\] must be a text"),
        ("labels", ["a"] * 10_001, "at most 10000"),
        ("embedding", 0, "from 1"),
        ("heads", -1, "from 0"),
        ("losses", [], "losses must be a JSON object"),
        ("losses/Up", {}, "the loss 'Up' must be named"),
        ("losses/..", {}, "must be named"),
        ("losses/forward", {}, "must be named"),
        ("losses/ce/inputs/0/name", "params", "none the name params"),
        ("losses/ce/inputs/0/name", "y", "different names"),
        ("losses/ce/inputs/0/dtype", "float64", "one of float32, int64"),
        ("losses/ce/inputs/0/group", "mine", "one of private, public"),
        ("losses/ce/inputs/0/weight", 1, "true or false"),
        ("losses/ce/inputs/1/weight", True, "a weight is float32"),
        ("losses/ce/outputs", ["loss"], "not listed"),
        ("flops", -1, "from 0"),
        ("flops", 1.5, "whole number"),
        ("producer", {"a": 1}, "producer.a must be a text"),
        ("producer", {"": "a"}, "producer"),
        ("files/initial.f32/sha256", "AB" * 32, "64 hexadecimal"),
        ("files/initial.f32/size_bytes", -4, "from 0"),
        ("normalised", None, "true or false"),
        ("hash", "0" * 64, "its hash is 000000000000"),
        ("hash", 0, "hash must be a text"),
    ],
)
def test_refused(path: str, value: Any, text: str) -> None:
    with pytest.raises(Bad, match=text) as caught:
        read_card(changed(path, value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not JSON"),
        (b"[]", "no model card"),
        (b'{"format": 1', "not JSON"),
        (b'{"format": 1, "format": 1}', "a key twice"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": 1e999}', "too large"),
        (b'{"format": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"format": ' + b"[" * 100_000, "nested too deeply|not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b" " * 2_000_000, "at most 1048576"),
    ],
)
def test_no_json(data: bytes, text: str) -> None:
    with pytest.raises(Bad, match=text):
        read_card(data)


def test_the_profile_limits_parameters() -> None:
    read_card(write_card(CARD), Limits(parameters=CARD.size))
    with pytest.raises(Bad, match=f"has {CARD.size} parameters; the profile allows {CARD.size - 1}"):
        read_card(write_card(CARD), Limits(parameters=CARD.size - 1))
