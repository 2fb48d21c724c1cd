from __future__ import annotations

import numpy as np
import pytest
from replica_world import NAMES, D, Speaker, holds, join, joined

from edgeswarm.maths import publication as module
from edgeswarm.maths.ilvq import Ilvq
from edgeswarm.maths.publication import Publication
from edgeswarm.maths.quantise import pack, unpack
from edgeswarm.maths.summaries import ClassSummaries, table_of
from edgeswarm.messages import SNAPSHOT, Array, Prototypes

ONES: Array = np.ones(D, np.float32)
NONE = np.zeros(0, np.uint32)
NO_ROWS: Array = np.zeros((0, D), np.float32)


def set_of(*rows: tuple[float, float]) -> Ilvq:
    points = Ilvq(D)
    for x in rows:
        points.insert(x, 0, 1.0)
    return points


def told(points: Ilvq, said: Publication | None = None, rows: list[int] | None = None) -> Publication:
    at = np.arange(len(points)) if rows is None else np.array(rows)
    x = points.vectors[at].astype(np.float32)
    return (said or Publication()).told(points.ids[at], x, points.labels[at], points.counts[at], NONE)


# ---- what is news ----------------------------------------------------------------------------------------------------


def test_all_is_news_to_those_who_know_nothing() -> None:
    assert Publication().news(set_of((0, 0), (1, 1)), ONES, 0.1, 1.5).changed.tolist() == [0, 1]


def test_news_by_hand() -> None:
    """Told three. One stays; one moves by 0.2 in a feature of deviation 2 (0.1 of it); one stands for more; one comes;
    a fifth goes."""
    points = set_of((0, 0), (10, 0), (20, 0), (30, 0))
    said = told(points)
    metric = np.array([1.0, 0.5], np.float32)
    later = points.copy()
    later._vectors[1, 1] += 0.2
    later._counts[2] = 2.0
    later.insert((5, 5), 0, 1.0)
    later.remove([3])
    news = said.news(later, metric, 0.09, 1.5)
    assert news.changed.tolist() == [1, 2, 3] and news.removed.tolist() == [3]
    assert said.news(later, metric, 0.11, 2.5).changed.tolist() == [3]
    assert not said.news(points, metric, 0.0, 1.0)


def test_news_of_an_empty_set_is_removals() -> None:
    points = set_of((0, 0), (1, 1))
    said = told(points)
    points.remove([0, 1])
    news = said.news(points, ONES, 0.1, 1.5)
    assert news.changed.size == 0 and news.removed.tolist() == [0, 1] and news


# ---- what was told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_since_gives_every_version_what_it_misses(seed: int) -> None:
    speaker = Speaker(seed)
    replicas = [joined([])]
    for _ in range(12):
        message = speaker.speak()
        replicas.append(join(replicas[-1], message))
    for version, replica in enumerate(replicas[1:-1], 1):
        answer = speaker.answer(1, version)
        assert answer.base == version
        assert holds(join(replica, answer), speaker.said)


def test_the_future_and_other_lives_get_a_snapshot() -> None:
    speaker = Speaker(0)
    for _ in range(3):
        speaker.speak()
    assert speaker.said.since(4) is None and speaker.said.since(-1) is None
    assert not speaker.said.since(3)
    speaker.restart()
    assert speaker.said.since(3) is None, "nobody is believed to have heard the former life"
    assert speaker.answer(1, 3).base == SNAPSHOT


def test_removals_are_remembered_up_to_a_limit_and_who_missed_more_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMOVAL_LIMIT", 6)
    speaker = Speaker(5)
    replicas = []
    for _ in range(25):
        speaker.speak()
        replicas.append(speaker.answer(0, SNAPSHOT))
    said = speaker.said
    assert len(said.removed) <= 6 and 1 < said.complete_from < said.version
    assert said.since(said.complete_from - 1) is None and said.since(said.complete_from) is not None
    for snapshot in replicas[:-1]:
        assert holds(join(joined([snapshot]), speaker.answer(1, snapshot.version)), said)


def test_a_snapshot_starts_from_nothing_and_counts_on() -> None:
    speaker = Speaker(2)
    for _ in range(5):
        speaker.speak()
    whole = speaker.speak(whole=True)
    assert whole.version == 6 == speaker.said.version and not speaker.said.removed
    assert speaker.said.since(5) is None and not speaker.said.since(6)
    assert set(speaker.said.changed_at.tolist()) == {6}


def test_dump_and_load() -> None:
    speaker = Speaker(3)
    for _ in range(6):
        speaker.speak()
    again = Publication.load(speaker.said.dump())
    for version in range(-1, 8):
        mine, theirs = speaker.said.since(version), again.since(version)
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert mine.changed.tolist() == theirs.changed.tolist() and mine.removed.tolist() == theirs.removed.tolist()
    assert again.summarised_at.tolist() == speaker.said.summarised_at.tolist()
    with pytest.raises(ValueError, match="different lengths"):
        Publication.load({**speaker.said.dump(), "labels": np.zeros(99, np.int32)})


# ---- class summaries in messages -------------------------------------------------------------------------------------


def summaries_of(*samples: tuple[int, float]) -> ClassSummaries:
    out = ClassSummaries((10.0, 100.0))
    for label, x in samples:
        out.add(np.array([x, 1000.0 + x], np.float32), label)
    return out


def spoken(message: Prototypes) -> dict[str, list[float]]:
    """Class name -> mean of its slow summary, as a receiver reads it."""
    table = table_of(
        message.summary,
        range(len(message.classes)),
        len(message.classes),
        np.where(message.vectors.scale > 0, message.vectors.scale, 1.0).astype(np.float32),
        message.vectors.offset,
    )
    return {name: table.mean[1, i].tolist() for i, name in enumerate(message.classes) if table.weight[1, i] > 0}


def test_only_classes_with_samples_since_then_are_spoken_of() -> None:
    said = told(set_of((0, 1000)))
    first = summaries_of((0, 1.0), (1, 2.0))
    said = said.told(NONE, NO_ROWS, np.zeros(0, np.int32), np.zeros(0, np.float32), NONE, first)
    second = first.copy()
    second.add(np.array([5.0, 1005.0], np.float32), 1)
    second.add(np.array([7.0, 1007.0], np.float32), 2)
    said = said.told(NONE, NO_ROWS, np.zeros(0, np.int32), np.zeros(0, np.float32), NONE, second)
    assert said.summarised_at.tolist() == [2, 3, 3]

    def message(base: int) -> Prototypes:
        rows = np.zeros(0, np.intp)
        return said.message(base, rows, NONE, pack(np.zeros((0, D)), "int8"), NAMES, schema=7, epoch=1)

    assert message(2).classes == ("b", "c") and message(1).classes == ("a", "b", "c")


def test_a_message_without_vectors_brings_a_scale_in_which_summaries_are_exact_enough() -> None:
    """Raw float16 has steps of 0.5 at 1000, as large as what is to be told."""
    said = Publication().told(
        NONE,
        NO_ROWS,
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        NONE,
        summaries_of((0, 0.25)),
    )
    message = said.message(0, np.zeros(0, np.intp), NONE, pack(np.zeros((0, D)), "int8"), NAMES, schema=7, epoch=1)
    np.testing.assert_allclose(spoken(message)["a"], [0.25, 1000.25], atol=1e-3)


@pytest.mark.parametrize(("offset", "travels"), [(0.0, True), (1000.0, False)])
def test_with_float_vectors_summaries_travel_only_if_raw_float16_holds_them(offset: float, travels: bool) -> None:
    points = set_of((0, offset), (1, offset + 1))
    summaries = ClassSummaries((10.0, 100.0))
    rng = np.random.default_rng(0)
    for _ in range(50):
        summaries.add((rng.normal(size=D) + np.array([0.0, offset])).astype(np.float32), 0)
    packed = pack(points.vectors.astype(np.float32), "float32")
    said = Publication().told(points.ids, unpack(packed), points.labels, points.counts, NONE, summaries)
    message = said.message(SNAPSHOT, np.arange(2), NONE, packed, NAMES, schema=7, epoch=1)
    assert bool(message.summary.size) is travels
    if travels:
        np.testing.assert_allclose(spoken(message)["a"], summaries.mean[1, 0], atol=2e-3)
