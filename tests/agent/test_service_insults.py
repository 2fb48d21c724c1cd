"""What peers, brokers and clocks do to an agent: it goes on learning and sharing, and its numbers say what happened."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from agent_process import Stranger, csv_file, npz_file, resident_bytes, wait_for

from edgeswarm.agent import learner
from edgeswarm.agent import service as service_module
from edgeswarm.agent.config import load
from edgeswarm.agent.ledger import Ledger
from edgeswarm.agent.service import Service
from edgeswarm.agent.sources import fingerprint
from edgeswarm.agent.store import Store
from edgeswarm.maths.quantise import pack
from edgeswarm.messages import SNAPSHOT, Digest, Presence, Prototypes, Pull
from edgeswarm.wire.codec import decode, encode
from edgeswarm.wire.envelope import MOST_EPOCH
from edgeswarm.wire.status import decode_report, encode_presence

pytestmark = pytest.mark.broker

GOLDEN = Path(__file__).parent.parent / "golden"
FEATURES = ("x0", "x1", "x2", "x3")
SCHEMA = fingerprint("default", FEATURES)


def prototypes(version=1, schema=SCHEMA, d=4, k=5, seed=0, epoch=1, classes=("0", "1", "2")):
    rng = np.random.default_rng(seed)
    return Prototypes(
        schema=schema,
        epoch=epoch,
        version=version,
        base=SNAPSHOT,
        classes=classes,
        ids=np.arange(k, dtype=np.uint32),
        vectors=pack(rng.normal(size=(k, d)).astype(np.float32) * 4, "int8"),
        labels=(np.arange(k) % len(classes)).astype(np.uint16),
        counts=np.full(k, 3, np.float32),
        samples=100,
    )


def rows(path, **more):
    return {"kind": "csv", "path": str(csv_file(path, 20_000)), "rate_per_s": 200, **more}


def shares_again(stranger, site, name="a"):
    """Wait for a message of `name` that is newer than all seen so far."""
    topics = (f"edgeswarm/v1/{site}/{name}/proto/default", f"edgeswarm/v1/{site}/all/{name}/delta")
    count = len([1 for topic, payload, _ in list(stranger.seen) if topic in topics and payload])
    wait_for(lambda: len([1 for topic, payload, _ in list(stranger.seen) if topic in topics and payload]) > count)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_garbage_on_every_topic_is_survived_and_counted(broker, stranger, site, node, tmp_path, protocol):
    a = node(broker.url, "a", source=rows(tmp_path / "a.csv"), broker={"protocol": protocol}).start()
    b = node(broker.url, "b", source=rows(tmp_path / "b.csv")).start()
    a.wait(lambda s: s["links"].get("b", {}).get("updates"))
    refused = sorted(GOLDEN.glob("refused_*.bin"))
    assert len(refused) > 40
    whole = encode(prototypes())
    garbage = [
        *(path.read_bytes() for path in refused),
        b"\x91" * 100_000,
        b"\x81\xa1a" * 50_000,
        msgpack.packb([float("nan")] * 1000),
        os.urandom(5000),
        whole[: len(whole) // 2],
        b"",
    ]
    topics = [
        f"edgeswarm/v1/{site}/evil/state",
        f"edgeswarm/v1/{site}/evil/proto/default",
        f"edgeswarm/v1/{site}/all/evil/delta",
        f"edgeswarm/v1/{site}/all/evil/digest",
        f"edgeswarm/v1/{site}/a/inbox/evil/proto",
        f"edgeswarm/v1/{site}/a/inbox/evil/pull",
        f"edgeswarm/v1/{site}/all/b/delta",  # forged, where the broker does not forbid it
        f"edgeswarm/v1/{site}/a/state",  # this node's own
    ]
    for topic in topics:
        for payload in garbage:
            stranger.client.publish(topic, payload, 1)
    stranger.say(f"edgeswarm/v1/{site}/a/inbox/evil/pull", encode(Digest(SCHEMA, 1, 1, 1, 1)))
    stranger.say(f"edgeswarm/v1/{site}/all/evil/delta", encode(Pull(SCHEMA, 1, 1)))
    for level in ("bad name", "UPPER", "proto", "a/b/c/d/e"):
        stranger.say(f"edgeswarm/v1/{site}/{level}/proto/default", whole)
    notes = a.wait(
        lambda s: sum(n for name, n in s["notes"].items() if name.startswith("refused_")) > 300 and s["notes"]
    )
    kinds = {name for name, count in notes.items() if name.startswith("refused_") and count}
    assert kinds >= {"refused_malformed", "refused_limits", "refused_non_finite", "refused_wrong_version"}, sorted(
        kinds
    )
    assert "faults" not in notes
    a.wait(lambda s: s["notes"].get("refused_misrouted", 0) >= 2)
    stranger.say(topics[2], b"x" * 2_000_000)  # MQTT 5: withheld by the broker; 3.1.1: costs the link
    samples = a.wait_samples()
    heard = a.wait(lambda s: s["link"]["up"] and s["links"]["b"]["updates"])
    a.wait_samples(samples + 50)
    a.wait(lambda s: s["links"]["b"]["updates"] > heard)
    b.wait(lambda s: s["links"].get("a", {}).get("updates"))
    shares_again(stranger, site)
    assert "evil" not in a.status()["links"]
    # one line for each kind of refusal from each sender, however often it comes
    said = re.findall("dropped a message from evil: .*", a.log)
    assert said and len(said) == len(set(said))
    assert "Traceback" not in a.log + b.log
    assert a.end() == 0 and b.end() == 0


def test_peers_that_cannot_be_understood_are_ignored_and_written_down_once(broker, stranger, site, node, tmp_path):
    a = node(broker.url, "a", source=rows(tmp_path / "a.csv")).start()
    a.wait(lambda s: s["link"]["up"] and s["notes"].get("sent"))
    say = f"edgeswarm/v1/{site}/{{}}/proto/default"
    for version in range(1, 6):
        stranger.say(say.format("other"), encode(prototypes(version, schema=SCHEMA + 1)))
        stranger.say(say.format("wide"), encode(prototypes(version, d=7)))
        stranger.say(say.format("good"), encode(prototypes(version, seed=version)))
        stranger.say(say.format("new"), encode(prototypes(version, classes=("0", "label never seen"))))
    a.wait(lambda s: {"good", "new"} <= set(s["links"]) and s["links"]["good"]["updates"] == 5)
    a.wait_samples(a.note("samples") + 50)
    shares_again(stranger, site)
    assert not {"other", "wide"} & set(a.status()["links"])
    assert a.end() == 0
    ignored = [entry.decision for entry in Ledger(a.state).read(kind="peer", outcome="ignored")]
    assert sorted((d.peer, d.reason) for d in ignored) == [("other", "other_schema"), ("wide", "wrong_dimension")]
    assert "label never seen" in a.saved()["strategy"]["classes"]


def test_what_the_broker_remembers_of_an_earlier_life(broker, stranger, site, node, tmp_path):
    """The board's card was replaced: the broker and the peers know its name with more starts than it has made."""
    epoch = 3_500_000
    state, proto = f"edgeswarm/v1/{site}/a/state", f"edgeswarm/v1/{site}/a/proto/default"
    stranger.say(state, encode_presence(Presence("a", "ready", epoch, "old")), retain=True)
    stranger.say(proto, encode(prototypes(50, epoch=epoch)), retain=True)
    b = node(broker.url, "b", source=rows(tmp_path / "b.csv")).start()
    b.wait(lambda s: s["links"].get("a", {}).get("updates") == 1)  # the stale snapshot
    a = node(broker.url, "a", source=rows(tmp_path / "a.csv")).start()
    a.wait(lambda s: s["epoch"] == epoch + 1 and s["link"]["up"])
    wait_for(lambda: stranger.wait_presence(site, "a", "ready").epoch == epoch + 1)
    wait_for(lambda: decode(stranger.payloads(proto)[-1]).epoch > epoch)
    b.wait(lambda s: s["links"]["a"]["updates"] > 2)  # what the new life says counts
    assert a.status()["notes"]["earlier_life"] == 1
    a.kill()
    a.start()
    assert a.wait(lambda s: s["epoch"] > epoch + 1 and s["link"]["up"])
    assert a.end() == 0


def test_an_epoch_that_nobody_can_have_counted_to_is_not_followed(broker, stranger, site, node, tmp_path):
    """Or none would be left for the next start."""
    state = f"edgeswarm/v1/{site}/a/state"
    stranger.say(state, encode_presence(Presence("a", "ready", MOST_EPOCH, "evil")), retain=True)
    a = node(broker.url, "a", source=rows(tmp_path / "a.csv")).start()
    wait_for(lambda: "delete that retained message" in a.log, say=lambda: a.log)
    a.wait_samples(a.wait_samples() + 20)
    assert a.status()["epoch"] < MOST_EPOCH - 1000
    shares_again(stranger, site)
    assert a.end() == 0


def test_two_devices_with_one_name_say_so(broker, stranger, site, node, tmp_path):
    one = node(broker.url, "twin", "one", source=rows(tmp_path / "1.csv")).start()
    one.wait(lambda s: s["link"]["up"])
    other = node(broker.url, "twin", "other", source=rows(tmp_path / "2.csv")).start()
    peer = node(broker.url, "peer", source=rows(tmp_path / "3.csv")).start()
    # One meets the other at once. That one may know only what the broker holds until they meet again, minutes later.
    said = re.compile("another device uses the name twin|two devices have one name")
    for twin in (one, other):
        wait_for(lambda twin=twin: said.search(twin.log), say=lambda twin=twin: twin.log)
        twin.wait_samples(twin.note("samples") + 50)
    wait_for(lambda: [twin for twin in (one, other) if "another device" in str(twin.status().get("link"))])
    assert one.note("duplicate_name") + other.note("duplicate_name") > 0
    # One of them steps back for a minute at least; the other goes on sharing.
    wait_for(lambda: any(twin.status()["link"]["up"] for twin in (one, other)))
    updates = peer.wait(lambda s: s["links"].get("twin", {}).get("updates"))
    peer.wait(lambda s: s["links"]["twin"]["updates"] > updates)
    assert peer.status()["link"]["up"]
    # said, not shouted
    assert all(len(said.findall(twin.log)) <= 6 for twin in (one, other))
    assert [twin.end() for twin in (one, other, peer)] == [0, 0, 0]


def test_a_broker_with_stale_retained_messages(start_mosquitto, node, site, tmp_path):
    """It comes back with what it had long ago: of this node, and of a peer that says more since."""
    running = start_mosquitto()
    a = node(running.url, "a", source=rows(tmp_path / "a.csv"), strategy={"keep_limit": 40}).start()
    old = Stranger(running.port, f"edgeswarm/v1/{site}/#")
    topic = f"edgeswarm/v1/{site}/a/proto/default"
    wait_for(lambda: old.payloads(topic))
    old.say(f"edgeswarm/v1/{site}/peer/proto/default", encode(prototypes(9, seed=9)))
    a.wait(lambda s: s["links"].get("peer", {}).get("updates") == 1)
    stale = old.payloads(topic)[0]
    running.kill()
    a.wait(lambda s: not s["link"]["up"])
    old.client.loop_stop()
    second = start_mosquitto(running.port)
    late = Stranger(second.port, f"edgeswarm/v1/{site}/#")
    late.say(topic, stale, retain=True)
    late.say(f"edgeswarm/v1/{site}/peer/proto/default", encode(prototypes(2, seed=2)), retain=True)
    late.say(f"edgeswarm/v1/{site}/peer/state", encode_presence(Presence("peer", "ready", 1, "p")), retain=True)
    a.wait(lambda s: s["link"]["up"], 60)
    wait_for(lambda: any(payload != stale for payload in late.payloads(topic)))
    newest = Stranger(second.port, topic)
    wait_for(lambda: newest.payloads(topic))
    assert decode(newest.payloads(topic)[0]).version > decode(stale).version
    assert a.status()["links"]["peer"]["updates"] == 1
    assert a.end() == 0
    late.close(), newest.close()


def test_memory_does_not_grow_with_what_is_heard_and_learnt(broker, stranger, site, node, tmp_path):
    source = {"kind": "npz", "path": str(npz_file(tmp_path / "a.npz", 2000)), "repeat": True}
    a = node(broker.url, "a", source=source, strategy={"keep_limit": 40}, report={"every_s": 0.1}).start()
    a.wait(lambda s: s["link"]["up"])

    def hear(count, first):
        for at in range(first, first + count):
            peer = f"peer-{at % 6}"
            stranger.client.publish(
                f"edgeswarm/v1/{site}/{peer}/proto/default", encode(prototypes(at // 6 + 1, seed=at, k=20)), 1
            )
            if at % 10 == 0:
                stranger.client.publish(f"edgeswarm/v1/{site}/all/{peer}/delta", os.urandom(200), 1)
            if at % 100 == 0:
                time.sleep(0.05)
        last = (first + count - 1) // 6 + 1
        a.wait(lambda s: s["links"].get("peer-5", {}).get("updates", 0) >= last - 1, 60)

    hear(1000, 0)
    a.wait_samples(1500)
    before, samples = resident_bytes(a.process.pid), a.note("samples")
    hear(3000, 1000)
    a.wait(lambda s: s["notes"]["samples"] > samples + 5000, 60)
    grown = resident_bytes(a.process.pid) - before
    assert a.note("inbox_full") == 0 and a.status()["notes"]["messages_received"] > 4000
    assert a.end() == 0
    assert grown < 6_000_000, f"{grown} bytes"


# ---- in this process, where things can be made to fail --------------------------------------------------------------


def service_of(one):
    return Service(load(one.write(), environ={})[0])


async def running(service, until, timeout_s=30.0):
    """Run the service until `until()` is true, then stop it in good order."""
    task = asyncio.create_task(service.run())
    deadline = time.monotonic() + timeout_s
    while not until() and not task.done() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    happened = until()
    service.stop()
    await task
    assert happened


def numbers(service):
    return service.report()["notes"]


def test_a_step_that_raises_is_counted_and_survived(broker, stranger, site, node, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(learner, "FAULT_PAUSE_S", 0.1)
    one = node(broker.url, source=rows(tmp_path / "a.csv"))
    service = service_of(one)
    build = service_module.build_strategy

    saves = iter([True])

    def broken(config):
        strategy = build(config)
        count = iter(range(10**9))

        class Broken(type(strategy)):
            def step(self, state, event):
                at = next(count)
                if at % 4 == 3 or (type(event).__name__ == "Woke" and at < 40):
                    raise RuntimeError(f"step {at}")
                return (yield from _generator(super().step(state, event)))

            def dump(self, state):
                if next(saves, False):
                    raise RuntimeError("save")
                return super().dump(state)

        return Broken(**{name: getattr(strategy, name) for name in strategy.__dataclass_fields__})

    monkeypatch.setattr(service_module, "build_strategy", broken)
    topic = f"edgeswarm/v1/{site}/a/proto/default"

    def done():
        saved = service._memory.store.loaded
        return (
            saved and numbers(service)["samples"] > 100 and numbers(service)["faults"] > 10 and stranger.payloads(topic)
        )

    with caplog.at_level("INFO", "edgeswarm"):
        asyncio.run(running(service, done))
    assert 5 <= caplog.text.count("Traceback") < numbers(service)["faults"]
    assert Store(one.state).load()["source_taken"] >= 100
    stranger.wait_presence(site, "a", "disconnected")


def _generator(steps):
    """A step is a generator, or returns what one would: both are driven the same way."""
    return (yield from steps)


def test_a_wall_clock_that_jumps_changes_nothing(broker, stranger, site, node, tmp_path, monkeypatch):
    one = node(broker.url, source=rows(tmp_path / "a.csv"), strategy={"silence_limit_s": 1.0})
    service = service_of(one)
    real, jumps = time.time, iter(range(10**9))
    # ten years back, ten years on, 1970, with every look at it
    monkeypatch.setattr(time, "time", lambda: [real() - 3e8, real() + 3e8, 5.0][next(jumps) % 3])
    topic = f"edgeswarm/v1/{site}/a/proto/default"

    def done():
        saved = service._memory.store.loaded
        return (
            saved is not None
            and saved.number >= 2
            and numbers(service).get("sent", 0) >= 3
            and stranger.payloads(topic)
        )

    asyncio.run(running(service, done))
    assert numbers(service)["samples"] > 50 and not numbers(service)["disk_fault"] and next(jumps) > 5
    status = json.loads((one.state / "status.json").read_text())
    assert 0 < status["uptime_s"] < 60


def test_the_wall_clock_is_read_in_named_places_only():
    """Stamps for people, and the epoch of a node without a disk; everything that decides runs on monotonic time."""
    package = Path(service_module.__file__).parent.parent
    calls = re.compile(r"\btime\.time(_ns)?\b|\bdatetime\b|\blocaltime\b|\bgmtime\b|\bstrftime\b")
    places = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("cli", "demo") and calls.search(path.read_text("utf-8"))
    }
    assert places == {
        "agent/ledger.py",  # stamps
        "agent/log.py",  # stamps
        "agent/memory.py",  # the floor of the epoch
        "agent/store.py",  # stamps
        "agent/voice.py",  # status.json's stamp
        "readable.py",  # a stamp in words, of today or of another day
    }
    assert (package / "agent/voice.py").read_text("utf-8").count("time.time()") == 1


def test_a_report_never_outgrows_what_may_be_sent(broker, stranger, site, node, tmp_path):
    one = node(broker.url, source=rows(tmp_path / "a.csv"), broker={"packet_limit_bytes": 4096})
    service = service_of(one)

    def done():
        if service._voice.agent is None:
            return False
        for at in range(1500):
            service._voice.agent.link_notes[f"peer-{at}"] = dict.fromkeys(("weight", "age_s", "pulls", "muted"), 1.5)
        return stranger.payloads(f"edgeswarm/v1/{site}/a/health")[3:]

    asyncio.run(running(service, done))
    report = decode_report(stranger.payloads(f"edgeswarm/v1/{site}/a/health")[-1])
    assert 0 < len(report["links"]) < 100 and report["notes"]["samples"] > 0
    assert len(json.loads((one.state / "status.json").read_text())["links"]) == 1500
    assert "faults" not in numbers(service)


def test_batches_shrink_where_learning_is_slow(broker, node, tmp_path):
    """784 features take milliseconds each: 64 at once would keep the connection waiting for most of a second."""
    path = npz_file(tmp_path / "wide.npz", 400, d=784)
    service = service_of(node(broker.url, source={"kind": "npz", "path": str(path)}))
    asyncio.run(running(service, lambda: numbers(service).get("samples") == 400, 60))
    assert numbers(service)["batches"] > 3 * 400 / 64


def test_going_on_in_a_file_that_is_read_again_and_again(broker, node, tmp_path):
    path = npz_file(tmp_path / "a.npz", 50)
    source = {"kind": "npz", "path": str(path), "repeat": True, "rate_per_s": 400}
    one = node(broker.url, source=source)
    service = service_of(one)
    asyncio.run(running(service, lambda: numbers(service).get("samples", 0) > 130))
    taken = Store(one.state).load()["source_taken"]
    again = service_of(one)
    first = []
    put = again._inbox.put
    again._inbox.put = lambda event, size_bytes=0: (first.append(event), put(event, size_bytes))[1]
    asyncio.run(running(again, lambda: numbers(again).get("samples", 0) > taken))
    sample = next(event for event in first if hasattr(event, "label"))
    with np.load(path) as file:
        assert sample.x.tolist() == file["x"][taken % 50].tolist()
