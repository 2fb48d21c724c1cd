"""What was seen of a real swarm at its broker, in one file: presences, reports, sizes and times of messages.

The file is JSON Lines, bounded, and holds no contents: nobody's samples, prototypes or models. An observer cannot see
how long a message travels, but it can work it out. A report says how old its sender's news of a peer is, so when they
came; the peer's message was seen here when the broker had it. What lies between is the sender's way from the broker and
back, for its report came here by that way, too.

# Theory. Let u and d be the times up to and down from the broker. Node n hears p's message at s + u_p + d_n, the
observer o at s + u_p + d_o. A report that n makes at t is seen at t + u_n + d_o, so the moment at which n heard, as
worked out here from the report's arrival and the age in it, is s + u_p + d_n + u_n + d_o. The difference to the moment
at which o heard is d_n + u_n: the round trip of n, whatever the observer's own link is like.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from edgeswarm.agent.faults import fault_text
from edgeswarm.errors import ConfigError, DataError, StateError, WireError
from edgeswarm.transport.base import Observer
from edgeswarm.transport.packet import Packet
from edgeswarm.wire import topics
from edgeswarm.wire.status import decode_presence, decode_report

FORMAT = 1
NOTES = ("bytes_sent", "bytes_received", "holdout_swarm", "accuracy_swarm", "samples", "rounds", "uptime_s")
"""What is kept of a report, of all that it says of its node; of a link, its age."""
UP, LOST = "ready", "lost"
REMEMBERED = 512
"""Messages of one sender that are held against reports."""
LINE_LIMIT_BYTES = 1_000_000
JITTER_S = 0.05
"""By how much two of the observer's own times may be wrong against each other."""


class Recorder:
    """Writes what it is told of to `out` until `limit_bytes` are full. full: nothing more is written.

    lines: those written so far.  connected: its broker was reached.  losses, unseen_s: how often its link broke, and
    for how long it had none.
    """

    def __init__(self, out: TextIO, site: str, limit_bytes: int) -> None:
        self._out, self._limit_bytes, self._bytes = out, limit_bytes, 0
        self.lines, self.full, self.connected = 0, False, False
        self.losses, self.unseen_s = 0, 0.0
        self._down_s: float | None = None
        self.nodes: set[str] = set()
        self._put({"record": FORMAT, "site": site})

    def take(self, at_s: float, topic: str, payload: bytes, retained: bool) -> None:
        """A message that was seen `at_s` seconds after the beginning. What cannot be read counts as a message."""
        parsed = topics.parse(topic)
        if parsed is None or self.full:
            return
        self.nodes.add(parsed.node)
        size = Packet(topic, payload, 0 if parsed.channel == "health" else 1, retained).size_bytes(True)
        line: dict[str, Any] = {"at_s": round(at_s, 4), "node": parsed.node}
        try:
            if parsed.channel == "state" and payload:
                seen = decode_presence(parsed.node, payload)
                line |= {"kind": "presence", "state": seen.state, "epoch": seen.epoch, "retained": retained}
            elif parsed.channel == "health":
                line |= {"kind": "report", "bytes": size} | _numbers(decode_report(payload))
            elif payload:
                line |= {
                    "kind": parsed.channel,
                    "part": parsed.kind,
                    "to": parsed.to,
                    "bytes": size,
                    "retained": retained,
                }
            else:
                return
        except WireError as error:
            line |= {"kind": "unreadable", "reason": error.reason, "bytes": size}
        self._put(line)

    def link(self, at_s: float, up: bool) -> None:
        """The observer's own link to the broker broke, or is there again; twice the same is once."""
        if up == (self._down_s is None):
            return
        self._found(at_s)
        self._down_s = None if up else at_s
        self.losses += not up
        if not self.full:
            self._put({"at_s": round(at_s, 4), "kind": "link", "up": up})

    def end(self, at_s: float) -> None:
        """The last line: how long it was."""
        self._found(at_s)
        full, self.full = self.full, False
        self._limit_bytes += LINE_LIMIT_BYTES
        self._put({"at_s": round(at_s, 4), "kind": "end"})
        self._out.flush()
        self.full = full

    def _found(self, at_s: float) -> None:
        """Count the time without a link up to now."""
        if self._down_s is not None:
            self.unseen_s += at_s - self._down_s
            self._down_s = at_s

    def _put(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":")) + "\n"
        if self._bytes + len(text) > self._limit_bytes:
            self.full = True
            return
        self._out.write(text)
        self._bytes += len(text)
        self.lines += 1


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    notes = {name: report["notes"][name] for name in NOTES if name in report["notes"]}
    ages = {peer: round(values["age_s"], 4) for peer, values in report["links"].items() if "age_s" in values}
    return {"notes": notes, "ages_s": ages}


@dataclass
class Recorded:
    """One node of a recording.

    start_s: when it was first seen, 0 if it was there before.  states: (time, state, epoch), one after another; it is
    lost from its last word on.  wills_s: by that time, when the broker told of it, or when it was back before that.
    first_s: when its first message came that is neither presence nor report; None without any.
    bytes_sent, bytes_received: of all its MQTT packets from from_s until until_s, status reports left out: from its
    start, or the first report of one that was there before, until its last report.  unreported_bytes: what it sent
    after the last report of a process that ended, as it was seen at the broker; part of bytes_sent, while what it
    received then is not known; None where no process ended.
    messages: seen at the broker.  accuracy: on its own examination file, last; accuracy_stream: of
    recent own samples; None where never reported.  age_s: mean over its peers and its reports.  round_trip_s: to the
    broker and back, the median of what its reports let work out; None without any.
    """

    name: str
    start_s: float = 0.0
    states: list[tuple[float, str, int]] = field(default_factory=list)
    wills_s: dict[float, float] = field(default_factory=dict)
    bytes_sent: float = 0.0
    bytes_received: float = 0.0
    unreported_bytes: float | None = None
    messages: int = 0
    accuracy: float | None = None
    accuracy_stream: float | None = None
    age_s: float | None = None
    round_trip_s: float | None = None
    first_s: float | None = None
    from_s: float = 0.0
    until_s: float | None = None


@dataclass(frozen=True)
class Recording:
    """length_s: of the whole.  nodes: those that were up at some time, by name.  unseen_s: how long the recorder had
    no link to the broker."""

    site: str
    length_s: float
    nodes: Mapping[str, Recorded]
    unseen_s: float = 0.0


def read(path: Path) -> Recording:
    """What a recording says. Raises DataError naming file and line."""
    lines = _lines(path)
    number, head = next(lines, (1, {}))
    if head.get("record") != FORMAT:
        raise DataError(f"{path}:{number}: not a recording of `edgeswarm record`, or of another version")
    reader = _Reader()
    for number, line in lines:
        try:
            reader.take(line)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(f"{path}:{number}: not a line of a recording: a field is missing or wrong") from None
    nodes = {name: node for name, node in sorted(reader.finished().items()) if any(s == UP for _, s, _ in node.states)}
    if not nodes:
        raise DataError(f"{path}: no node was up while it was recorded")
    return Recording(str(head.get("site", "")), reader.length_s, nodes, reader.unseen_s())


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            number = 0
            while text := file.readline(LINE_LIMIT_BYTES):
                number += 1
                try:
                    line = json.loads(text)
                except ValueError:
                    if text.endswith("\n"):
                        raise DataError(f"{path}:{number}: not JSON") from None
                    return  # cut off while it was written
                if not isinstance(line, dict):
                    raise DataError(f"{path}:{number}: not a line of a recording")
                yield number, line
    except OSError as error:
        raise DataError(fault_text("read the recording", path, error)) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text") from None


class _Reader:
    """Adds up the lines of a recording."""

    def __init__(self) -> None:
        self.length_s = 0.0
        self._nodes: dict[str, Recorded] = {}
        self._counted: dict[tuple[str, str], tuple[float, float]] = {}
        self._reports: dict[str, float] = {}
        self._heard: dict[str, deque[float]] = {}
        self._trips: dict[str, list[float]] = {}
        self._known: dict[tuple[str, str], float] = {}
        self._last_s: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._lives: dict[str, tuple[int, float]] = {}
        self._unreported: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._ages: dict[str, list[float]] = {}
        self._unseen_s = 0.0
        self._down_s: float | None = None

    def unseen_s(self) -> float:
        """How long the recorder had no link, up to the last line."""
        return self._unseen_s + (0.0 if self._down_s is None else self.length_s - self._down_s)

    def take(self, line: Mapping[str, Any]) -> None:
        at_s, kind = float(line["at_s"]), line["kind"]
        self.length_s = max(self.length_s, at_s)
        if kind in ("end", "unreadable"):
            return
        if kind == "link":
            if self._down_s is not None:
                self._unseen_s += at_s - self._down_s
            self._down_s = None if line["up"] else at_s
            return
        name = str(line["node"])
        node = self._nodes.setdefault(name, Recorded(name, -1.0))
        if kind == "presence":
            if node.start_s < 0 and line["state"] == UP:
                node.start_s = 0.0 if line["retained"] else at_s
            self._present(node, at_s, str(line["state"]), int(line["epoch"]))
            if line["state"] == UP and not line["retained"]:
                self._last_s[name] = at_s
        elif kind == "report":
            self._reported(node, at_s, line)
            self._last_s[name] = at_s
        else:
            node.messages += 1
            if not line["retained"]:
                self._last_s[name] = at_s
                self._unreported[name] = self._unreported.get(name, 0) + int(line["bytes"])
                node.first_s = at_s if node.first_s is None else node.first_s
                self._heard.setdefault(name, deque(maxlen=REMEMBERED)).append(at_s)

    def _present(self, node: Recorded, at_s: float, state: str, epoch: int) -> None:
        name = node.name
        _, was, before = node.states[-1] if node.states else (0.0, "", -1)
        silent_s = self._last_s.get(name, at_s)
        if was == state == UP and epoch > before:  # back before the broker spoke its will
            node.states.append((silent_s, LOST, before))
            node.wills_s[silent_s] = at_s
        if was == UP and state == LOST:  # the broker waits before it says so: it was away since nothing more came of it
            node.states.append((silent_s, state, epoch))
            node.wills_s[silent_s] = at_s
        elif (was, before) != (state, epoch):
            node.states.append((at_s, state, epoch))
        if state == UP:
            if epoch > self._epochs.get(name, epoch):
                self._ended[name] = self._ended.get(name, 0) + self._unreported.pop(name, 0)
            self._epochs[name] = epoch

    def _reported(self, node: Recorded, at_s: float, line: Mapping[str, Any]) -> None:
        notes = line["notes"]
        uptime_s = float(notes.get("uptime_s", 0.0))
        life = (self._epochs.get(node.name, 0), uptime_s)
        epoch, up_s = self._lives.get(node.name, life)
        anew = life[0] > epoch or uptime_s < up_s
        self._lives[node.name] = life
        for key in ("bytes_sent", "bytes_received"):
            if key in notes:
                self._add(node, key, float(notes[key]), at_s, uptime_s, anew)
        if node.name in self._ended:
            node.unreported_bytes = (node.unreported_bytes or 0.0) + self._ended.pop(node.name)
        self._unreported[node.name] = 0
        if node.until_s is None:
            # a node that was there before counts from this report on, which has itself not counted itself yet
            node.from_s = at_s if uptime_s > at_s + 1.0 else max(0.0, node.start_s)
        node.until_s = at_s
        self._reports[node.name] = self._reports.get(node.name, 0.0) + float(line["bytes"])
        node.accuracy = notes.get("holdout_swarm", node.accuracy)
        node.accuracy_stream = notes.get("accuracy_swarm", node.accuracy_stream)
        ages = {peer: float(age) for peer, age in line["ages_s"].items()}
        if ages:
            means = self._ages.setdefault(node.name, [])
            means.append(sum(ages.values()) / len(ages))
            node.age_s = sum(means) / len(means)
        for peer, age_s in ages.items():
            heard_s = at_s - age_s
            before = [sent_s for sent_s in self._heard.get(peer, ()) if sent_s <= heard_s + JITTER_S]
            if before and abs(self._known.get((node.name, peer), -1e9) - heard_s) > 1e-3:  # news, not the old again
                self._trips.setdefault(node.name, []).append(max(0.0, heard_s - before[-1]))
            self._known[node.name, peer] = heard_s

    def _add(self, node: Recorded, key: str, value: float, at_s: float, uptime_s: float, anew: bool) -> None:
        """Count on, also over restarts of the process, and from the beginning of the recording on. anew: this is of
        another process than the report before."""
        first = (node.name, key) not in self._counted
        base, last = self._counted.get((node.name, key), (value if uptime_s > at_s + 1.0 else 0.0, 0.0))
        if not first and (anew or value < last):  # a new process counts from 0
            base = -getattr(node, key)
        self._counted[node.name, key] = (base, value)
        setattr(node, key, value - base)

    def finished(self) -> dict[str, Recorded]:
        for name, node in self._nodes.items():
            node.start_s = max(node.start_s, 0.0)
            node.bytes_sent = max(0.0, node.bytes_sent - self._reports.get(name, 0.0)) + (node.unreported_bytes or 0.0)
            if name in self._trips:
                node.round_trip_s = median(self._trips[name])
        return self._nodes


def open_file(path: Path) -> TextIO:
    """A new file for a recording. Raises ConfigError: there is one; StateError: it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x", encoding="utf-8", buffering=1)  # by lines, should the recorder be ended
    except FileExistsError:
        raise ConfigError(f"{path}: is there already; give the recording another name") from None
    except OSError as error:
        raise StateError(fault_text("write the recording to", path, error)) from None


class Watching(Observer):
    """changed: told whether its link is up, when that changes; what was missed meanwhile is to be said."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed

    def on_link(self, up: bool, detail: str) -> None:
        """Pass it on."""
        self._changed(up)
