"""The agent with a model or an encoder, as a process: it trains, is killed, goes on, and both kinds can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_process import Stranger, csv_file, lessons, wait_for
from click.testing import CliRunner

from edgeswarm.agent.ledger import Ledger
from edgeswarm.cli import group
from edgeswarm.cli.learnt import load
from edgeswarm.models.file import write
from tests.tiny_model import tiny

pytestmark = pytest.mark.broker

LABELS = ("0", "1", "2")
"""Classes of `lessons`."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Takes the four numbers of `lessons`."""
    write(tiny((4,), LABELS, embedding=8), tmp_path / "model.esm")
    return tmp_path / "model.esm"


def images(folder: Path, count: int = 60, size: int = 6) -> Path:
    """Red and blue pictures, some darker than others: a mean over the colours tells nothing."""
    image = pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'edgeswarm[images]'")
    rng = np.random.default_rng(0)
    for label, channel in (("red", 0), ("blue", 2)):
        (folder / label).mkdir(parents=True)
        for at in range(count):
            pixels = rng.integers(0, 40, (size, size, 3))
            pixels[:, :, channel] += rng.integers(80, 200)
            image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{at}.png")
    return folder


def right(state: Path, x: Any, labels: Any) -> float:
    """Share of rows that `edgeswarm predict` names rightly."""
    lines = [",".join([*load(state).features, "label"])]
    lines += [",".join(map(str, [*row, label])) for row, label in zip(np.asarray(x).tolist(), labels, strict=True)]
    words = ["predict", "--state", str(state), "--label", "label", "--json"]
    result = CliRunner().invoke(group, words, input="\n".join(lines))
    assert result.exit_code == 0, result.output + result.stderr
    return float(json.loads(result.stdout)["accuracy"])


@pytest.mark.parametrize("backend", ["onnx", "reference"])
def test_a_model_trains_is_killed_and_goes_on_where_it_was(broker, node, site, model, tmp_path, backend):
    if backend == "onnx":
        pytest.importorskip("onnxruntime", reason="the backend onnx needs it: pip install 'edgeswarm[onnx]'")
    source = {
        "kind": "mqtt",
        "topic": f"{site}/data",
        "predictions_topic": f"{site}/out",
    }
    a = node(
        broker.url,
        source=source,
        strategy={"name": "isolated", "period_s": 0.1, "steps": 4, "rate": 0.05, "window": 200},
        model={"path": str(model)},
        compute={"backend": backend},
    ).start()
    a.wait(lambda s: s["link"]["up"])
    sensor = Stranger(broker.port, f"{site}/out")
    x, y = lessons(200)
    for row, label in zip(x.tolist(), y.tolist(), strict=True):
        sensor.say(f"{site}/data", {"features": row, "label": str(label)})
    sensor.say(f"{site}/data", {"features": x[0].tolist(), "label": "elephant"})
    sensor.say(f"{site}/data", x[0].tolist()[:3])  # of another width: it must not decide anything
    a.wait(lambda s: s["notes"].get("samples") == 200 and s["notes"].get("steps", 0) > 100)
    said = a.wait(lambda s: s["notes"].get("unknown_labels") and s["notes"])
    assert said["unknown_labels"] == 1 and said["dropped_wrong_dimension"] == 1 and said["loss"] < 1.0
    assert f"{backend}: " in a.log and "firmware profile" in a.log
    assert a.wait(lambda s: s["unknown_label"]) == "elephant"
    assert "1 samples left out so far: the method does not know their labels, such as 'elephant'; it knows '0'" in a.log

    sensor.say(f"{site}/data", {"features": x[1].tolist(), "id": "q"})
    wait_for(lambda: sensor.payloads(f"{site}/out"))
    answer = json.loads(sensor.payloads(f"{site}/out")[0])
    assert answer["id"] == "q" and answer["label"] == str(y[1]) and 0.3 < answer["confidence"] <= 1

    wait_for(lambda: a.saved().get("strategy", {}).get("moments", {}).get("step", 0) > 100, say=lambda: a.log)
    a.kill()
    kept = a.saved()["strategy"]
    assert [entry.decision.reason for entry in Ledger(a.state).read(kind="sample")][-1] == "unknown_label"
    again = a.start()
    assert again.wait(lambda s: s["notes"].get("unknown_labels")) == 1, "of the first run, at once"
    again.wait(lambda s: s["notes"].get("steps", 0) > kept["moments"]["step"])
    assert again.end() == 0
    later = again.saved()["strategy"]
    assert later["moments"]["step"] > kept["moments"]["step"] >= 100 and later["counter"] > kept["counter"]
    assert later["samples"] == kept["samples"] == 200 and later["rows"]["seen"] == 200
    test_x, test_y = lessons(100, seed=9)
    assert right(a.state, test_x, test_y) > 0.9
    sensor.close()


def test_a_question_is_answered_in_the_middle_of_an_epoch(broker, node, site, tmp_path):
    large = tmp_path / "large.esm"
    write(tiny((4,), LABELS, embedding=20_000), large)  # one step takes milliseconds, ten thousand of them minutes
    source = {"kind": "mqtt", "topic": f"{site}/data", "predictions_topic": f"{site}/out"}
    a = node(
        broker.url,
        source=source,
        strategy={"name": "isolated", "period_s": 0.1, "steps": 10_000, "batch": 512},
        model={"path": str(large)},
        compute={"backend": "reference"},
    ).start()
    a.wait(lambda s: s["link"]["up"])
    sensor = Stranger(broker.port, f"{site}/out")
    x, y = lessons(20)
    for row, label in zip(x.tolist(), y.tolist(), strict=True):
        sensor.say(f"{site}/data", {"features": row, "label": str(label)})
    a.wait(lambda s: s["notes"].get("samples"))
    wait_for(lambda: a.status()["uptime_s"] > 2.0)  # wake-ups come every 0.1 s: one has
    for at in range(3):
        sensor.say(f"{site}/data", {"features": x[at].tolist(), "id": at})
        wait_for(lambda at=at: len(sensor.payloads(f"{site}/out")) == at + 1)
    assert [json.loads(payload)["id"] for payload in sensor.payloads(f"{site}/out")] == [0, 1, 2]
    assert "steps" not in a.wait(lambda s: s["notes"].get("predictions") == 3 and s["notes"]), "no epoch has ended yet"
    assert a.end() == 0
    assert a.saved()["strategy"]["counter"] == 0
    sensor.close()


def test_two_nodes_learn_prototypes_of_embeddings_and_hear_each_other(broker, node, stranger, tmp_path):
    pictures = images(tmp_path / "pictures")
    encoder = tmp_path / "encoder"
    write(tiny((3, 6, 6), ("a", "b"), embedding=12), encoder)
    sections: dict[str, Any] = {
        "source": {"kind": "images", "path": str(pictures), "image_size": 6, "image_mode": "rgb", "rate_per_s": 60,
                   "repeat": True},
        "encoder": {"path": str(encoder)},
        "evaluate": {"path": str(pictures), "every_s": 0.3},
    }  # fmt: skip
    a, b = node(broker.url, "a", **sections), node(broker.url, "b", **sections)
    c = node(broker.url, "c", **{**sections, "encoder": {"path": str(encoder), "normalise": False}})
    for one in (a, b, c):
        one.start()
    for one, other in ((a, "b"), (b, "a")):
        one.wait(lambda s, other=other: s["links"].get(other, {}).get("updates", 0) > 1)
        one.wait(lambda s: s["notes"].get("holdout_alone", 0) > 0.9)
    c.wait(lambda s: s["notes"].get("samples", 0) > 60 and s["notes"].get("peers") == 2)
    assert all(link.get("prototypes", 0) == 0 for link in c.status()["links"].values()), "otherwise scaled: not mixed"
    for one in (a, b, c):
        assert one.end() == 0
    saved = a.saved()
    assert saved["features"] == [f"e{at}" for at in range(12)]
    assert saved["source"]["encoder"] == "image:6x6:rgb:0-1" and len(saved["source"]["features"]) == 108
    blue = np.tile(np.array([0.1, 0.1, 0.7]), 36)
    assert right(a.state, [blue, blue[::-1]], ["blue", "red"]) == 1.0
    a.start()
    a.wait_samples(saved["strategy"]["samples"])
    assert a.end() == 0
    encoder.rename(tmp_path / "gone")
    assert a.start().exit_code() == 2
    assert str(encoder) in a.log.splitlines()[-1] and "Traceback" not in a.log


def test_what_does_not_fit_is_one_line_at_the_start(node, model, tmp_path):
    url = "mqtt://127.0.0.1:1"
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 50))}
    isolated = {"name": "isolated"}
    wide = {"kind": "csv", "path": str(csv_file(tmp_path / "wide.csv", 50, d=7))}
    (tmp_path / "broken.esm").write_bytes(model.read_bytes()[:-40])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": source, "strategy": isolated}, "trains a model: set [model] path as well"),
        ({"source": source, "strategy": isolated, "model": {"path": str(tmp_path / "none.esm")}}, "none.esm"),
        ({"source": source, "strategy": isolated, "model": {"path": str(tmp_path / "broken.esm")}}, "broken.esm"),
        ({"source": wide, "strategy": isolated, "model": {"path": str(model)}},
         "[model] tiny takes 4 numbers (vector), the samples have 7"),
        ({"source": wide, "encoder": {"path": str(model)}}, "[encoder] tiny takes 4 numbers"),
        ({"source": source, "encoder": {"path": str(model)}, "compute": {"profile": "pi-11"}}, "pi-11"),
        ({"source": source, "encoder": {"path": str(model)}, "compute": {"backend": "abacus"}}, "abacus"),
    ]  # fmt: skip
    for number, (sections, said) in enumerate(cases):
        one = node(url, f"n{number}", **{"strategy": {"name": "prototype_gossip"}, **sections})
        if sections.get("strategy") == isolated:
            del one.sections["strategy"]["period_s"]
        assert one.start().exit_code() == 2, one.log
        assert said in one.log.splitlines()[-1] and "Traceback" not in one.log, one.log
