"""Samples from a sensor topic: labels now, labels later, and everything a sensor can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources import MqttSource
from edgeswarm.agent.sources.payloads import Refused, parse

SETTINGS = SourceConfig(kind="mqtt", topic="s/+/data", label_topic="s/labels", predictions_topic="s/out")


class Bench:
    """A source with time in hand, and what it hands on."""

    def __init__(self, features=(), queue_limit=1000, **settings):
        self.now = 0.0
        self.settings = dataclasses.replace(SETTINGS, **settings)
        self.source = MqttSource(self.settings, "t", features, lambda: self.now, queue_limit)

    def push(self, value, topic="s/1/data"):
        pack = json.dumps if self.settings.format == "json" else msgpack.packb
        data = value if isinstance(value, bytes) else pack(value)
        self.source.push(data.encode() if isinstance(data, str) else data, topic)

    def label(self, id, label):
        self.push({"id": id, "label": label}, "s/labels")

    def taken(self):
        self.source.close()

        async def run():
            return [(sample.x.tolist(), sample.label, sample.id) async for sample in self.source.samples()]

        return asyncio.run(run())


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_every_form_of_a_reading(form):
    bench = Bench(format=form)
    bench.push([1, 2.5])
    bench.push({"features": [3, True], "label": "on"})
    bench.push({"features": [5, 6], "label": 7, "id": 8})
    bench.push({"features": [7, 8], "label": None, "id": None, "unit": "C"})
    assert bench.source.schema().features == ("x0", "x1")
    assert bench.taken() == [([1, 2.5], None, None), ([3, 1], "on", None), ([5, 6], "7", 8), ([7, 8], None, None)]
    assert not bench.source.dropped


def test_named_features_are_ordered_by_name():
    bench = Bench()
    assert bench.source.schema() is None
    bench.push({"features": {"b": 2, "a": 1}})
    bench.push({"features": {"a": 3, "b": 4}})
    bench.push([5, 6])  # nobody has said in which order
    bench.push({"features": {"a": 1}})
    bench.push({"features": {"a": 1, "c": 2}})
    bench.push({"features": {"a": 1, "b": 2, "c": 3}})
    assert [x for x, _, _ in bench.taken()] == [[1, 2], [3, 4]]
    assert bench.source.schema().features == ("a", "b")
    assert bench.source.dropped == {"wrong_shape": 1, "wrong_dimension": 3}


def test_configured_and_remembered_features_go_before_what_arrives():
    bench = Bench(features=("ignored",))
    assert bench.source.schema().features == ("ignored",)
    source = MqttSource(dataclasses.replace(SETTINGS, features=("b", "a")), "t", ("old",))
    source.push(b"[1, 2, 3]", "s/1/data")
    source.push(b"[1, 2]", "s/1/data")
    source.push(b'{"features": {"a": 1, "b": 2}}', "s/1/data")
    assert source.schema().features == ("b", "a") and source.dropped == {"wrong_dimension": 1}
    source.close()

    async def run():
        return [sample.x.tolist() async for sample in source.samples()]

    assert asyncio.run(run()) == [[1, 2], [2, 1]]


def test_a_label_that_comes_later_makes_a_lesson_of_the_reading():
    bench = Bench()
    bench.push({"features": [1], "id": "a"})
    bench.push({"features": [2], "id": "b"})
    assert bench.source.pending == 2
    bench.label("a", "on")
    bench.label("a", "on")
    bench.label("zzz", "on")
    bench.push({"label": "on"}, "s/labels")
    assert bench.source.pending == 1
    assert bench.taken() == [([1], None, "a"), ([2], None, "b"), ([1], "on", "a")]
    assert bench.source.dropped == {"repeated_label": 1, "unknown_id": 1, "label_without_id": 1}


def test_readings_are_kept_for_a_bounded_time_and_number():
    bench = Bench(pending_s=10.0, pending_limit=2)
    bench.push({"features": [1], "id": "old"})
    bench.now = 9.5
    bench.push({"features": [2], "id": "young"})
    bench.now = 10.0
    bench.label("old", "on")
    bench.label("young", "on")
    for n in range(3):
        bench.push({"features": [n], "id": f"n{n}"})
    assert bench.source.pending == 2
    bench.label("n0", "on")
    bench.label("n1", "on")
    assert [row for row in bench.taken() if row[1]] == [([2], "on", "young"), ([1], "on", "n1")]
    assert bench.source.dropped == {"late_label": 2}
    assert len(bench.source._gone) <= 2


def test_a_second_reading_of_one_id_replaces_the_first():
    bench = Bench()
    bench.push({"features": [1], "id": "a"})
    bench.push({"features": [2], "id": "a"})
    bench.label("a", "on")
    assert bench.taken()[-1] == ([2], "on", "a")


def test_nothing_is_kept_when_nothing_may_be():
    bench = Bench(pending_limit=0)
    bench.push({"features": [1], "id": "a"})
    bench.label("a", "on")
    assert bench.source.pending == 0 and bench.source.dropped == {"unknown_id": 1}


def test_labels_come_on_their_own_topic_where_there_is_one():
    bench = Bench()
    bench.push({"features": [1], "id": "a"})
    bench.push({"id": "a", "label": "forged"}, "s/1/data")
    bench.push({"features": [9], "id": "a", "label": "on"}, "s/labels")
    assert bench.taken() == [([1], None, "a"), ([1], "on", "a")]
    assert bench.source.dropped == {"label_on_sample_topic": 1}
    bench = Bench(label_topic="")
    bench.push({"features": [1], "id": "a"})
    bench.push({"id": "a", "label": "on"})
    assert bench.taken()[-1] == ([1], "on", "a")
    assert bench.source.subscriptions == ("s/+/data",)
    assert Bench().source.subscriptions == ("s/+/data", "s/labels")


def test_keys_can_be_named():
    bench = Bench(id_key="reading", label_key="state", format="msgpack")
    bench.push({"features": [1], "reading": "r", "label": "ignored"})
    bench.push({"reading": "r", "state": "on"}, "s/labels")
    assert bench.taken() == [([1], None, "r"), ([1], "on", "r")]
    said = msgpack.unpackb(bench.source.prediction_payload("r", "on", np.float32(0.123456)))
    assert said == {"reading": "r", "state": "on", "confidence": 0.1235}


def test_predictions_are_plain_json():
    said = Bench().source.prediction_payload(None, None, 0.0)
    assert json.loads(said) == {"id": None, "label": None, "confidence": 0.0}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "bad_json"),
        (b"\xff", "bad_json"),
        (b"[1,", "bad_json"),
        (b"[" * 60_000, "bad_json"),
        (b"[" + b"9" * 50_000 + b"]", "bad_json"),
        (b"[" + b"1" * 70_000 + b"]", "too_large"),
        (b"7", "wrong_shape"),
        (b"[]", "wrong_shape"),
        (b'{"features": 3}', "wrong_shape"),
        (b'{"features": {}}', "wrong_shape"),
        (b"[" + b"1," * 4096 + b"1]", "wrong_shape"),
        (b"[1, 2, 3]", "wrong_dimension"),
        (b"[1, NaN]", "non_finite"),
        (b"[1, -Infinity]", "non_finite"),
        (b"[1, 1e39]", "non_finite"),
        (b"[1, 1" + b"0" * 400 + b"]", "non_finite"),
        (b'[1, "2"]', "not_a_number"),
        (b"[1, [2]]", "not_a_number"),
        (b"[1, null]", "missing_value"),
        (b"{}", "no_features"),
        (b'{"id": "a"}', "no_features"),
        (b'{"features": [1, 2], "label": 1.5}', "bad_label"),
        (b'{"features": [1, 2], "label": true}', "bad_label"),
        (b'{"features": [1, 2], "label": "a\\nb"}', "bad_label"),
        (b'{"features": [1, 2], "label": "\\ud800"}', "bad_label"),
        (b'{"features": [1, 2], "label": "' + b"x" * 65 + b'"}', "bad_label"),
        (b'{"features": [1, 2], "label": "stranger"}', "unknown_class"),
        (b'{"features": [1, 2], "id": ["a"]}', "bad_id"),
        (b'{"features": [1, 2], "id": "' + b"x" * 129 + b'"}', "bad_id"),
        (b'{"features": [1, 2], "id": ' + b"9" * 4000 + b"}", "bad_id"),
    ],
)
def test_bad_payloads_are_counted_and_survived(payload, reason):
    bench = Bench(classes=("on", "off"), features=("a", "b"))
    bench.push(payload)
    assert bench.source.dropped == {reason: 1}
    bench.push({"features": [1, 2], "label": "on"})
    assert bench.taken() == [([1, 2], "on", None)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "bad_msgpack"),
        (b"\xc1", "bad_msgpack"),
        (b"\x91" * 60_000, "bad_msgpack"),
        (b"\xdd\xff\xff\xff\xff", "bad_msgpack"),
        (b"\x92\x01\x02\x03", "bad_msgpack"),
        (msgpack.packb([1, msgpack.ExtType(5, b"abc")]), "bad_msgpack"),
        (msgpack.packb({1: 2}), "bad_msgpack"),
        (msgpack.packb([1, b"2"]), "not_a_number"),
        (msgpack.packb([1, float("nan")]), "non_finite"),
        (msgpack.packb({"features": [1, 2], "label": b"on"}), "bad_label"),
    ],
)
def test_bad_msgpack_is_counted_and_survived(payload, reason):
    bench = Bench(format="msgpack", features=("a", "b"))
    bench.push(payload)
    assert bench.source.dropped == {reason: 1}


@given(st.binary(max_size=300), st.sampled_from(["json", "msgpack"]))
def test_any_bytes_are_a_reading_or_refused(payload, form):
    with contextlib.suppress(Refused):
        parse(payload, form, 250)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["features", "id", "label", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(JSON, st.sampled_from(["s/1/data", "s/labels"])), max_size=8))
def test_whatever_is_said_only_finite_vectors_of_one_width_come_out(messages):
    bench = Bench(pending_limit=3)
    for value, topic in messages:
        bench.push(json.dumps(value).encode(), topic)
    rows = bench.taken()
    assert len({len(x) for x, _, _ in rows}) <= 1
    assert all(np.isfinite(x).all() for x, _, _ in rows)
    assert sum(bench.source.dropped.values()) + len(rows) == len(messages)


def test_a_burst_costs_the_oldest():
    bench = Bench(queue_limit=3)
    for n in range(5):
        bench.push([n])
    assert [x for x, _, _ in bench.taken()] == [[2], [3], [4]]
    assert bench.source.dropped == {"queue_full": 2}


def test_samples_waits_for_what_is_pushed():
    async def run():
        bench = Bench()
        found = []

        async def read():
            async for sample in bench.source.samples():
                found.append(sample.x.tolist())

        reader = asyncio.create_task(read())
        for n in range(3):
            await asyncio.sleep(0)
            bench.push([n])
        bench.source.close()
        await reader
        return found

    assert asyncio.run(run()) == [[0], [1], [2]]
