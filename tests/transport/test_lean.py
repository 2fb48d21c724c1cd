"""The short way through paho's client: the same messages as by paho's own way, however the bytes are cut."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeswarm.transport.lean import LeanClient, publish_properties

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311


class Fed(LeanClient):
    """Reads from a list of pieces instead of a socket."""

    def __init__(self, protocol: MQTTProtocolVersion, pieces: list[bytes]) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, protocol=protocol)
        self.pieces, self.heard, self.acknowledged = list(pieces), [], []
        self.on_socket_register_write = lambda *_: None  # written when somebody calls loop_write
        self.on_message = lambda client, userdata, message: self.heard.append(_seen(message))
        self.on_publish = lambda client, userdata, mid, reason, more: self.acknowledged.append((mid, reason.value))

    def _refill(self) -> None:
        if not self.pieces:
            raise BlockingIOError
        self._ahead, self._at = self.pieces.pop(0), 0

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at == len(self._ahead):
            self._refill()
        taken = self._ahead[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def read(self) -> MQTTErrorCode:
        """Until nothing is left."""
        while self.pieces or self._at < len(self._ahead):
            code = self._packet_read()
            if code not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN):
                return code
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def _seen(message: Any) -> tuple[Any, ...]:
    properties = message.properties
    packed = None if properties is None else bytes(properties.pack())
    left_s = getattr(properties, "MessageExpiryInterval", None)
    return message.topic, bytes(message.payload), message.qos, bool(message.retain), packed, left_s


def publish(topic: str, payload: bytes, qos: int, retain: bool, mid: int, properties: bytes | None) -> bytes:
    """A PUBLISH packet; properties None for MQTT 3.1.1."""
    rest = len(topic.encode()).to_bytes(2, "big") + topic.encode() + (mid.to_bytes(2, "big") if qos else b"")
    rest += (properties or b"") + payload
    length, size = bytearray(), len(rest)
    while True:
        size, digit = size >> 7, size & 0x7F
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes((0x30 | qos << 1 | retain,)) + bytes(length) + rest


def _rich() -> bytes:
    properties: Any = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = 9
    properties.ContentType = "text"
    properties.UserProperty = ("a", "b")
    return bytes(properties.pack())


def packets(v5: bool) -> bytes:
    """Messages of every shape we may meet, and acknowledgements between them."""
    expiry, rich = b"\x05\x02\x00\x00\x00\x3c", _rich()
    out = []
    for mid, (payload, properties) in enumerate(
        [(b"", b"\0"), (b"x", expiry), (b"y" * 200, rich), (b"z" * 20_000, expiry), (b"w" * 126, b"\0")], 1
    ):
        out.append(publish("site/node", payload, 1, False, mid, properties if v5 else None))
        out.append(b"\x40\x02" + mid.to_bytes(2, "big"))
        out.append(publish("a", payload, 0, True, 0, properties if v5 else None))
    if v5:
        out.append(b"\x40\x03\x00\x09\x10")
    return b"".join(out)


@pytest.mark.parametrize("protocol", [V5, V311])
def test_messages_and_acknowledgements_are_the_same_however_they_are_cut(protocol: MQTTProtocolVersion) -> None:
    data = packets(protocol == V5)
    whole = Fed(protocol, [data])
    assert whole.read() == MQTTErrorCode.MQTT_ERR_SUCCESS
    assert len(whole.heard) == 10
    assert [mid for mid, _ in whole.acknowledged] == [1, 2, 3, 4, 5, *([9] if protocol == V5 else [])]
    bytewise = Fed(protocol, [data[i : i + 1] for i in range(len(data))])
    assert bytewise.read() == MQTTErrorCode.MQTT_ERR_SUCCESS
    assert (bytewise.heard, bytewise.acknowledged) == (whole.heard, whole.acknowledged)
    for cut in [*range(1, 700), len(data) - 3]:
        fed = Fed(protocol, [data[:cut], data[cut:]])
        assert fed.read() == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert (fed.heard, fed.acknowledged) == (whole.heard, whole.acknowledged), cut


@pytest.mark.parametrize("protocol", [V5, V311])
def test_the_short_way_hears_what_paho_hears(protocol: MQTTProtocolVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packets(protocol == V5)
    short = Fed(protocol, [data])
    short.read()
    monkeypatch.setattr(LeanClient, "_simple", lambda self: False)
    long = Fed(protocol, [data])
    long.read()
    assert (short.heard, short.acknowledged) == (long.heard, long.acknowledged)


def test_every_qos_1_message_is_acknowledged_after_it_was_handed_on() -> None:
    fed = Fed(V5, [publish("a", b"x", 1, False, 7, b"\0") + publish("a", b"y", 1, False, 300, b"\0")])
    waiting: list[int] = []
    fed.on_message = lambda client, userdata, message: waiting.append(len(fed._out_packet))
    fed.read()
    assert waiting == [0, 1]
    assert [packet["packet"] for packet in fed._out_packet] == [b"\x40\x02\x00\x07", b"\x40\x02\x01\x2c"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x32\x04\x00\x09ab",  # the topic would end after the packet
        b"\x32\x05\x00\x01a\x00\x01",  # no room for properties
        b"\x32\x08\x00\x01a\x00\x01\x05\x02\x00",  # properties end after the packet
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x36\x06\x00\x01a\x00\x01\x00",  # QoS 3
    ],
)
def test_nonsense_is_left_to_paho_and_ends_the_link(data: bytes) -> None:
    fed = Fed(V5, [data])
    try:
        code = fed.read()
    except Exception:
        return  # `Link` takes any exception for garbled bytes
    assert code == MQTTErrorCode.MQTT_ERR_PROTOCOL
    assert not fed.heard


def test_what_is_published_is_what_paho_would_publish() -> None:
    for protocol in (V5, V311):
        ours, theirs = (Fed(protocol, []) for _ in range(2))
        theirs._sock = object()  # paho packs nothing without one
        for retain, expiry_s, name, payload in (
            (False, 60, "", b"x" * 300),
            (True, 0, "text", b""),
            (True, 5, "t", b"y"),
        ):
            properties = publish_properties(expiry_s, name) if protocol == V5 else None
            ours.publish_once("a/ü", payload, retain, properties)
            paho.Client.publish(theirs, "a/ü", payload, 1, retain, properties)
        theirs._sock = None
        assert [bytes(p["packet"]) for p in ours._out_packet] == [bytes(p["packet"]) for p in theirs._out_packet]
        with pytest.raises(ValueError):
            ours.publish_once("a/#", b"", False, None)


def test_small_packets_are_joined_and_those_paho_follows_up_are_not() -> None:
    client = Fed(V5, [])
    for number in range(3):
        client.publish_once("a", bytes((number,)), False, None)
    first = b"".join(bytes(p["packet"]) for p in client._out_packet)
    client._out_packet[0]["pos"], client._out_packet[0]["to_process"] = 2, len(client._out_packet[0]["packet"]) - 2
    client._packet_queue(0xE0, b"\xe0\x00", 0, 0)
    client.publish_once("a", b"late", False, None)
    client._merge()
    assert [bytes(p["packet"]) for p in client._out_packet][:2] == [first[2:], b"\xe0\x00"]
    assert client._out_packet[0]["to_process"] == len(first) - 2 and client._out_packet[0]["pos"] == 0
    assert len(client._out_packet) == 3
