"""Names and routes: what is published can be taken apart again, is heard by the right nodes, and proves its sender."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.errors import ConfigError
from edgeswarm.messages import (
    EVERYONE,
    PARTS,
    SNAPSHOT,
    Bids,
    Compressed,
    Digest,
    Message,
    Packed,
    Predictions,
    Prototypes,
    Pull,
    Weights,
)
from edgeswarm.wire import topics
from edgeswarm.wire.topics import Parsed, is_name, listen_filters, parse, route, subscriptions, valid_name

# %u is the sender's name, proven by its certificate.
DOCUMENTED = (Path(__file__).resolve().parents[2] / "docs" / "wire.md").read_text("utf-8")
ACL_WRITE = tuple(re.findall(r"pattern write (\S+)", DOCUMENTED))
ACL_READ = tuple(re.findall(r"pattern read (\S+)", DOCUMENTED))
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(lambda name: name != EVERYONE)


def matches(pattern: str, topic: str, node: str = "") -> bool:
    """MQTT's rule for + (no # is used here)."""
    levels = [
        re.escape(node) if level == "%u" else "[^/]*" if level == "+" else re.escape(level)
        for level in pattern.split("/")
    ]
    return re.fullmatch("/".join(levels), topic) is not None


def prototypes(base: int, part: int = 0) -> Prototypes:
    packed = Packed("int8", np.zeros((0, 2), np.int8), np.ones(2, np.float32), np.zeros(2, np.float32))
    empty: Any = {"ids": np.zeros(0, np.uint32), "labels": np.zeros(0, np.uint16), "counts": np.zeros(0, np.float32)}
    return Prototypes(1, 1, 9, base, (), vectors=packed, part=part, parts=part + 1, **empty)


def weights(part: str, base: int = SNAPSHOT) -> Weights:
    return Weights(1, 2, part, 1, 9, Compressed("float32", 1, np.zeros(1, np.float32)), base)


def predictions(base: int = SNAPSHOT) -> Predictions:
    shares, none = np.zeros((0, 1, 2), np.uint8), np.zeros((0, 0, 0), np.uint8)
    return Predictions(1, 2, 1, 9, 2, np.zeros(0, np.uint32), "uint8", shares, none, np.zeros(0, np.uint8), base=base)


BIDS = Bids(1, 2, 1, 9, np.zeros(3, np.uint8))
ROUTES: list[tuple[Message, str, str, tuple[int, bool, int | None]]] = [
    (prototypes(SNAPSHOT), EVERYONE, "edgeswarm/v1/lab/pi-1/proto/power", (1, True, 3600)),
    (prototypes(SNAPSHOT, 12), EVERYONE, "edgeswarm/v1/lab/pi-1/proto/power_12", (1, True, 3600)),
    (prototypes(4), EVERYONE, "edgeswarm/v1/lab/all/pi-1/delta", (1, False, 60)),
    (prototypes(4, 2), EVERYONE, "edgeswarm/v1/lab/all/pi-1/delta", (1, False, 60)),
    (prototypes(SNAPSHOT), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/proto", (1, False, 60)),
    (prototypes(4), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/proto", (1, False, 60)),
    (Digest(1, 1, 9, 0, 0), EVERYONE, "edgeswarm/v1/lab/all/pi-1/digest", (0, False, 60)),
    (Digest(1, 1, 9, 0, 0), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/digest", (0, False, 60)),
    (Pull(1, 1, 9), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/pull", (1, False, 60)),
    (weights("all"), EVERYONE, "edgeswarm/v1/lab/pi-1/model/all/power", (1, True, 3600)),
    (weights("track"), EVERYONE, "edgeswarm/v1/lab/pi-1/model/track/power", (1, True, 3600)),
    (weights("body", 4), EVERYONE, "edgeswarm/v1/lab/pi-1/diff/body/power", (1, False, 60)),
    (weights("head"), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/model", (1, False, 60)),
    (weights("head", 4), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/model", (1, False, 60)),
    (predictions(), EVERYONE, "edgeswarm/v1/lab/pi-1/public/power", (1, True, 3600)),
    (predictions(4), EVERYONE, "edgeswarm/v1/lab/pi-1/diff/public/power", (1, False, 60)),
    (predictions(), "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/public", (1, False, 60)),
    (BIDS, EVERYONE, "edgeswarm/v1/lab/pi-1/bids/power", (1, True, 3600)),
    (BIDS, "pi-2", "edgeswarm/v1/lab/pi-2/inbox/pi-1/bids", (1, False, 60)),
]


@pytest.mark.parametrize(("message", "to", "topic", "how"), ROUTES, ids=[r[2].split("lab/")[1] for r in ROUTES])
def test_routes(message: Message, to: str, topic: str, how: tuple[int, bool, int | None]) -> None:
    got = route(message, "lab", "pi-1", "power", to)
    assert (got.topic, got.qos, got.retain, got.expiry_s) == (topic, *how)
    parsed = parse(topic)
    assert parsed is not None and (parsed.site, parsed.node, parsed.to) == ("lab", "pi-1", to)
    assert got.expiry_s is not None or got.retain, "a message that is not retained expires"
    assert got.retain == (got.expiry_s == 3600)
    assert topics.expiry_s(parsed) == got.expiry_s


@pytest.mark.parametrize(("message", "to", "topic", "how"), ROUTES, ids=[r[2].split("lab/")[1] for r in ROUTES])
def test_only_its_sender_may_write_and_the_right_nodes_hear(message: Message, to: str, topic: str, how: Any) -> None:
    def may(rules: tuple[str, ...], node: str) -> bool:
        return any(matches(rule, topic, node) for rule in rules)

    channels = (*PARTS, "public", "bids")

    def hears(node: str) -> bool:
        listened = [filter_ for channel in channels for filter_ in listen_filters("lab", "power", "pi-1", channel)]
        filters = [*subscriptions("lab", node, "power"), *listened]
        return may(ACL_READ, node) and any(matches(f, topic) for f, _ in filters)

    assert [name for name in ("pi-1", "pi-2", "pi-3") if may(ACL_WRITE, name)] == ["pi-1"]
    assert [name for name in ("pi-2", "pi-3") if hears(name)] == (["pi-2", "pi-3"] if to == EVERYONE else ["pi-2"])


def test_the_nodes_own_reports() -> None:
    assert topics.presence_route("lab", "pi-1") == topics.Route("edgeswarm/v1/lab/pi-1/state", 1, True, None)
    assert topics.health_route("lab", "pi-1") == topics.Route("edgeswarm/v1/lab/pi-1/health", 0, False, 60)
    assert parse("edgeswarm/v1/lab/pi-1/info") == Parsed("lab", "pi-1", "info")
    assert parse(topics.health_topic("lab", "pi-1")) == Parsed("lab", "pi-1", "health")
    assert parse(topics.state_topic("lab", "pi-1")) == Parsed("lab", "pi-1", "state")


def test_a_pull_is_for_one() -> None:
    with pytest.raises(ValueError, match="one node"):
        route(Pull(1, 1, 9), "lab", "pi-1", "power", EVERYONE)


@given(NAMES, NAMES, NAMES, NAMES, st.integers(0, 255))
def test_what_is_built_is_parsed(site: str, node: str, other: str, task: str, part: int) -> None:
    assert parse(topics.proto_topic(site, node, task, part)) == Parsed(site, node, "proto", task=task, part=part)
    for channel in ("model", "diff"):
        for kind in PARTS:
            build = topics.model_topic if channel == "model" else topics.diff_topic
            assert parse(build(site, node, kind, task)) == Parsed(site, node, channel, kind, task)
    pieces = (topics.model_topic(site, node, "body", task), topics.public_topic(site, node, task))
    for topic, channel, kind in zip(pieces, ("model", "public"), ("body", ""), strict=True):
        piece = topics.piece_topic(topic, part)
        assert parse(piece) == Parsed(site, node, channel, kind, task, part) and topics.whole_topic(piece) == topic
    assert parse(topics.bids_topic(site, node, task)) == Parsed(site, node, "bids", task=task)
    assert parse(topics.inbox_topic(site, other, node, task)) == Parsed(site, node, "inbox", kind=task, to=other)
    assert parse(topics.all_topic(site, node, task)) == Parsed(site, node, "all", kind=task)
    assert parse(topics.state_topic(site, node)) == Parsed(site, node, "state")
    assert len(topics.inbox_topic(site, other, node, task).split("/")) - 1 <= 7, "AWS IoT allows seven slashes"


@given(st.text(max_size=80))
def test_any_other_text_is_no_topic_of_ours(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or is_name(parsed.node)
    parse("edgeswarm/v1/" + text)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edgeswarm/v1",
        "edgeswarm/v2/lab/pi-1/state",
        "edgeswarm/v10/lab/pi-1/state",
        "edgeswarm/v1/lab/pi-1",
        "edgeswarm/v1/lab/pi-1/state/more",
        "edgeswarm/v1/lab/all/state",
        "edgeswarm/v1/all/pi-1/state",
        "edgeswarm/v1/lab/Pi/state",
        "edgeswarm/v1/lab/pi-1/state\n",
        "edgeswarm/v1/lab//state",
        "edgeswarm/v1/lab/all/all/delta",
        "edgeswarm/v1/lab/all/inbox/pi-1/delta",
        "edgeswarm/v1/lab/pi-1/inbox/all/pull",
        "edgeswarm/v1/lab/pi-1/proto/power_",
        "edgeswarm/v1/lab/pi-1/proto/power_0",
        "edgeswarm/v1/lab/pi-1/proto/power_01",
        "edgeswarm/v1/lab/pi-1/proto/power_256",
        "edgeswarm/v1/lab/pi-1/proto/power_1_1",
        "edgeswarm/v1/lab/pi-1/proto/power_\u0661",
        "/edgeswarm/v1/lab/pi-1/state",
        "edgeswarm/v1/lab/pi-1/model/power",
        "edgeswarm/v1/lab/pi-1/model/tail/power",
        "edgeswarm/v1/lab/all/model/all/power",
        "edgeswarm/v1/lab/pi-1/model/all/power_256",
        "edgeswarm/v1/lab/pi-1/diff/all/power_1",
        "edgeswarm/v1/lab/pi-1/diff/tail/power",
        "edgeswarm/v1/lab/pi-1/public/all/power",
        "edgeswarm/v1/lab/pi-1/bids/power_01",
    ],
)
def test_near_misses_are_not_parsed(topic: str) -> None:
    assert parse(topic) is None


def test_a_node_named_like_a_channel_is_no_trouble() -> None:
    assert parse("edgeswarm/v1/lab/all/proto/delta") == Parsed("lab", "proto", "all", kind="delta")
    assert parse("edgeswarm/v1/lab/inbox/proto/power") == Parsed("lab", "inbox", "proto", task="power")


@pytest.mark.parametrize("name", ["a", "0", "pi-4-kitchen", "x" * 63, "all-in", "a--b"])
def test_usable_names(name: str) -> None:
    assert valid_name(name) == name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Kitchen Pi", '"kitchen-pi"'),
        ("pi_4", '"pi-4"'),
        ("-pi", '"pi"'),
        ("pi-", '"pi"'),
        ("x" * 64, f'"{"x" * 63}"'),
        ("pi\n", '"pi"'),
        ("", "1 to 63"),
        ("+", "1 to 63"),
        ("all", "every node"),
        ("ALL", "1 to 63"),
    ],
)
def test_unusable_names_and_the_nearest_right_one(name: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(advice)) as caught:
        valid_name(name, "node name")
    assert str(caught.value).startswith("node name ")


def test_subscriptions_refuse_unusable_names() -> None:
    for names in (("Lab", "pi-1", "power"), ("lab", "all", "power"), ("lab", "pi-1", "po/wer")):
        with pytest.raises(ConfigError):
            subscriptions(*names)


@pytest.mark.parametrize("channel", [*PARTS, "public", "bids"])
def test_what_is_listened_to_is_what_that_peer_says_there(channel: str) -> None:
    said = {(part, base): weights(part, base) for part in PARTS for base in (SNAPSHOT, 4)}
    every: list[Message] = [*said.values(), predictions(), predictions(4), BIDS, prototypes(SNAPSHOT), prototypes(4)]
    for peer in ("pi-1", "pi-2"):
        for message in every:
            topic = route(message, "lab", peer, "power", EVERYONE).topic
            parsed = parse(topic)
            assert parsed is not None
            heard = any(matches(f, topic) for f, _ in listen_filters("lab", "power", "pi-1", channel))
            assert heard == (parsed.wanted == ("pi-1", channel))
            if not isinstance(message, Prototypes):
                expected = {Weights: getattr(message, "part", ""), Predictions: "public", Bids: "bids"}[type(message)]
                assert parsed.wanted == (peer, expected)


def test_listening_to_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="track, public, bids, not 'tail'"):
        listen_filters("lab", "power", "pi-1", "tail")


def test_chunks_may_come_where_long_messages_do() -> None:
    def takes(topic: str, index: int) -> bool:
        parsed = parse("edgeswarm/v1/lab/" + topic)
        assert parsed is not None
        return topics.takes_chunk(parsed, index)

    assert takes("pi-1/model/all/power", 0) and takes("pi-1/model/all/power_3", 3)
    assert takes("pi-1/diff/all/power", 3) and takes("pi-2/inbox/pi-1/model", 3)
    assert not takes("pi-1/model/all/power_3", 2) and not takes("pi-1/bids/power_1", 0)
    for topic in ("pi-1/proto/power", "pi-1/proto/power_3", "all/pi-1/delta", "pi-2/inbox/pi-1/proto", "pi-1/state"):
        assert not takes(topic, 3)
