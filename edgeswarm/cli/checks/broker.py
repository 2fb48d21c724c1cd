"""The broker, step by step as the agent would reach it: address, TLS, CONNECT, limits, presence, access rules.

A broker answers "granted" to a subscription its rules forbid, and says nothing when it drops a message for the same
reason (MQTT 5 lets it). So the last step publishes a word on one topic of each kind and waits to hear it back.

While an agent runs under the same identity none of this is tried: a broker that takes the client's name from its
certificate or user name would throw that agent off.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding
from edgeswarm.cli.checks.certificate import Certificate, from_der, from_pem
from edgeswarm.errors import TransportError, WireError
from edgeswarm.transport.dial import dial
from edgeswarm.transport.link import UNSUPPORTED_PROTOCOL, Hello, Link, Subscription, Welcome
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.settings import Address, MqttSettings
from edgeswarm.wire import topics
from edgeswarm.wire.status import decode_presence, encode_presence

if TYPE_CHECKING:
    import paho.mqtt.client as paho

CHECK_TASK = "edgeswarm-doctor"
"""Task of the word published on `proto/`: peers drop other tasks unread."""
CHECK_KIND = "_doctor"
"""Last level of the words published on `all/` and `inbox/`: no kind of message has an underscore, so peers count it
under refused_topic and look no further."""
SHARED: Mapping[str, Callable[[str, str, str], str]] = {
    "model": lambda site, node, task: topics.model_topic(site, node, "+" if node == "+" else "all", task),
    "diff": lambda site, node, task: topics.diff_topic(site, node, "+" if node == "+" else "all", task),
    "public": topics.public_topic,
    "bids": topics.bids_topic,
}
"""Topics of the methods that share models or predictions, from site, node and task."""
_SOON_DAYS = 14
_ECHO_S = 3.0
"""Longest wait for our own word to come back: it travels to the broker and straight home."""
_NOT_AUTHORISED = 0x87


@dataclass
class _Word:
    """Something published to hear it back. kind: names the check; packet_id: as given by `Link.publish`."""

    kind: str
    topic_filter: str
    topic: str
    payload: bytes
    packet_id: int = 0


@dataclass
class _Heard:
    """What came back. texts: (topic, payload, retained); answers: reason code by packet identifier."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    texts: list[tuple[str, bytes, bool]] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)

    def take(self, message: paho.MQTTMessage) -> None:
        self.texts.append((message.topic, bytes(message.payload), bool(message.retain)))
        self.arrived.set()

    def acknowledge(self, packet_id: int, code: int) -> None:
        self.answers[packet_id] = code
        self.arrived.set()

    def refused(self, word: _Word) -> bool:
        return self.answers.get(word.packet_id) == _NOT_AUTHORISED

    def settled(self, word: _Word) -> bool:
        return self.refused(word) or self.has(word)

    def has(self, word: _Word) -> bool:
        return any((topic, payload) == (word.topic, word.payload) for topic, payload, _ in self.texts)


async def check_all(
    settings: MqttSettings, timeout_s: float, running: bool = False, channels: Collection[str] = ()
) -> list[Finding]:
    """Findings about every broker of `settings`, and in detail about the first that takes us.

    timeout_s: for each answer.  running: an agent of this node is up (under no identity that two clients cannot share).
    channels: of SHARED, those that the method uses.
    """
    findings = own_certificate(settings)
    reached = False
    for address in settings.addresses():
        try:
            async with _connected(settings, address, timeout_s) as (found, link, welcome, heard):
                findings += found
                if link is None or welcome is None or reached:
                    continue
                reached = True
                findings.append(_packet_limit(settings, link, welcome))
                findings += await _access(settings, link, heard, timeout_s, running, channels)
        except TransportError as error:
            findings.append(_unreachable(address, error))
    return findings


def own_certificate(settings: MqttSettings) -> list[Finding]:
    """Dates and name of the node's own certificate."""
    if settings.cert_file is None:
        return []
    name = "own-certificate"
    try:
        certificate = from_pem(settings.cert_file.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError) as error:
        return [Finding(name, FAIL, f"{settings.cert_file}: {error}", "put the node's certificate there")]
    found = _dates(name, certificate, "renew this node's certificate")
    if certificate.common_name != settings.node:
        todo = "the broker's rules go by the certificate's name: use the same one for both"
        text = f"it is made out to {certificate.common_name!r}, and this node is {settings.node!r}"
        return [found, Finding(f"{name}-name", FAIL, text, todo)]
    return [found]


def _dates(name: str, certificate: Certificate, todo: str) -> Finding:
    now = datetime.now(timezone.utc)
    days = certificate.days_left(now)
    facts = {
        "common_name": certificate.common_name,
        "not_after": certificate.not_after.isoformat(),
        "days_left": round(days, 1),
    }
    until = f"valid until {certificate.not_after:%Y-%m-%d} ({days:.0f} days)"
    if now < certificate.not_before:
        return Finding(
            name,
            FAIL,
            f"not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC",
            "is this machine's clock right?",
            facts,
        )
    if days < 0:
        return Finding(name, FAIL, f"expired on {certificate.not_after:%Y-%m-%d}", todo, facts)
    return Finding(name, WARN if days < _SOON_DAYS else OK, until, todo if days < _SOON_DAYS else "", facts)


def _unreachable(address: Address, error: TransportError) -> Finding:
    text = str(error)
    step = "broker-tls" if any(word in text for word in ("certificate", "TLS")) else "broker-connect"
    todo = {
        "broker-tls": "check [broker] ca, cert and key, the clock, and the name in the broker's certificate",
        "broker-connect": "is the broker running, the address right, a firewall between?",
    }[step]
    return Finding(step, FAIL, text, todo, {"address": str(address)})


@contextlib.asynccontextmanager
async def _connected(
    settings: MqttSettings, address: Address, timeout_s: float
) -> AsyncIterator[tuple[list[Finding], Link | None, Welcome | None, _Heard]]:
    """Findings up to the CONNACK, and the link if the broker took us. Raises TransportError before that."""
    versions = [settings.protocol != "3.1.1"]
    if settings.protocol == "auto":
        versions.append(False)
    findings: list[Finding] = []
    for v5 in versions:
        heard = _Heard()
        context = settings.tls_context() if address.tls else None
        began = time.monotonic()
        sock = await dial(address, context, timeout_s)
        took_ms = 1000 * (time.monotonic() - began)
        findings = [
            Finding(
                "broker-reach",
                OK,
                f"{address} answers in {took_ms:.0f} ms",
                "",
                {"address": str(address), "ms": round(took_ms, 1)},
            )
        ]
        if isinstance(sock, ssl.SSLSocket):
            findings.append(_tls(sock))
        hello = Hello("", v5, settings.keepalive_s, 0, settings.window, settings.receive_limit_bytes,
                      username=settings.username, password=settings.password())  # fmt: skip
        link = Link(sock, hello, heard.take, heard.acknowledge)
        try:
            try:
                welcome = await asyncio.wait_for(asyncio.shield(link.welcome), timeout_s)
            except asyncio.TimeoutError:
                raise TransportError(f"{address} accepted the connection but said nothing") from None
            except TransportError:
                if v5 and len(versions) == 2:
                    continue  # some 3.1.1 brokers hang up on a CONNECT of version 5
                raise
            if welcome.code == UNSUPPORTED_PROTOCOL and v5 and len(versions) == 2:
                continue
            findings.append(_welcome(address, v5, welcome))
            yield findings, link if welcome.code == 0 else None, welcome, heard
            link.disconnect()
            await asyncio.wait([link.closed], timeout=1.0)
            return
        finally:
            link.drop()
    raise TransportError(f"{address} speaks neither MQTT 5 nor 3.1.1 with us")


def _tls(sock: ssl.SSLSocket) -> Finding:
    data = sock.getpeercert(binary_form=True)
    if data is None:
        return Finding("broker-tls", WARN, "the broker showed no certificate")
    try:
        found = _dates("broker-tls", from_der(data), "renew the broker's certificate")
    except ValueError as error:
        return Finding("broker-tls", WARN, f"the broker's certificate cannot be read: {error}")
    return Finding("broker-tls", found.status, f"{sock.version()}, certificate {found.text}", found.todo, found.facts)


def _welcome(address: Address, v5: bool, welcome: Welcome) -> Finding:
    version = "5" if v5 else "3.1.1"
    facts = {"address": str(address), "protocol": version, "code": welcome.code, "reason": welcome.reason}
    if welcome.code:
        todo = "check [broker] username, password_file and certificate, and the broker's accounts"
        return Finding("broker-connect", FAIL, f"{address} refused us: {welcome.reason}", todo, facts)
    return Finding("broker-connect", OK, f"accepted, MQTT {version}", "", facts)


def _packet_limit(settings: MqttSettings, link: Link, welcome: Welcome) -> Finding:
    ours, theirs = settings.packet_limit_bytes, welcome.packet_limit_bytes
    facts = {"ours_bytes": ours, "broker_bytes": theirs or None}
    if not theirs:
        said = "announces no limit" if link.v5 else "cannot announce one (MQTT 3.1.1)"
        return Finding("packet-limit", OK, f"the broker {said}; we send at most {ours:,} bytes", "", facts)
    if theirs < ours:
        todo = (
            "nothing breaks: larger messages are cut into more parts; raise max_packet_size at the broker to avoid that"
        )
        return Finding("packet-limit", WARN, f"the broker takes {theirs:,} bytes, less than our {ours:,}", todo, facts)
    return Finding("packet-limit", OK, f"the broker takes {theirs:,} bytes, we send at most {ours:,}", "", facts)


# ---- presence and access rules --------------------------------------------------------------------------------------


async def _access(
    settings: MqttSettings, link: Link, heard: _Heard, timeout_s: float, running: bool, channels: Collection[str]
) -> list[Finding]:
    """Say a word on one topic of each kind and hear it back; look at what the broker holds about this node."""
    site, node = settings.site, settings.node
    silent_s = min(timeout_s, _ECHO_S)
    word = f"doctor {time.time_ns()}".encode()
    own_state = topics.state_topic(site, node)
    words = [
        _Word("proto", topics.proto_topic(site, "+", "+"), topics.proto_topic(site, node, CHECK_TASK), word),
        _Word("all", topics.all_topic(site, "+", "+"), topics.all_topic(site, node, CHECK_KIND), word),
        _Word(
            "inbox", topics.inbox_topic(site, node, "+", "+"), topics.inbox_topic(site, node, node, CHECK_KIND), word
        ),
        *(_Word(each, SHARED[each](site, "+", "+"), SHARED[each](site, node, CHECK_TASK), word) for each in channels),
    ]
    state = _Word("state", topics.state_topic(site, "+"), own_state, _gone(node))
    link.subscribe([Subscription(each.topic_filter, 1) for each in (state, *words)])
    await _say(link, heard, words, silent_s)
    # What was retained has arrived before the words did. If the node's own state is among it, that topic is proven,
    # and a running agent is spared from hearing that it is gone.
    kept = next((payload for topic, payload, retained in heard.texts if topic == own_state and retained), b"")
    if kept:
        state = dataclasses.replace(state, payload=kept)
    else:
        await _say(link, heard, [state], silent_s)
    return [_presence(node, kept, running), *(_judged(each, link, heard, silent_s) for each in (state, *words))]


def _gone(node: str) -> bytes:
    """A presence nobody takes for news: its epoch of 0 is older than any real start."""
    from edgeswarm.messages import Presence

    return encode_presence(Presence(node, "disconnected", 0, f"doctor-{time.time_ns()}"))


async def _say(link: Link, heard: _Heard, words: list[_Word], silent_s: float) -> None:
    """Publish the words, and wait until all are back or refused, or `silent_s` has passed."""
    loop = asyncio.get_running_loop()
    for word in words:
        word.packet_id = link.publish(Packet(word.topic, word.payload, qos=1, retain=False, expiry_s=10), 10)
    until = loop.time() + silent_s
    while not all(heard.settled(word) for word in words) and not link.closed.done() and loop.time() < until:
        heard.arrived.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(heard.arrived.wait(), min(0.2, max(0.0, until - loop.time())))


def _judged(word: _Word, link: Link, heard: _Heard, silent_s: float) -> Finding:
    name = f"acl-{word.kind}"
    facts = {"filter": word.topic_filter, "topic": word.topic}
    if heard.has(word):
        return Finding(name, OK, f"may write and read {word.topic_filter}", "", facts)
    if link.closed.done():
        return Finding(
            name, FAIL, f"the broker hung up: {link.closed.result().reason}", "look at the broker's log", facts
        )
    if heard.refused(word):
        return Finding(
            name, FAIL, f"may not write {word.topic}", "add the rule to the broker's ACL (docs/wire.md)", facts
        )
    text = f"a word on {word.topic} did not come back within {silent_s:g} s"
    todo = (
        'the broker\'s ACL forbids reading or writing it (docs/wire.md lists the rules); its "granted" proves nothing'
    )
    return Finding(name, FAIL, text, todo, facts)


def _presence(node: str, kept: bytes, running: bool) -> Finding:
    """What the broker keeps about this name. running: an agent of this state folder is up, so it may well be ready."""
    if not kept:
        return Finding("presence", OK, "the broker holds nothing about this name", "", {"state": None})
    try:
        presence = decode_presence(node, kept)
    except WireError as error:
        return Finding("presence", WARN, f"the broker holds something unreadable about this name: {error}")
    facts: dict[str, Any] = {"state": presence.state, "epoch": presence.epoch, "instance": presence.instance}
    if presence.state in ("ready", "sleeping") and not running:
        text = f"the broker says {node!r} is {presence.state} (start {presence.epoch}), but no such agent runs here"
        todo = "is another device using this name? If not, it will be corrected at the next start"
        return Finding("presence", WARN, text, todo, facts)
    return Finding("presence", OK, f"the broker says {presence.state} (start {presence.epoch})", "", facts)


def running_agent(folder: Path) -> list[Finding]:
    """What the running agent says about its own link, instead of a test that might throw it off."""
    from edgeswarm.cli.status import judged, read_status
    from edgeswarm.errors import StateError

    why = "not tried, so as not to throw off the agent that runs under this identity"
    try:
        link = judged(read_status(folder), time.time())["link"]
    except StateError as error:
        return [Finding("broker-connect", WARN, f"{why}; {error}")]
    if link["up"]:
        return [
            Finding("broker-connect", OK, f"the running agent is connected: {link['detail']}"),
            Finding("acl", SKIP, why),
        ]
    todo = "stop the agent and run doctor again to see which step fails"
    return [
        Finding("broker-connect", FAIL, f"the running agent is not connected: {link['detail']}", todo),
        Finding("acl", SKIP, why),
    ]
