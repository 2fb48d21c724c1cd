"""Who is there: presence as told by the broker, corrected by silence.

A will can overtake or follow the birth of the next life (MQTT keeps order per client and topic only), so what a node
says counts only if its boot epoch is not older than the newest heard. And a broker that lost its state, or never sends
wills, must not keep the dead alive: a peer that was silent for too long is taken for lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgeswarm.messages import Presence
from edgeswarm.values import value

ABSENT = frozenset({"lost", "disconnected", "gone"})


@value(frozen=True, slots=True)
class Peer:
    """The newest presence of a peer, when anything was last heard from it, and whether that is too long ago."""

    presence: Presence
    heard_at: float
    silent: bool = False

    @property
    def present(self) -> bool:
        return self.presence.state not in ABSENT and not self.silent


class PeerTable:
    """Presence of all other nodes at the site. silence_s: time without any word after which a peer counts as lost.

    limit: peers remembered; beyond it the absent ones heard longest ago are forgotten, and a flood of invented names
    from somebody who may write presence ends there.
    """

    def __init__(self, node: str, silence_s: float = 3600.0, limit: int = 2048) -> None:
        self.node, self.silence_s, self.limit = node, silence_s, limit
        self._peers: dict[str, Peer] = {}
        self._revived = False

    def __getitem__(self, name: str) -> Peer:
        return self._peers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._peers))

    def present(self) -> tuple[str, ...]:
        """Names of those who are there, sorted."""
        return tuple(sorted(name for name, peer in self._peers.items() if peer.present))

    def saw(self, presence: Presence, at: float) -> bool:
        """Take note of a presence; True if somebody came, went or started anew."""
        name = presence.node
        if name == self.node:
            return False
        old = self._peers.get(name)
        if old is not None and presence.state != "gone" and presence.epoch < old.presence.epoch:
            return False
        was = old is not None and old.present
        if old is None and len(self._peers) >= self.limit and not self._make_room():
            return False
        self._peers[name] = Peer(presence, at)
        now = self._peers[name].present
        return was != now or (now and old is not None and old.presence.epoch != presence.epoch)

    def heard(self, name: str, at: float) -> bool:
        """A message of any kind came from `name`; True if it counted as lost for its silence and is there again."""
        peer = self._peers.get(name)
        if peer is None:
            return False
        self._peers[name] = heard = Peer(peer.presence, at)
        back = peer.silent and heard.present
        self._revived |= back
        return back

    def sweep(self, at: float) -> bool:
        """Count those silent for too long as lost; True if that, or `heard` since the last sweep, changed `present`."""
        silent = [n for n, peer in self._peers.items() if peer.present and at - peer.heard_at > self.silence_s]
        for name in silent:
            self._peers[name] = replace(self._peers[name], silent=True)
        changed, self._revived = bool(silent) or self._revived, False
        return changed

    def dump(self) -> dict[str, Peer]:
        """All that is remembered, in its order."""
        return dict(self._peers)

    def load(self, dumped: Mapping[str, Peer]) -> None:
        """Remember what was dumped, and nothing else."""
        self._peers, self._revived = dict(dumped), False

    def _make_room(self) -> bool:
        absent = [(peer.heard_at, name) for name, peer in self._peers.items() if not peer.present]
        if not absent:
            return False
        del self._peers[min(absent)[1]]
        return True
