"""What a presence on a node's own topic means, case by case."""

from __future__ import annotations

import pytest

from edgeswarm.messages import Presence
from edgeswarm.transport.presence import DUPLICATE, EARLIER_LIFE, ECHO, OVERWRITTEN, judge

OURS = Presence("a", "ready", 5, "mine")


@pytest.mark.parametrize(
    ("state", "epoch", "retained", "said_before", "waited_out", "verdict"),
    [
        ("ready", 9, True, False, False, EARLIER_LIFE),
        ("ready", 9, True, True, False, DUPLICATE),
        ("ready", 9, True, True, True, DUPLICATE),
        ("ready", 4, True, False, False, ECHO),
        # a namesake that said goodbye has left, and must not keep the rightful node out
        ("disconnected", 9, True, True, False, EARLIER_LIFE),
        ("disconnected", 9, False, True, False, EARLIER_LIFE),
        ("disconnected", 4, False, True, False, OVERWRITTEN),
        # one that is lost may have been thrown off by us: step back once, and only once
        ("lost", 9, True, True, False, DUPLICATE),
        ("lost", 9, True, True, True, EARLIER_LIFE),
        ("lost", 9, False, True, False, OVERWRITTEN),
    ],
)
def test_another_process_under_our_name(
    state: str, epoch: int, retained: bool, said_before: bool, waited_out: bool, verdict: str
) -> None:
    assert judge(OURS, Presence("a", state, epoch, "other"), retained, said_before, waited_out) == verdict
