"""Whom to believe where sources contradict one another: those who know the class bear it out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeswarm.maths.corroboration import ALONE, BACKED, corroborated


def test_a_class_that_others_know_is_not_taken_from_one_voice() -> None:
    """Rows 0 to 9 are of class 0, which a alone knows; b and c know class 1 of rows 10 to 19; d says all is 1."""
    claims = np.ones((4, 20, 1), np.int16)
    claims[0] = 0
    sure = np.full((4, 20, 1), 0.1, np.float32)
    sure[0, :10], sure[1:3, 10:] = 0.8, 0.9
    sure[3, :10] = 0.99

    def counts() -> Any:
        return (sure * corroborated(claims, sure, 2))[:, :, 0]

    assert np.allclose(counts()[0, :10], 0.8)
    assert (counts()[3] == 0).all(), "b and c hardly take these rows for 1, nor d what they are sure of"
    assert (counts()[:3, 10:] == sure[:3, 10:, 0]).all(), "there nobody contradicts"
    sure[1:3, :10] = 0.3  # those who know class 1 take these rows for it, but hardly: the usual confusion of strangers
    assert (counts().argmax(axis=0)[:10] == 0).all(), "and whoever knows class 0 is believed"
    assert np.allclose(counts()[3, :10], BACKED * 0.3)
    sure[1, :10] = 0.9
    assert (counts()[:, :10] == sure[:, :10, 0]).all(), "another who knows the class is as sure"
    assert (counts().argmax(axis=0)[:10] == 3).all()


def worlds(*claimed: tuple[int, int, int, float], sources: int) -> tuple[Any, Any]:
    """Claims and sureness (sources, 40, 1) from (source, ten of the rows, class, how surely); else hardly class 3."""
    claims, sure = np.full((sources, 40, 1), 3, np.int16), np.full((sources, 40, 1), 0.05, np.float32)
    for source, ten, label, p in claimed:
        claims[source, 10 * ten : 10 * ten + 10], sure[source, 10 * ten : 10 * ten + 10] = label, p
    return claims, sure


def winners(claims: Any, sure: Any, ten: int) -> set[int]:
    """Classes that the surest names in those ten rows, where all is counted."""
    counted = (sure * corroborated(claims, sure, 4))[:, :, 0]
    best = counted.argmax(axis=0)[10 * ten : 10 * ten + 10]
    return {int(label) for label in claims[best, np.arange(10 * ten, 10 * ten + 10), 0]}


def test_who_is_sure_of_a_class_where_others_know_better_silences_nobody() -> None:
    """0 alone knows class 0; 1, 2 and 4 know class 1, 3 knows class 2. 4 says 1 of the rows of class 0, and of those
    of class 2, less surely than 3, that they are 0: so it is no judge of class 0."""
    honest = ((0, 0, 0, 0.8), (1, 1, 1, 0.9), (2, 1, 1, 0.9), (3, 2, 2, 0.9), (1, 0, 1, 0.3), (2, 0, 1, 0.3))
    for truthful in (0.05, 0.99):
        claims, sure = worlds(*honest, (4, 0, 1, 0.99), (4, 1, 1, truthful), (4, 2, 0, 0.85), sources=5)
        assert winners(claims, sure, 0) == {0} and winners(claims, sure, 1) == {1} and winners(claims, sure, 2) == {2}


def test_who_takes_for_a_class_what_none_of_those_who_know_it_does_is_not_heard_on_it() -> None:
    """0 alone knows class 0, 1 and 2 know class 1; 3 changes the two."""
    honest = ((0, 0, 0, 0.8), (1, 1, 1, 0.9), (2, 1, 1, 0.9), (1, 0, 1, 0.3), (2, 0, 1, 0.2))
    claims, sure = worlds(*honest, (3, 0, 1, 0.99), (3, 1, 0, 0.99), sources=4)
    assert winners(claims, sure, 0) == {0} and winners(claims, sure, 1) == {1}
    counts = corroborated(claims, sure, 4)[:, :, 0]
    assert (counts[3, :10] == 0).all() and (counts[1:3, 10:20] == 1).all()


def test_one_against_one_leaves_half() -> None:
    """0 alone knows class 0, 1 alone class 1; 2 says 1 of the rows of class 0, and knows class 0 no better."""
    claims, sure = worlds((0, 0, 0, 0.8), (1, 1, 1, 0.9), (2, 0, 1, 0.99), sources=3)
    counts = corroborated(claims, sure, 4)[:, :, 0]
    assert np.allclose(counts[2, :10], ALONE) and (counts[:2, :20] == 1).all()
    assert winners(claims, sure, 0) == {0}


def test_two_leave_each_other_half_whatever_one_says() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        claims = rng.integers(0, 3, (2, 60, 1)).astype(np.int16)
        claims[1] = np.where(rng.random((60, 1)) < rng.random(), claims[0], claims[1])
        sure = (rng.random((2, 60, 1)) ** rng.random((2, 1, 1))).astype(np.float32)
        assert corroborated(claims, sure, 3).min() >= ALONE - 1e-6, seed


def test_one_voice_cannot_raise_another_nor_itself() -> None:
    """However sure one source is, a contested claim of a class that others know counts as the others let it."""
    rng = np.random.default_rng(5)
    claims = rng.integers(0, 3, (5, 60, 2)).astype(np.int16)
    sure = rng.random((5, 60, 2)).astype(np.float32)
    claims[1:3, :20], sure[1:3, :20] = 1, 0.9  # so that class 1 is known by two others
    claims[0, 20:], claims[1, 20:] = 1, 0
    sure[1, 20:] = 0.4
    for loud in (0.6, 0.8, 0.99):
        sure[0] = loud
        counted = sure * corroborated(claims, sure, 3)
        assert ((counted >= 0) & (counted <= sure)).all()
        honest = np.where(claims[1:] == 1, sure[1:], 0).max(axis=0)
        assert (counted[0, 20:] <= BACKED * honest[20:] + 1e-6).all(), loud
    again = corroborated(claims[::-1], sure[::-1], 3)[::-1]
    assert np.array_equal(again, corroborated(claims, sure, 3)), "the order of sources changes nothing"
