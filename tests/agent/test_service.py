"""The agent as a process: it learns, shares, saves, comes back, and ends when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from agent_process import Stranger, csv_file, lessons, mounted, npz_file, wait_for

from edgeswarm.agent.ledger import Ledger
from edgeswarm.messages import SNAPSHOT, Prototypes
from edgeswarm.wire.codec import decode

pytestmark = pytest.mark.broker

NOWHERE = "mqtt://127.0.0.1:1"
"""Nothing listens there."""


def proto_topic(site, name="a"):
    return f"edgeswarm/v1/{site}/{name}/proto/default"


# ---- sources and sharing --------------------------------------------------------------------------------------------


def test_two_agents_learn_and_hear_each_other_and_stop_in_good_order(broker, stranger, site, node, tmp_path):
    holdout = npz_file(tmp_path / "holdout.npz", 300, seed=5)
    a = node(
        broker.url,
        "a",
        source={"kind": "csv", "path": str(csv_file(tmp_path / "a.csv")), "rate_per_s": 200},
        evaluate={"path": str(holdout), "every_s": 0.3},
    )
    b = node(
        broker.url,
        "b",
        source={"kind": "npz", "path": str(npz_file(tmp_path / "b.npz", seed=1)), "rate_per_s": 200},
    )
    a.start(), b.start()
    for one, other in ((a, "b"), (b, "a")):
        link = one.wait(lambda s, other=other: s["links"].get(other, {}).get("updates", 0) > 2 and s["links"][other])
        assert link["prototypes"] > 0 and link["age_s"] < 60
    said = a.wait(lambda s: s["notes"].get("holdout_swarm", 0) > 0.9 and s)
    assert said["link"]["up"] and said["disk_fault"] == "" and not said["stopped"]
    assert said["notes"]["peers"] == 1 and "faults" not in said["notes"]
    assert stranger.payloads(f"edgeswarm/v1/{site}/a/health")

    assert a.end(signal.SIGTERM) == 0
    assert stranger.wait_presence(site, "a", "disconnected").epoch == said["epoch"]
    assert b.end(signal.SIGINT) == 0
    status = json.loads((a.state / "status.json").read_text())
    assert status["stopped"] and not status["link"]["up"]
    assert a.saved()["strategy"]["samples"] == a.saved()["source_taken"] == status["notes"]["samples"]
    late = Stranger(broker.port, f"edgeswarm/v1/{site}/+/state")
    assert late.wait_presence(site, "a", "disconnected")  # retained: who comes later sees it too
    late.close()


def test_a_folder_of_images_without_a_broker_that_then_appears_dies_and_comes_back_empty(
    start_mosquitto, node, site, tmp_path
):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for label, grey in (("dark", 40), ("light", 210)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for at in range(40):
            pixels = np.clip(rng.normal(grey, 20, (12, 12)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "images" / label / f"{at}.png")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = {"kind": "images", "path": str(tmp_path / "images"), "image_size": 6, "repeat": True, "rate_per_s": 100}
    a = node(f"mqtt://127.0.0.1:{port}", source=source).start()
    a.wait_samples(20)
    assert not a.status()["link"]["up"] and a.status()["link"]["detail"]
    for life in range(2):
        running = start_mosquitto(port)
        a.wait(lambda s: s["link"]["up"], 60)  # a third of a minute may lie between two tries by then
        observer = Stranger(port, f"edgeswarm/v1/{site}/#")
        assert observer.wait_presence(site, "a", "ready").epoch == a.status()["epoch"]
        wait_for(lambda observer=observer: observer.payloads(proto_topic(site)))
        first = decode(observer.payloads(proto_topic(site))[0])
        assert isinstance(first, Prototypes) and first.base == SNAPSHOT and set(first.classes) == {"dark", "light"}
        late = Stranger(port, f"edgeswarm/v1/{site}/#")
        wait_for(lambda late=late: any(topic == proto_topic(site) and kept for topic, _, kept in late.seen))
        observer.close(), late.close()
        if life == 0:
            running.kill()
            learnt = a.wait(lambda s: not s["link"]["up"] and s["notes"]["samples"])
            a.wait_samples(learnt + 20)
    assert a.end() == 0


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_sensor_topic_end_to_end(broker, node, site, form):
    pack = (lambda value: json.dumps(value).encode()) if form == "json" else msgpack.packb
    unpack = json.loads if form == "json" else msgpack.unpackb
    source = {
        "kind": "mqtt",
        "topic": f"{site}/data",
        "label_topic": f"{site}/labels",
        "predictions_topic": f"{site}/out",
        "format": form,
    }
    sensor = Stranger(broker.port, f"{site}/out")
    sensor.say(f"{site}/data", pack({"features": [9, 9, 9, 9], "label": "stale"}), retain=True)
    a = node(broker.url, source=source).start()
    a.wait(lambda s: s["link"]["up"])
    assert a.status()["epoch"] and "samples" not in a.status()["notes"]  # nobody has said what a sample looks like
    x, y = lessons(60)
    words = [f"class-{label}" for label in y]
    for row, word in zip(x[:50].tolist(), words, strict=False):
        sensor.say(f"{site}/data", pack({"features": row, "label": word}))
    a.wait(lambda s: s["notes"].get("samples") == 50)

    for at in range(50, 60):
        sensor.say(f"{site}/data", pack({"features": x[at].tolist(), "id": f"r{at}"}))
    sensor.say(f"{site}/data", pack(x[0].tolist()))  # a plain list: no id, no label
    wait_for(lambda: len(sensor.payloads(f"{site}/out")) == 11)
    said = [unpack(payload) for payload in sensor.payloads(f"{site}/out")]
    assert [answer["id"] for answer in said] == [*(f"r{at}" for at in range(50, 60)), None]
    assert sum(answer["label"] == word for answer, word in zip(said, words[50:], strict=False)) >= 8
    assert all(0 < answer["confidence"] <= 1 for answer in said)
    assert a.note("samples") == 50

    for at in range(50, 60):
        sensor.say(f"{site}/labels", pack({"id": f"r{at}", "label": words[at]}))
    sensor.say(f"{site}/data", pack({"features": [40, 40, 40, 40], "label": "never seen"}))
    a.wait(lambda s: s["notes"]["samples"] == 61)

    broken = [b"\xff\x00{", pack([1, 2]), pack([1, 2, 3, float("inf")]), pack([1, 2, 3, "four"]), b"[" * 50_000]
    if form == "msgpack":
        broken = [*broken[:4], b"\x91" * 50_000]
    for payload in [*broken, b"x" * 70_000]:
        sensor.say(f"{site}/data", payload)
    sensor.say(f"{site}/labels", pack({"id": "nobody", "label": "x"}))
    sensor.say(f"{site}/data", pack({"features": x[0].tolist(), "label": words[0]}))
    notes = a.wait(lambda s: s["notes"]["samples"] == 62 and s["notes"])
    dropped = {name.removeprefix("dropped_"): n for name, n in notes.items() if name.startswith("dropped_") and n}
    assert dropped == {
        "retained": 1,
        f"bad_{form}": 2,
        "wrong_dimension": 1,
        "non_finite": 1,
        "not_a_number": 1,
        "too_large": 1,
        "unknown_id": 1,
    }
    assert notes["predictions"] == 11
    assert a.end() == 0
    sensor.say(f"{site}/data", b"", retain=True)
    sensor.close()
    assert a.saved()["features"] == ["x0", "x1", "x2", "x3"]


# ---- power cuts and disks -------------------------------------------------------------------------------------------


def test_kill_at_any_instant_loses_at_most_what_was_configured(broker, node, site, stranger, tmp_path):
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 20_000)), "rate_per_s": 300}
    a = node(broker.url, source=source)
    rng = random.Random(1)
    epochs = []
    for turn in range(30):  # a slow disk needs more turns for as much progress
        if turn >= 5 and a.saved()["source_taken"] > 300:
            break
        a.start()
        a.wait(lambda s: s["notes"].get("samples"))
        until = time.monotonic() + rng.uniform(0.1, 1.9)
        seen = []
        while time.monotonic() < until:
            seen.append((time.monotonic(), a.note("samples")))
            time.sleep(0.02)
        a.kill()
        died = time.monotonic()
        epochs.append(a.status()["epoch"])
        kept = a.saved() or {"strategy": {"samples": 0}, "source_taken": 0}
        # what it said two seconds before (one is the setting, one for a busy machine) is there after the power cut
        before = [samples for at, samples in seen if at <= died - 2.0]
        assert kept["strategy"]["samples"] >= max(before, default=0)
        # state and place in the file belong together: nothing is left out, nothing learnt twice
        assert kept["strategy"]["samples"] == kept["source_taken"]
    assert epochs == sorted(set(epochs))
    taken = a.saved()["source_taken"]
    assert taken > 300
    a.start()
    a.wait_samples(taken)
    assert f"going on after the {taken} samples" in a.log
    assert a.end() == 0
    assert stranger.wait_presence(site, "a", "disconnected").epoch == a.saved_epoch() > epochs[-1]


def test_a_full_disk_is_reported_and_learning_goes_on(node, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 20_000)), "rate_per_s": 300}
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(tmp_path / "disk", "1m"))
        except OSError as error:
            pytest.skip(f"mounting is not permitted here: {error}")
        a = node(NOWHERE, source=source, state={"folder": str(disk / "state")}).start()
        stack.callback(a.close)
        wait_for(lambda: (a.state / "state.msgpack").exists(), say=lambda: a.log)
        hog = disk / "hog"
        with contextlib.suppress(OSError), hog.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        said = a.wait(lambda s: s["disk_fault"] and s)
        assert "disk full" in said["disk_fault"] and said["notes"]["disk_fault"] == 1
        a.wait_samples(said["notes"]["samples"] + 100)
        before = a.saved()["source_taken"]
        assert a.log.count("disk full") <= 3  # said once or twice, not at every save
        hog.unlink()
        a.wait(lambda s: not s["disk_fault"])
        wait_for(lambda: a.saved().get("source_taken", 0) > before, say=lambda: a.log)
        assert "can be saved again" in a.log
        assert a.end() == 0


def test_a_disk_that_has_turned_read_only_is_still_read(node, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system read-only")
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 20_000)), "rate_per_s": 300}
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(tmp_path / "disk", "2m"))
        except OSError as error:
            pytest.skip(f"mounting is not permitted here: {error}")
        a = node(NOWHERE, source=source, state={"folder": str(disk / "state")}).start()
        stack.callback(a.close)
        a.wait_samples(50)
        assert a.end() == 0
        taken, epoch = a.saved()["source_taken"], a.saved_epoch()
        remount(disk, "ro")
        a.start()
        wait_for(lambda: "read-only file system" in a.log, say=lambda: a.log)
        wait_for(lambda: f"going on after the {taken} samples" in a.log, say=lambda: a.log)
        remount(disk, "rw")
        said = a.wait(lambda s: not s["disk_fault"] and s["notes"].get("samples", 0) > taken and s)
        assert said["epoch"] > epoch
        wait_for(lambda: a.saved()["source_taken"] > taken, say=lambda: a.log)
        assert a.end() == 0


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_an_unusable_state_folder_does_not_keep_it_from_learning(node, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 20_000)), "rate_per_s": 300}
    a = node(NOWHERE, source=source, state={"folder": str(in_the_way / "state")}).start()
    wait_for(lambda: "learning default" in a.log and "would not survive a restart" in a.log, say=lambda: a.log)
    in_the_way.unlink()  # somebody mends it
    a.wait_samples(100)
    a.wait(lambda s: not s["disk_fault"])
    before = wait_for(a.saved)["source_taken"]
    # and then it vanishes while the agent runs
    (a.state).rename(tmp_path / "gone")
    wait_for(lambda: a.saved().get("source_taken", 0) > before, say=lambda: a.log)
    a.wait_samples(a.saved()["source_taken"])
    assert a.end() == 0


# ---- stopping -------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_it_connects_and_twice_while_it_says_goodbye(start_mosquitto, node, tmp_path):
    source = {"kind": "csv", "path": str(csv_file(tmp_path / "a.csv", 20_000)), "rate_per_s": 300}
    with socket.create_server(("127.0.0.1", 0)) as mute:
        connecting = node(f"mqtt://127.0.0.1:{mute.getsockname()[1]}", source=source).start()
        running = start_mosquitto()
        hasty = node(running.url, "b", source=source).start()
        patient = node(running.url, "c", source=source).start()
        connecting.wait_samples()
        hasty.wait(lambda s: s["link"]["up"] and s["notes"].get("sent"))
        patient.wait(lambda s: s["link"]["up"] and s["notes"].get("sent"))
        mute.settimeout(20)
        mute.accept()[0].close()  # it is in the middle of connecting
        assert connecting.end(signal.SIGINT) == 0
        assert connecting.saved()["source_taken"] > 0
        running.process.send_signal(signal.SIGSTOP)  # a broker that takes everything in and answers nothing
        hasty.process.send_signal(signal.SIGINT)
        patient.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in hasty.log)
        hasty.process.send_signal(signal.SIGINT)
        assert hasty.exit_code() == 130
        assert patient.exit_code() == 0
        assert patient.saved()["source_taken"] > 0


# ---- what the operator has to mend ----------------------------------------------------------------------------------


def test_what_only_a_person_can_mend_ends_it_with_one_line(broker, node, tmp_path):
    rows = str(csv_file(tmp_path / "a.csv", 20_000))
    wide = str(npz_file(tmp_path / "wide.npz", 5000, d=16))
    broken = tmp_path / "broken.csv"
    broken.write_text("x0,label\n1,a\nnot a number,a\n")
    fast = {"kind": "csv", "path": rows, "rate_per_s": 300}

    first = node(broker.url, "first", source=fast).start()
    first.wait_samples(10)
    shared = {"folder": str(first.state), "every_s": 1}
    second = node(broker.url, "second", source=fast, state=shared).start()
    missing = node(broker.url, "missing", source={"kind": "npz", "path": str(tmp_path / "none.npz")}).start()
    later = node(broker.url, "later", source={"kind": "csv", "path": str(broken)}).start()
    no_ca = node(broker.url, "no-ca", source=fast, broker={"url": "mqtts://127.0.0.1:1", "ca": "none.pem"}).start()
    scored = node(broker.url, "scored", source=fast, evaluate={"path": str(tmp_path / "none.csv")}).start()
    paper = node(
        broker.url,
        "paper",
        source={"kind": "npz", "path": wide, "rate_per_s": 100},
        strategy={"filter": "paper", "least_move": 0.0},
    ).start()
    ended = {one.name: one.exit_code() for one in (second, missing, later, no_ca, scored, paper)}
    logs = {one.name: one.log for one in (second, missing, later, no_ca, scored, paper)}
    assert ended == dict.fromkeys(ended, 2), logs
    assert not [log for log in logs.values() if "Traceback" in log], logs
    lines = {name: [line for line in log.splitlines() if line.startswith("edgeswarm: ")] for name, log in logs.items()}
    assert all(len(said) == 1 for said in lines.values()), lines
    wanted = {
        "second": "in use by another agent (process",
        "missing": "none.npz",
        "later": "broken.csv:3: column 'x0'",
        "no-ca": "none.pem",
        "scored": "none.csv",
        "paper": "16",
    }
    assert {name: text in lines[name][0] for name, text in wanted.items()} == dict.fromkeys(wanted, True), lines
    assert paper.saved()["source_taken"] > 0  # what it learnt until then is not lost

    first.wait(lambda s: s["link"]["up"])
    assert first.end() == 0
    before = (first.state / "state.msgpack").read_bytes()
    first.sections["source"] = {"kind": "npz", "path": wide}
    first.agent = None
    first.start()
    assert first.exit_code() == 2
    assert "the saved state does not fit this configuration" in first.log and "Traceback" not in first.log
    assert (first.state / "state.msgpack").read_bytes() == before


def test_decisions_are_written_down(broker, node, tmp_path):
    a = node(broker.url, source={"kind": "csv", "path": str(csv_file(tmp_path / "a.csv"))}).start()
    a.wait(lambda s: s["notes"].get("finished") and s["notes"]["samples"] == 2000 and s["notes"].get("held"))
    assert a.end() == 0
    said = Ledger(a.state).read(kind="share")
    assert {entry.decision.outcome for entry in said} >= {"sent", "held"}
    assert {entry.epoch for entry in said} == {a.saved_epoch()}
    a.start()
    wait_for(lambda: "it holds nothing new" in a.log, say=lambda: a.log)
    assert a.end() == 0 and a.saved()["strategy"]["samples"] == 2000
