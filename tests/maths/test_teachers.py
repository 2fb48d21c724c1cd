"""Few bytes, the newest word of everybody, and whom to believe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.maths import teachers as lore
from edgeswarm.maths.teachers import Near, Teacher
from edgeswarm.messages import Predictions

N, C = 30, 4
RNG = np.random.default_rng(0)


def softmax(heads: int = 2, sharp: float = 3.0, n: int = N) -> np.ndarray:
    z = np.exp(sharp * np.random.default_rng(7).normal(size=(n, heads, C)))
    return (z / z.sum(axis=2, keepdims=True)).astype(np.float32)


def said(
    p: np.ndarray, rows: Any = None, version: int = 1, epoch: int = 1, encoding: str = "float32", trust: int = 255
) -> Predictions:
    rows = np.arange(len(p), dtype=np.uint32) if rows is None else np.asarray(rows, np.uint32)
    shares, tops = lore.encode(p, encoding)
    held = tops[rows] if tops.size else tops
    return Predictions(7, 1, epoch, version, C, rows, encoding, shares[rows], held, np.full(rows.size, trust, np.uint8))


def teacher(p: np.ndarray, **how: Any) -> Teacher:
    made = lore.joined(None, said(p, **how), len(p), 0.0)
    assert made is not None
    return made


@pytest.mark.parametrize(("encoding", "worst"), [("float32", 1e-6), ("uint8", 0.01), ("top2", 1 / 6 + 0.004)])
def test_what_was_encoded_is_nearly_what_is_decoded(encoding: str, worst: float) -> None:
    p = softmax()
    shares, tops = lore.encode(p, encoding)
    q = lore.decode(shares, tops, encoding, C)
    assert np.abs(q - p).max() < worst
    assert np.allclose(q.sum(axis=2), 1, atol=1e-6)
    assert (q.argmax(axis=2) == p.argmax(axis=2)).all()


def test_top2_spreads_the_rest_evenly_and_two_classes_lose_nothing() -> None:
    p = np.array([[[0.5, 0.1, 0.3, 0.1]]], np.float32)
    shares, tops = lore.encode(p, "top2")
    assert tops.tolist() == [[[0, 2]]]
    assert lore.decode(shares, tops, "top2", C)[0, 0] == pytest.approx([0.5, 0.1, 0.3, 0.1], abs=0.005)
    two = np.array([[[0.25, 0.75]]], np.float32)
    assert lore.decode(*lore.encode(two, "top2"), "top2", 2)[0, 0] == pytest.approx([0.25, 0.75], abs=0.005)
    silent = np.zeros((1, 1, 2), np.uint8)
    assert lore.decode(silent, np.array([[[0, 1]]], np.uint8), "top2", 2).tolist() == [[[0.5, 0.5]]]


def test_a_byte_tells_apart_those_who_are_nearly_certain() -> None:
    """Steps of 1/255 would make one of all that is surer than 0.998, and of the surest teacher anybody."""
    assert (np.diff(lore.SHARES) > 0).all() and lore.SHARES[0] == 0 and lore.SHARES[-1] == 1
    assert np.diff(lore.SHARES).max() < 0.0082, "half of that is the largest error"
    sure = np.array([0.5, 0.9, 0.99, 0.998, 0.999, 0.9995, 0.9999, 0.99999], np.float32)
    p = np.stack([sure, 1 - sure], axis=1)[:, None]
    shares, tops = lore.encode(p, "top2")
    assert (np.diff(shares[:, 0, 0].astype(int)) > 0).all()
    assert np.allclose(lore.decode(shares, tops, "top2", 2), p, atol=0.003)
    found = teacher(p, encoding="top2").confidence(1)[:, 0]
    assert (np.diff(found) > 0).all() and np.allclose(1 - found, 1 - sure, rtol=0.1)


def test_words_may_come_in_any_order_and_twice() -> None:
    rng = np.random.default_rng(2)
    words = [said(softmax(sharp=float(v + 1)), np.sort(rng.permutation(N)[:12]),
                  version=v, epoch=1 + v // 4) for v in range(1, 8)]  # fmt: skip
    ends = []
    for _ in range(6):
        known: Teacher | None = None
        for at in rng.permutation(np.repeat(np.arange(len(words)), 2)):
            known = lore.joined(known, words[at], N, 5.0)
        assert known is not None
        ends.append(known)
    for other in ends[1:]:
        for name in Teacher.__slots__:
            assert np.array_equal(getattr(ends[0], name), getattr(other, name)), name
    newest = [max((w.version for w in words if w.epoch == 2 and row in w.rows), default=-1) for row in range(N)]
    assert ends[0].versions.tolist() == newest
    assert lore.joined(ends[0], words[-1], N, 9.0) is ends[0]


def test_a_word_counts_by_confidence_trust_and_age() -> None:
    p = np.full((N, 1, C), 0.02, np.float32)
    p[:, :, 1] = 0.94
    one = replace(teacher(p, trust=128), made_at=np.zeros(N))
    assert lore.sureness(one, 1, 0.0)[0, 0] == pytest.approx(0.94 * 128 / 255, abs=1e-4)
    assert lore.sureness(one, 1, 0.0, ceiling=0.5)[0, 0] == pytest.approx(0.5 * 128 / 255, abs=1e-4)
    assert lore.sureness(one, 1, 20.0, half_life_s=10.0)[0, 0] == pytest.approx(0.94 * 128 / 255 / 4, abs=1e-4)
    assert not lore.sureness(one, 1, 20.0, forget_s=10.0).any()
    assert not lore.sureness(one, 2, 0.0)[:, 1].any()  # it speaks of one head alone


def test_order_of_candidates_changes_nothing_even_when_they_tie() -> None:
    rng = np.random.default_rng(3)
    names = ["ann", "bob", "cid", "dan"]
    sure = rng.choice([0.0, 0.5, 0.99], (4, N, 2)).astype(np.float32)
    base = lore.chosen(names, sure, 9)
    said_by = np.where(base >= 0, np.array([*names, ""])[base], "")
    for _ in range(5):
        order = rng.permutation(4)
        again = lore.chosen([names[at] for at in order], sure[order], 9)
        assert (np.where(again >= 0, np.array([*[names[at] for at in order], ""])[again], "") == said_by).all()


def test_the_surest_teaches_and_nobody_more_than_his_share() -> None:
    sure = np.zeros((3, N, 1), np.float32)
    sure[0, :, 0] = 0.9
    sure[1, :, 0] = np.linspace(0.1, 0.8, N)
    sure[2, :5, 0] = 0.95
    free = lore.chosen(["a", "b", "c"], sure, N)[:, 0]
    assert (free[:5] == 2).all()
    assert (free[5:] == 0).all()
    capped = lore.chosen(["a", "b", "c"], sure, 10)[:, 0]
    assert np.bincount(capped[capped >= 0], minlength=3)[0] == 10
    assert (capped[5:15] == 0).all()  # where the next is least sure
    assert (capped[-5:] == 1).all()
    assert (lore.chosen(["a", "b", "c"], sure, 0)[:, 0] == -1).all()
    assert (lore.chosen([], sure[:0], 5) == -1).all()


@pytest.mark.parametrize("part", [0.6, 1.0, 1.2])
def test_nobody_teaches_more_than_his_share_however_rows_move_on(part: float) -> None:
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rows, count = int(rng.integers(10, 60)), int(rng.integers(3, 9))
        sure = np.round(rng.random((count, rows, 1)) * rng.random((count, 1, 1)), 2).astype(np.float32)
        limit = int(np.ceil(rows * part / count))
        source = lore.chosen([f"n{at}" for at in range(count)], sure, limit)
        assert np.bincount(source[source >= 0], minlength=count).max() <= limit, seed


def test_what_is_of_no_use_takes_no_memory() -> None:
    one = np.full((1, 32, C), 0.25, np.float32)
    large = replace(said(one), embedding=np.ones((1, 4096), np.int8))
    kept = lore.joined(None, lore.cut(large, 2, 8), 6000, 0.0)
    assert kept is not None and kept.shares.shape == (6000, 2, C) and not kept.embedding.size
    fits = lore.cut(replace(large, embedding=np.ones((1, 8), np.int8)), 2, 8)
    assert fits.embedding.shape == (1, 8) and not lore.cut(fits, 2, 0).embedding.size
    top2 = lore.cut(said(softmax(heads=3), encoding="top2"), 1, 0)
    assert top2.shares.shape == top2.tops.shape == (N, 1, 2)
    nothing = np.zeros((0, 3, 2), np.uint8)
    silent = lore.cut(replace(top2, rows=top2.rows[:0], shares=nothing, tops=nothing, trust=top2.trust[:0]), 1, 0)
    assert silent.shares.shape == silent.tops.shape == (0, 1, 2) and lore.joined(None, silent, N, 0.0) is None


def test_claims_are_the_likeliest_class_in_any_encoding() -> None:
    p = softmax()
    for encoding in ("float32", "uint8", "top2"):
        found = teacher(p, encoding=encoding).claims(3)
        assert (found[:, :2] == p.argmax(axis=2)).all() and (found[:, 2] == -1).all()


def test_a_head_learns_from_the_head_below_it_alone() -> None:
    p = np.zeros((N, 3, C), np.float32)
    for head in range(3):
        p[:, head, head] = 1.0
    rows = np.arange(0, N, 2)
    source = np.zeros((rows.size, 3), np.int16)
    source[1] = -1
    got = lore.targets([teacher(p)], source, rows)
    for head in range(3):
        assert (np.delete(got, 1, axis=0)[:, head].argmax(axis=1) == head).all()
    assert not got[1].any()


def test_mean_and_random_use_those_who_spoke() -> None:
    one, two = np.zeros((N, 1, C), np.float32), np.zeros((N, 1, C), np.float32)
    one[..., 0], two[..., 1] = 1.0, 1.0
    speakers = [teacher(one), teacher(two, rows=np.arange(10))]
    sure = np.stack([lore.sureness(each, 1, 0.0) for each in speakers])
    rows = np.arange(N)
    mean = lore.averaged(speakers, sure, rows)
    assert mean[3, 0].tolist() == [0.5, 0.5, 0, 0]
    assert mean[20, 0].tolist() == [1, 0, 0, 0]
    drawn = lore.drawn(sure, rows, np.random.default_rng(0))[:, 0]
    assert set(drawn[:10]) == {0, 1}
    assert set(drawn[10:]) == {0}


def blobs(seed: int, classes: tuple[int, ...], n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, n)
    centres = 6.0 * np.eye(C, 8, dtype=np.float32)
    return (centres[y] + rng.normal(0, 0.5, (n, 8))).astype(np.float32), y


def test_near_knows_what_was_seen() -> None:
    public, truth = blobs(1, (0, 1, 2, 3))
    own, y = blobs(2, (0, 1))
    near = Near.nothing(len(public)).seen(public, own, y)
    parts = Near.nothing(len(public)).seen(public, own[:70], y[:70]).seen(public, own[70:], y[70:])
    assert np.allclose(near.squares, parts.squares, atol=1e-4)
    assert near.total == pytest.approx(parts.total, rel=1e-6)
    brute = ((public[:, None] - own[None]) ** 2).sum(axis=2)
    assert np.allclose(near.squares, brute.min(axis=1), atol=1e-3)
    trust = near.trust(1.0)
    assert trust[truth <= 1].mean() > 180
    assert trust[truth >= 2].max() == 0
    known = near.verified()
    assert known.size >= lore.VERIFIED_LEAST
    assert (near.labels[known] == truth[known]).all()
    assert (Near.nothing(5).trust(1.0) == 0).all()
    assert (Near.nothing(5).trust(0.0) == 255).all()


def test_a_liar_is_found_and_an_honest_stranger_is_not() -> None:
    public, truth = blobs(1, (0, 1, 2, 3))
    own, y = blobs(2, (0, 1))
    near = Near.nothing(len(public)).seen(public, own, y)
    mine = np.full((len(public), 1, C), 0.01, np.float32)
    mine[np.arange(len(public)), 0, np.minimum(truth, 1)] = 0.97
    own_sure = lore.sureness(teacher(mine), 1, 0.0, 0.99)
    lies = np.eye(C, dtype=np.float32)[(truth + 1) % C][:, None]
    stranger = np.full((len(public), 1, C), 0.1, np.float32)  # knows 2 and 3, and takes the others for 2, less surely
    stranger[np.arange(len(public)), 0, np.maximum(truth, 2)] = np.where(truth >= 2, 0.97, 0.7)

    def believed(p: np.ndarray) -> float:
        one = teacher(p)
        return float(lore.tested(one, lore.sureness(one, 1, 0.0, 0.99), own_sure, near)[0])

    assert believed(lies) < 0.05
    assert believed(stranger) == 1.0
    assert believed(mine) == 1.0
    nothing = Near.nothing(len(public))
    one = teacher(lies)
    assert lore.tested(one, lore.sureness(one, 1, 0.0), own_sure, nothing).tolist() == [1.0]


def test_floors_are_never_below_what_is_known() -> None:
    sure = np.random.default_rng(4).random((3, N, 2)).astype(np.float32)
    floors = lore.floors(sure)
    best = sure.max(axis=0).min(axis=1)
    assert (floors / 255 >= best - 1e-6).all()
    assert (floors / 255 <= best + 1 / 15 + 1e-6).all()
    assert (floors % lore.LEVELS == 0).all()
    assert not lore.floors(sure[:0]).any()


def test_a_checkpoint_of_another_set_is_refused() -> None:
    one = teacher(softmax(), encoding="top2")
    again = Teacher.load(one.dump(), N, C)
    assert all(np.array_equal(getattr(one, name), getattr(again, name)) for name in Teacher.__slots__)
    for rows, classes in ((N + 1, C), (N, C + 1)):
        with pytest.raises(ValueError, match="another public set"):
            Teacher.load(one.dump(), rows, classes)
