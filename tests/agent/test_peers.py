from __future__ import annotations

import pytest

from edgeswarm.agent.peers import PeerTable
from edgeswarm.messages import Presence


def ready(name: str = "bob", epoch: int = 1, state: str = "ready", instance: str = "x") -> Presence:
    return Presence(name, state, epoch, instance)


def table(*names: str, silence_s: float = 100.0, limit: int = 2048) -> PeerTable:
    peers = PeerTable("ann", silence_s, limit)
    for name in names:
        assert peers.saw(ready(name), 0.0)
    return peers


def test_who_comes_and_goes() -> None:
    peers = table("cid", "bob")
    assert peers.present() == ("bob", "cid") and list(peers) == ["bob", "cid"]
    assert not peers.saw(ready("bob"), 1.0), "said again, as at every reconnect"
    assert not peers.saw(ready("bob", state="sleeping"), 2.0), "asleep is there"
    assert peers.saw(ready("bob", state="disconnected"), 3.0) and peers.present() == ("cid",)
    assert not peers.saw(ready("bob", state="lost"), 4.0) and peers["bob"].presence.state == "lost"
    assert peers.saw(ready("bob"), 5.0)


def test_this_node_itself_is_no_peer() -> None:
    peers = table()
    assert not peers.saw(ready("ann"), 0.0) and peers.present() == ()


def test_a_late_will_of_a_former_life_is_ignored() -> None:
    peers = table("bob")
    assert peers.saw(ready(epoch=2), 1.0), "a new life is news"
    assert not peers.saw(ready(epoch=1, state="lost"), 2.0) and peers.present() == ("bob",)
    assert peers.saw(ready(epoch=2, state="lost"), 3.0) and peers.present() == ()


def test_gone_for_good_counts_whatever_its_epoch_and_the_name_may_begin_again() -> None:
    peers = PeerTable("ann")
    peers.saw(ready(epoch=9), 0.0)
    assert peers.saw(ready(epoch=0, state="gone"), 1.0) and peers.present() == ()
    assert peers.saw(ready(epoch=1), 2.0) and peers.present() == ("bob",), "a device that was wiped counts from 1"


def test_silence_is_loss_and_any_word_is_return() -> None:
    """A broker that lost its state sends no wills; a node that slept on says no new birth."""
    peers = table("bob", "cid")
    assert not peers.heard("bob", 60.0) and not peers.sweep(100.0)
    assert peers.sweep(101.0) and peers.present() == ("bob",)
    assert not peers.sweep(102.0)
    assert peers.heard("cid", 150.0) and peers.present() == ("bob", "cid")
    assert peers.sweep(151.0), "who only looks at sweeps must hear of the return too"
    assert not peers.heard("cid", 152.0) and not peers.sweep(153.0)


def test_a_word_does_not_bring_back_who_said_goodbye() -> None:
    peers = table("bob")
    peers.saw(ready(state="disconnected"), 1.0)
    assert not peers.heard("bob", 2.0) and peers.present() == ()
    assert not peers.heard("unknown", 2.0) and peers.present() == ()


def test_a_clock_that_jumps_a_day_loses_nobody_for_longer_than_to_the_next_word() -> None:
    peers = table("bob", "cid")
    assert peers.sweep(86_400.0) and peers.present() == ()
    for name in ("bob", "cid"):
        assert peers.heard(name, 86_401.0)
    assert peers.present() == ("bob", "cid")


def test_a_birth_after_silence_is_a_return() -> None:
    peers = table("bob")
    peers.sweep(500.0)
    assert peers.saw(ready(), 501.0) and peers.present() == ("bob",) and not peers.sweep(502.0)


@pytest.mark.parametrize("state", ["ready", "lost"])
def test_a_flood_of_invented_names_is_bounded(state: str) -> None:
    peers = table("bob", limit=10)
    for i in range(1000):
        peers.saw(ready(f"ghost{i}", state=state), float(i))
        assert len(list(peers)) <= 10
    assert "bob" in peers.present()
    assert peers.saw(ready("cid"), 2000.0) is (state == "lost"), "the absent make room for who comes"
    assert peers.saw(ready("bob", epoch=2), 2001.0), "who is known is always heard"
