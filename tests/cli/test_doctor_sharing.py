"""`doctor` on what nodes share: the graph, the public set, the method that works with them, the broker's rules."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import need_mosquitto

from edgeswarm.agent.settings import (
    Config,
    GraphConfig,
    ModelConfig,
    PublicConfig,
    SourceConfig,
    StateConfig,
    StrategyConfig,
)
from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, sharing
from edgeswarm.cli.checks.broker import check_all
from edgeswarm.demo.broker import start_broker
from edgeswarm.models.content import seal
from edgeswarm.models.file import write
from edgeswarm.models.public import PublicSet
from edgeswarm.models.public import write as write_public
from edgeswarm.transport.settings import MqttSettings
from tests.tiny_model import tiny

RULES = """\
topic readwrite edgeswarm/v1/+/+/state
topic readwrite edgeswarm/v1/+/+/proto/+
topic readwrite edgeswarm/v1/+/all/+/+
topic readwrite edgeswarm/v1/+/+/inbox/+/+
topic readwrite edgeswarm/v1/+/+/model/+/+
topic readwrite edgeswarm/v1/+/+/diff/+/+
topic readwrite edgeswarm/v1/+/+/public/+
"""


def configured(**sections: Any) -> Config:
    return replace(Config(node="a", strategy=StrategyConfig("d_psgd")), **sections)


def test_the_graph(tmp_path: Path) -> None:
    assert sharing.graph(configured()).status == SKIP
    assert sharing.graph(configured(graph=GraphConfig("ring"))).text.endswith("of whoever is present")
    found = sharing.graph(configured(graph=GraphConfig("ring", tuple("abcde"))))
    assert found.status == OK and "5 nodes; this one hears 2: b, e" in found.text
    assert found.facts["neighbours"] == ["b", "e"]
    (tmp_path / "edges").write_text("a b\nc d\n")
    found = sharing.graph(configured(graph=GraphConfig("edges", file=str(tmp_path / "edges"))))
    assert found.status == FAIL and "falls apart" in found.text and "every node" in found.todo


def test_the_public_set(tmp_path: Path) -> None:
    assert sharing.public_set(configured()).status == SKIP
    path = tmp_path / "public.npz"
    settings = configured(public=PublicConfig(str(path)))
    assert sharing.public_set(settings).status == FAIL
    public = PublicSet(np.ones((7, 3), np.float32), ("no", "yes"), "2026-11")
    write_public(public, path)
    found = sharing.public_set(settings)
    assert found.status == OK and "7 samples of 2 classes, version 2026-11" in found.text
    assert found.facts["hash"] == public.hash
    path.write_bytes(path.read_bytes()[:-30])
    assert sharing.public_set(settings).status == FAIL


def test_the_method_and_its_files(tmp_path: Path) -> None:
    path = tmp_path / "model.esm"
    settings = configured(model=ModelConfig(str(path)))
    assert sharing.method(settings).status == SKIP, "the file has a check of its own"
    write(tiny(), path)
    assert sharing.method(settings).status == OK
    assert sharing.method(configured(strategy=StrategyConfig())).status == SKIP
    whole = tiny()
    write(seal(replace(whole.card, losses={}), {"forward": whole.graphs["forward"]}, whole.initial), path)
    found = sharing.method(settings)
    assert found.status == FAIL and found.text.startswith("d_psgd: the model tiny has no labels or no loss")


def test_labels_that_the_model_does_not_know(tmp_path: Path) -> None:
    write(tiny((2,), ("0", "1")), tmp_path / "model.esm")
    data = tmp_path / "d.csv"
    settings = configured(
        model=ModelConfig(str(tmp_path / "model.esm")),
        source=SourceConfig("csv", str(data)),
        state=StateConfig(str(tmp_path / "state")),
    )
    for labels, status in (("01", OK), ("0q", WARN), ("pq", FAIL)):
        data.write_text("a,b,label\n" + "".join(f"1,2,{label}\n" for label in labels))
        (found,) = sharing.labels(settings)
        assert found.status == status, found
    assert "labels of 2 of the first 2 samples: 'p', for one; it knows '0', '1'" in found.text
    assert "model" in found.todo and found.facts == {"looked_at": 2, "unknown": 2, "labels": ["p", "q"]}
    assert sharing.labels(configured(strategy=StrategyConfig()))[0].status == SKIP


def test_what_a_run_has_left_out_is_found_where_samples_come_over_mqtt(tmp_path: Path) -> None:
    write(tiny((2,), ("0", "1")), tmp_path / "model.esm")
    settings = configured(
        model=ModelConfig(str(tmp_path / "model.esm")), source=SourceConfig("mqtt"), state=StateConfig(str(tmp_path))
    )
    assert sharing.labels(settings) == []
    status = {"notes": {"unknown_labels": 324.0, "too_large_rows": 1.0}, "unknown_label": "q0"}
    (tmp_path / "status.json").write_text(json.dumps(status))
    first, second = sharing.labels(settings)
    assert first.status == second.status == WARN
    assert first.text == "324 samples: the method does not know their labels ('q0', for one)"
    assert first.todo.startswith("correct the labels") and second.text.startswith("1 sample: they hold numbers beyond")


def test_which_topics_a_method_uses() -> None:
    assert sharing.channels(configured()) == ("model", "diff")
    assert sharing.channels(configured(strategy=StrategyConfig())) == ()
    assert sharing.channels(configured(strategy=StrategyConfig("isolated"))) == ()


@pytest.mark.broker
def test_rules_that_leave_out_a_topic_are_found(tmp_path: Path) -> None:
    need_mosquitto()
    acl = tmp_path / "acl"
    acl.write_text(RULES)
    acl.chmod(0o600)
    with start_broker("mosquitto", tmp_path, extra=(f"acl_file {acl}",)) as broker:
        settings = MqttSettings(urls=(broker.url,), site="hall", node="a", task="wafer")
        asked = asyncio.run(check_all(settings, 1.0, channels=("model", "diff", "public", "bids")))
        without = asyncio.run(check_all(settings, 1.0))
    found = {each.name: each.status for each in asked}
    assert [found[f"acl-{name}"] for name in ("state", "model", "diff", "public", "bids")] == [OK] * 4 + [FAIL]
    assert not {"acl-model", "acl-bids"} & {each.name for each in without}
