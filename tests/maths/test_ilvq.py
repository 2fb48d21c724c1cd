"""The learner against a slow literal reading of the note, hand-worked examples and the paper's data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeswarm.maths.ilvq import CLEAN, PAPER, Ilvq, Rules
from tests.data_sets import dealt, f1, shared


class Literal:
    """Sections 2.1 to 2.4 of the note word by word: dictionaries, loops, nothing clever. The definition for `Ilvq`."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.x: dict[int, np.ndarray] = {}
        self.y: dict[int, int] = {}
        self.m: dict[int, float] = {}
        self.edges: dict[frozenset[int], int] = {}
        self.known: set[int] = set()
        self.epoch = 0
        self.made = 0
        self.rates = rules.first_rates

    def insert(self, x: np.ndarray, y: int, weight: float) -> None:
        self.x[self.made], self.y[self.made], self.m[self.made] = x.copy(), y, self.rules.first_count * weight
        self.known.add(y)
        self.made += 1

    def near(self, p: int) -> list[int]:
        return [q for q in self.x if frozenset((p, q)) in self.edges and q != p]

    def threshold(self, p: int) -> float:
        w = [math.dist(self.x[p], self.x[q]) for q in self.near(p) if self.y[q] == self.y[p]]
        b = sorted(math.dist(self.x[p], self.x[q]) for q in self.near(p) if self.y[q] != self.y[p])
        if not w and not b:
            return math.inf
        if not b:
            return max(w)
        if not w:
            return min(b)
        for value in b:
            if value > sum(w) / len(w):
                return value
        return max(b)

    def learn(self, x: np.ndarray, y: int, weight: float = 1.0) -> None:
        self.epoch += 1
        if len(self.x) <= 2:
            self.insert(x, y, weight)
            return
        order = sorted(self.x, key=lambda p: math.dist(x, self.x[p]))
        s1, s2 = order[:2]
        known = set(self.y.values()) if self.rules.live_classes else self.known
        far = [math.dist(x, self.x[s]) > self.threshold(s) for s in (s1, s2)]
        if y not in known or any(far):
            self.insert(x, y, weight)
            return
        self.edges.setdefault(frozenset((s1, s2)), 0)
        for edge in self.edges:
            if s1 in edge:
                self.edges[edge] += 1
        self.m[s1] += weight
        rate = max(1 / self.m[s1], self.rules.rate_floor)
        own = (rate, rate * self.rules.neighbour_share)
        a_w, a_n = own if self.rules.rates == "own" else self.rates
        self.rates = own
        if self.y[s1] == y:
            self.x[s1] = self.x[s1] + a_w * (x - self.x[s1])
            for q in self.near(s1):
                if self.y[q] != y:
                    self.x[q] = self.x[q] - a_n * (x - self.x[q])
        else:
            self.x[s1] = self.x[s1] - a_w * (x - self.x[s1])
            for q in self.near(s1):
                if self.y[q] == y:
                    self.x[q] = self.x[q] + a_n * (x - self.x[q])
        self.edges = {edge: age for edge, age in self.edges.items() if age <= self.rules.age_old}
        if self.epoch % self.rules.gamma == 0:
            self.denoise()

    def denoise(self) -> None:
        if self.rules.denoise == "published":
            limit = sum(self.m.values()) / (2 * len(self.x))
            gone = [p for p in self.x if len(self.near(p)) == 0 or (len(self.near(p)) == 1 and self.m[p] < limit)]
            for p in gone:
                self.drop(p)
        elif self.rules.denoise == "coded":
            for p in [p for p in self.x if len(self.near(p)) < 2]:
                if len(self.near(p)) == 0 or self.m[p] < len(self.x) / 2 * sum(self.m.values()):
                    self.drop(p)

    def drop(self, p: int) -> None:
        del self.x[p], self.y[p], self.m[p]
        self.edges = {edge: age for edge, age in self.edges.items() if p not in edge}


def same(fast: Ilvq, slow: Literal) -> None:
    ids = list(slow.x)
    assert fast.ids.tolist() == ids
    assert fast.labels.tolist() == list(slow.y.values())
    assert fast.counts.tolist() == list(slow.m.values())
    assert fast.epoch == slow.epoch
    if ids:
        np.testing.assert_allclose(fast.vectors, np.array(list(slow.x.values())), rtol=1e-9, atol=1e-9)
    pairs, ages = fast.links()
    got = {frozenset((ids[a], ids[b])): age for (a, b), age in zip(pairs.tolist(), ages.tolist(), strict=True)}
    assert got == slow.edges
    assert fast.classes == tuple(sorted(set(slow.y.values())))
    for position, p in enumerate(ids):
        assert fast.threshold(position) == pytest.approx(slow.threshold(p), rel=1e-9)


def blobs(seed: int, rows: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes whose centres wander: every branch of the algorithm is taken."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, d))
    y = rng.integers(0, classes, rows)
    drift = np.linspace(0, 2, rows)[:, None] * rng.normal(size=d)
    return centres[y] + drift + 0.6 * rng.normal(size=(rows, d)), y


RULES = {
    "paper": PAPER,
    "clean": CLEAN,
    "paper, brisk": replace(PAPER, gamma=17, age_old=6),
    "clean, brisk": replace(CLEAN, gamma=17, age_old=6, rate_floor=0.2),
    "own rates from 0": replace(PAPER, rates="own"),
    "no denoise": replace(CLEAN, denoise="off"),
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("seed, d, classes", [(0, 2, 2), (1, 5, 4), (2, 1, 3), (3, 8, 2)])
def test_equals_the_literal_reading_step_by_step(rules: Rules, seed: int, d: int, classes: int):
    fast, slow = Ilvq(d, rules), Literal(rules)
    inserted = removed = 0
    for i, (x, y) in enumerate(zip(*blobs(seed, 500, d, classes), strict=True)):
        before = len(fast)
        outcome = fast.learn(x, int(y))
        slow.learn(x, int(y))
        inserted += outcome.inserted
        removed += outcome.removed
        assert len(fast) == before + outcome.inserted - outcome.removed
        if i % 10 == 9 or outcome.removed:
            same(fast, slow)
    same(fast, slow)
    assert 3 < inserted < 500
    if rules.gamma == 17:
        assert removed > 0


@pytest.mark.parametrize("rules", [PAPER, CLEAN], ids=["paper", "clean"])
def test_a_set_past_its_first_capacity_still_equals_the_literal_reading(rules: Rules):
    rng = np.random.default_rng(5)
    fast, slow = Ilvq(3, rules), Literal(rules)
    for _ in range(400):
        x, y = rng.normal(size=3), int(rng.integers(0, 6))
        fast.learn(x, y)
        slow.learn(x, y)
    assert fast.size > 64
    same(fast, slow)


# ---- unit facts (spec 8.4, item 3) ----------------------------------------------------------------------------------


def test_the_first_three_samples_become_prototypes_as_they_are():
    learner = Ilvq(2, PAPER)
    rows = [[0.0, 0.0], [0.0, 0.0], [5.0, 1.0]]
    for row in rows:
        assert learner.learn(row, 0).inserted
    assert learner.vectors.tolist() == rows
    assert learner.counts.tolist() == [0, 0, 0]
    assert learner.links()[0].tolist() == []
    assert not learner.learn([5.0, 1.0], 0).inserted


def test_counts_start_at_one_in_clean_mode():
    learner = Ilvq(1, CLEAN)
    learner.learn_many([[0.0], [1.0], [2.0]], [0, 0, 1])
    assert learner.counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize("rules", [PAPER, CLEAN], ids=["paper", "clean"])
def test_a_sample_of_an_unseen_class_is_always_inserted(rules: Rules):
    learner = Ilvq(1, rules)
    learner.learn_many([[0.0], [1.0], [2.0], [1.1], [1.05]], [0, 0, 0, 0, 0])
    outcome = learner.learn([1.05], 7)
    assert outcome.inserted
    assert learner.labels[-1] == 7
    assert learner.ids[-1] == outcome.id


def test_a_class_that_lost_its_prototypes_is_known_in_paper_mode_only():
    for rules, expected in ((PAPER, False), (CLEAN, True)):
        learner = Ilvq(1, rules)
        for i, label in enumerate([0, 0, 0, 1]):
            learner.insert([float(i)], label, 1)
        learner.remove([3])
        assert learner.classes == (0,)
        assert learner.learn([1.2], 1).inserted is expected


def linked(points: list[float], labels: list[int]) -> Ilvq:
    """Prototypes on a line, the first linked to all others."""
    learner = Ilvq(1)
    for x, label in zip(points, labels, strict=True):
        learner.insert([x], label, 1)
    pairs = np.array([[0, other] for other in range(1, len(points))], np.int32).reshape(-1, 2)
    return Ilvq.load({**learner.dump(), "links": pairs, "ages": np.zeros(len(pairs), np.int16)})


@pytest.mark.parametrize(
    "points, labels, expected",
    [
        ([0.0], [0], math.inf),  # isolated
        ([0.0, 1.0, 3.0], [0, 0, 0], 3.0),  # same class only: the farthest
        ([0.0, 2.0, 3.0], [0, 1, 1], 2.0),  # other class only: the nearest
        ([0.0, 1.0, 3.0, 1.5, 2.5, 4.0], [0, 0, 0, 1, 1, 1], 2.5),  # both: nearest rival beyond the mean, 2
        ([0.0, 1.0, 3.0, 1.5, 2.0], [0, 0, 0, 1, 1], 2.0),  # both, no rival beyond 2 (2.0 is not): farthest rival
    ],
)
def test_the_threshold_has_four_cases(points: list[float], labels: list[int], expected: float):
    assert linked(points, labels).threshold(0) == expected


def test_a_win_by_hand():
    """Prototypes 0 and 4 of class 0 and 1 of class 1. The sample 3, class 0, is won by 4 with runner-up 1.

    Clean: count 2, rate 1/2, so 4 moves to 3.5; the new neighbour 1 is a rival and moves away from 3 by 1/200 of 2.
    """
    learner = Ilvq(1, CLEAN)
    learner.learn_many([[0.0], [4.0], [1.0]], [0, 0, 1])
    assert learner.learn([3.0], 0) == (False, 1, 0)
    assert learner.vectors.ravel().tolist() == [0.0, 3.5, 1 - 0.005 * 2]
    assert learner.counts.tolist() == [1, 2, 1]
    pairs, ages = learner.links()
    assert pairs.tolist() == [[1, 2]]
    assert ages.tolist() == [1]
    assert learner.touched.tolist() == [1, 4, 4]


def test_paper_mode_moves_each_winner_with_the_previous_winners_rate():
    """First ever 0.9; then 1/M of whoever won last, so a prototype's second win may have rate 1."""
    learner = Ilvq(1, PAPER)
    learner.learn_many([[0.0], [10.0], [20.0]], [0, 0, 0])
    assert learner.rates == (0.9, 0.1)
    learner.learn([1.0], 0)
    assert learner.vectors[0, 0] == pytest.approx(0.9)
    assert learner.rates == (1.0, 0.01)
    learner.learn([1.4], 0)
    assert learner.vectors[0, 0] == pytest.approx(1.4)
    assert learner.rates == (0.5, 0.005)


def test_coded_denoise_takes_all_with_one_edge_and_published_only_the_weak():
    points, labels = [0.0, 1.0, 2.0, 9.0], [0, 0, 0, 0]
    for denoise, kept in (("coded", [0]), ("published", [0, 1]), ("off", [0, 1, 2, 3])):
        learner = linked(points, labels)
        dumped = learner.dump()
        dumped["links"], dumped["ages"] = dumped["links"][:2], dumped["ages"][:2]  # 3 is isolated
        dumped["counts"] = np.array([4, 9, 1, 50], np.float32)
        learner = Ilvq.load(dumped, replace(CLEAN, denoise=denoise))
        if denoise == "published":
            dumped["counts"][3] = 2  # a limit of 16 / 8 = 2: one edge and 9 wins stays, one edge and 1 win goes
            learner = Ilvq.load(dumped, replace(CLEAN, denoise=denoise))
        assert learner.denoise() == 4 - len(kept)
        assert learner.ids.tolist() == kept


def test_an_edge_older_than_the_limit_goes_and_its_ends_stay():
    learner = Ilvq(1, replace(CLEAN, age_old=3, denoise="off"))
    learner.learn_many([[0.0], [1.0], [9.0]], [0, 0, 0])
    for _ in range(3):
        learner.learn([0.1], 0)
        assert len(learner.links()[0]) == 1
    learner.learn([0.1], 0)
    assert len(learner.links()[0]) == 0
    assert len(learner) == 3


# ---- samples that stand for several ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count, weight", [(1, 2), (1, 7), (5, 30), (18, 5), (40, 3), (0.5, 4), (19.5, 2)])
def test_a_weighty_sample_moves_the_winner_like_as_many_successive_ones(count: float, weight: int):
    def start() -> Ilvq:
        learner = Ilvq(1, CLEAN)
        for x in (0.0, 50.0, 90.0):
            learner.insert([x], 0, count)
        return learner

    once, often = start(), start()
    once.learn([1.0], 0, weight=weight)
    for _ in range(weight):
        often.learn([1.0], 0)
    assert once.vectors[0, 0] == pytest.approx(often.vectors[0, 0], rel=1e-9)
    assert once.counts.tolist() == often.counts.tolist()


def test_a_weighty_sample_of_another_class_pushes_at_most_to_twice_the_distance():
    for weight, expected in ((1.0, -0.5), (2.0, -1.0), (1e9, -1.0)):
        learner = Ilvq(1, CLEAN)
        for x, label in ((0.0, 0), (50.0, 1), (90.0, 1)):
            learner.insert([x], label, 1)
        learner.learn([1.0], 1, weight=weight)
        assert learner.vectors[0, 0] == pytest.approx(expected)


def test_a_new_prototype_stands_for_the_samples_it_was_made_of():
    for rules, expected in ((CLEAN, 12.0), (PAPER, 0.0)):
        learner = Ilvq(1, rules)
        learner.learn([0.0], 0, weight=12)
        assert learner.counts.tolist() == [expected]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_sample_that_stands_for_nothing_is_refused(weight: float):
    with pytest.raises(ValueError, match="stands for"):
        Ilvq(1).learn([0.0], 0, weight=weight)


# ---- answering ------------------------------------------------------------------------------------------------------


def test_nothing_learnt_answers_none():
    labels, shares = Ilvq(3).vote(np.zeros((2, 3)))
    assert labels.tolist() == [-1, -1]
    assert shares.tolist() == [0, 0]


def test_votes_are_one_over_distance():
    """From 0: class 1 at 1, class 0 at 1.5 and 2. Votes 1 against 2/3 + 1/2; by the nearest alone, class 1."""
    learner = Ilvq(1)
    for x, label in ((1.0, 1), (1.5, 0), (-2.0, 0), (50.0, 1)):
        learner.insert([x], label, 1)
    labels, shares = learner.vote([[0.0]], k=3)
    assert labels.tolist() == [0]
    assert shares[0] == pytest.approx((2 / 3 + 1 / 2) / (1 + 2 / 3 + 1 / 2))
    assert learner.predict([[0.0]], k=1).tolist() == [1]


def test_distance_zero_decides_alone():
    learner = Ilvq(1)
    for x, label in ((1.0, 1), (1.0, 0), (1.001, 0), (0.999, 0)):
        learner.insert([x], label, 1)
    labels, shares = learner.vote([[1.0], [1.0005]])
    assert labels.tolist() == [1, 0]
    assert shares[0] == 1.0


def test_many_rows_at_once_answer_like_one_by_one():
    x, y = blobs(3, 600, 4, 3)
    learner = Ilvq(4)
    learner.learn_many(np.round(x, 1), y.tolist())
    rows = np.round(np.random.default_rng(0).normal(size=(500, 4)) * 2, 1)
    together = learner.predict(rows)
    assert together.tolist() == [int(learner.predict(row[None])[0]) for row in rows]
    distances = np.sqrt(((learner.vectors[None] - rows[:, None]) ** 2).sum(axis=2))
    for row, measured in zip(rows, distances, strict=True):
        chosen, found = learner.nearest(row, 5)
        np.testing.assert_allclose(found, np.sort(measured)[:5])
        np.testing.assert_allclose(measured[chosen], found)


def test_ties_go_to_the_lower_position():
    learner = Ilvq(1)
    for x in (3.0, 1.0, -1.0, 1.0, -1.0, 1.0, 5.0):
        learner.insert([x], 0, 1)
    assert learner.nearest([0.0], 3)[0].tolist() == [1, 2, 3]
    assert learner.nearest([0.0], 99)[0].tolist() == [1, 2, 3, 4, 5, 0, 6]


def test_weights_scale_every_distance():
    x, y = blobs(4, 400, 3, 3)
    factors = np.array([0.5, 4.0, 0.25])  # powers of two, so that both learners round alike
    plain, weighted = Ilvq(3, CLEAN), Ilvq(3, CLEAN)
    weighted.weights = factors
    plain.learn_many(x * factors, y.tolist())
    weighted.learn_many(x, y.tolist())
    np.testing.assert_allclose(weighted.vectors * factors, plain.vectors)
    assert weighted.predict(x).tolist() == plain.predict(x * factors).tolist()
    assert weighted.copy().weights is not None
    for wrong in ([1.0], [1.0, -1.0, 1.0], [math.nan, 1.0, 1.0]):
        with pytest.raises(ValueError, match="weights are 3 finite"):
            weighted.weights = wrong


# ---- changing the set -----------------------------------------------------------------------------------------------


def grown(rows: int = 300, rules: Rules = CLEAN) -> Ilvq:
    x, y = blobs(7, rows, 3, 3)
    learner = Ilvq(3, rules)
    learner.learn_many(x, y.tolist())
    return learner


def state(learner: Ilvq) -> dict[str, object]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in learner.dump().items()}


def pairs_of_a_class(learner: Ilvq) -> tuple[np.ndarray, np.ndarray]:
    """Groups of up to two prototypes of one class, and their weighted means."""
    assign = np.zeros(len(learner), int)
    groups = 0
    for label in learner.classes:
        members = (learner.labels == label).nonzero()[0]
        assign[members] = groups + np.arange(len(members)) // 2
        groups = int(assign[members].max()) + 1
    weights = learner.counts.astype(float)
    totals = np.bincount(assign, weights)
    sums = np.stack([np.bincount(assign, weights * column) for column in learner.vectors.T], axis=1)
    return assign, sums / totals[:, None]


def test_merging_keeps_the_sum_of_counts_every_class_and_the_edges():
    learner = grown()
    learner.insert([9.0, 9.0, 9.0], 5, 3)  # a class of one: alone in its group
    before = learner.copy()
    assign, centroids = pairs_of_a_class(learner)
    place = learner.merge(assign, centroids)
    assert len(learner) == len(centroids) < len(before)
    assert learner.counts.sum() == before.counts.sum()
    assert learner.classes == before.classes
    assert (np.diff(learner.ids.astype(int)) > 0).all()
    new_position = place[assign]
    assert (learner.labels[new_position] == before.labels).all()
    np.testing.assert_allclose(learner.vectors[place], centroids)
    for group, size in enumerate(np.bincount(assign)):
        member = int((assign == group).nonzero()[0][0])
        if size == 1:
            assert learner.ids[place[group]] == before.ids[member]
            assert learner.touched[place[group]] == before.touched[member]
        else:
            assert learner.ids[place[group]] > before.ids.max()
            assert learner.touched[place[group]] == learner.epoch
    expected: dict[tuple[int, int], int] = {}
    for (a, b), age in zip(*(part.tolist() for part in before.links()), strict=True):
        low, high = sorted((int(new_position[a]), int(new_position[b])))
        if low != high:
            expected[low, high] = min(age, expected.get((low, high), age))
    got = {tuple(pair): age for pair, age in zip(*(part.tolist() for part in learner.links()), strict=True)}
    assert got == expected
    assert expected


def test_merging_can_link_each_to_its_nearest_as_the_authors_do():
    learner = Ilvq(1)
    for x in (0.0, 0.0, 1.0, 3.0, 3.5):
        learner.insert([x], 0, 1)
    learner.merge([0, 0, 1, 2, 3], [[0.0], [1.0], [3.0], [3.5]], edges="nearest")
    assert learner.vectors.ravel().tolist() == [1.0, 3.0, 3.5, 0.0]  # by id: the merged one is the newest
    assert learner.ids.tolist() == [2, 3, 4, 5]
    assert learner.links()[0].tolist() == [[0, 3], [1, 2]]
    assert learner.links()[1].tolist() == [0, 0]


def test_a_merged_set_goes_on_learning_like_one_freshly_loaded():
    learner = grown()
    learner.merge(*pairs_of_a_class(learner))
    other = Ilvq.load(learner.dump())
    x, y = blobs(8, 300, 3, 3)
    assert learner.learn_many(x, y.tolist()) == other.learn_many(x, y.tolist())
    assert state(learner) == state(other)


@pytest.mark.parametrize(
    "assign, centroids, text",
    [
        ([0, 0, 1], [[0.0], [1.0]], "mixes classes"),
        ([0, 1, 3], [[0.0], [1.0], [2.0]], "groups are in"),
        ([0, 2, 2], [[0.0], [1.0], [2.0]], "empty"),
        ([0, 1], [[0.0], [1.0]], "assign is"),
        ([0, 1, 2], [[0.0], [1.0], [math.nan]], "finite"),
    ],
)
def test_a_merge_that_does_not_fit_changes_nothing(assign: list[int], centroids: list[list[float]], text: str):
    learner = linked([0.0, 1.0, 2.0], [0, 1, 1])
    before = state(learner)
    with pytest.raises(ValueError, match=text):
        learner.merge(assign, centroids)
    assert state(learner) == before


def test_removing_drops_the_edges_and_keeps_the_order():
    learner = linked([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])
    learner.remove([1])
    assert learner.ids.tolist() == [0, 2, 3]
    assert learner.links()[0].tolist() == [[0, 1], [0, 2]]
    assert learner.insert([8.0], 1, 1) == 4  # ids are never given again
    learner.remove([0])
    assert learner.links()[0].tolist() == []
    learner.remove([0, 1, 2])
    assert len(learner) == 0
    assert learner.classes == ()
    with pytest.raises(ValueError, match="positions"):
        learner.remove([0])


def test_copies_do_not_see_each_other():
    learner = grown()
    before = state(learner)
    copy = learner.copy()
    copy.learn_many(*(part.tolist() for part in blobs(9, 300, 3, 3)))
    copy.remove([0])
    assert state(learner) == before
    assert state(copy) != before


def test_what_is_seen_cannot_be_written_to():
    learner = grown()
    with pytest.raises(ValueError, match="read-only"):
        learner.vectors[0, 0] = 1.0


# ---- keeping it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [PAPER, CLEAN], ids=["paper", "clean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_learner_goes_on_as_the_dumped_one_would(rules: Rules, dtype: type):
    x, y = blobs(11, 600, 3, 4)
    learner = Ilvq(3, rules, dtype)
    learner.learn_many(x[:300], y[:300].tolist())
    loaded = Ilvq.load(learner.dump(), rules)
    assert state(loaded) == state(learner)
    for part in (learner, loaded):
        part.learn_many(x[300:], y[300:].tolist())
    assert state(loaded) == state(learner)
    assert loaded.vectors.dtype == dtype


def test_an_empty_learner_can_be_kept():
    assert state(Ilvq.load(Ilvq(4).dump())) == state(Ilvq(4))


SPOILT = {
    "counts": np.full(5, np.nan),
    "labels": np.array([0, 0, 0, 0, -1]),
    "ids": np.array([0, 1, 2, 2, 4]),
    "touched": np.zeros(4, np.int64),
    "vectors": np.zeros((5, 1), np.int64),
    "links": np.array([[0, 5]] * 4),
    "ages": np.array([-1, 0, 0, 0]),
    "next_id": 3,
    "epoch": -1,
    "rates": [0.1],
    "seen": np.array([-3]),
    "weights": np.array([1.0, 2.0]),
}


@pytest.mark.parametrize("key", SPOILT)
def test_a_spoilt_dump_is_refused(key: str):
    dumped = linked([0.0, 1.0, 2.0, 3.0, 4.0], [0] * 5).dump()
    with pytest.raises(ValueError):
        Ilvq.load({**dumped, key: SPOILT[key]})
    with pytest.raises(ValueError, match=key):
        Ilvq.load({name: value for name, value in dumped.items() if name != key})


def test_edges_linked_twice_are_refused():
    dumped = linked([0.0, 1.0], [0, 0]).dump()
    with pytest.raises(ValueError, match="linked once"):
        Ilvq.load({**dumped, "links": np.array([[0, 1], [0, 1]]), "ages": np.array([0, 1])})


def test_stricter_rules_leave_old_edges_out():
    dumped = linked([0.0, 1.0, 2.0], [0, 0, 0]).dump()
    dumped["ages"] = np.array([4, 9])
    assert Ilvq.load(dumped, replace(CLEAN, age_old=5)).links()[0].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"age_old": 0},
        {"age_old": 10**6},
        {"gamma": 0},
        {"denoise": "no"},
        {"rates": "both"},
        {"rate_floor": 1.0},
        {"neighbour_share": 2.0},
        {"first_count": -1.0},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CLEAN, **wrong)


def test_samples_that_do_not_fit_are_refused_and_leave_no_trace():
    learner = grown()
    before = state(learner)
    for x, label, text in (([0.0], 0, "3 features"), ([0.0] * 3, -1, "not negative"), ([[0.0] * 3], 0, "3 features")):
        with pytest.raises(ValueError, match=text):
            learner.learn(x, label)
    with pytest.raises(ValueError, match="3 features"):
        learner.predict([[0.0]])
    with pytest.raises(ValueError, match="k is"):
        learner.predict([[0.0] * 3], k=0)
    with pytest.raises(ValueError, match="count"):
        learner.insert([0.0] * 3, 0, -1)
    assert state(learner) == before


# ---- the paper's data -----------------------------------------------------------------------------------------------


def alone(streams: list[tuple[np.ndarray, np.ndarray]], rules: Rules) -> float:
    """Mean F1 over agents that never share: predict, score, learn."""
    scores = []
    for x, y in streams:
        learner = Ilvq(x.shape[1], rules)
        said = np.empty(len(y), int)
        for i, (row, label) in enumerate(zip(x, y.tolist(), strict=True)):
            said[i] = learner.predict(row[None])[0]
            learner.learn(row, label)
        scores.append(f1(y, said))
    return float(np.mean(scores))


def test_electricity_alone_is_the_papers_figure():
    """Authors' result files: 0.4882 for five agents with 1000 samples each and no sharing (spec 7.2)."""
    assert alone(dealt(shared("electricity"), 5000), PAPER) == pytest.approx(0.4882, abs=5e-4)


def test_phishing_alone_is_the_papers_figure():
    """Authors' result files: 0.7984 (spec 7.3). Its features take three values, so ties decide: see `vote`."""
    assert alone(dealt(shared("phishing"), 1250), PAPER) == pytest.approx(0.7984, abs=5e-4)


def test_clean_rules_are_no_worse_alone():
    assert alone(dealt(shared("electricity"), 5000), CLEAN) > 0.52
    assert alone(dealt(shared("phishing"), 1250), CLEAN) > 0.80


def test_phishing_as_river_ships_it():
    """Progressive accuracy over the whole stream, first answer ("none") not counted: 1068 of 1249, 85.51 %.

    The authors' docstring says 78.62 % (spec 2.7). Their code as it stands, read literally, gives 85.51 % as well, so
    that docstring is of an earlier version; their result files, which the two tests above meet, are of this one.
    """
    datasets = pytest.importorskip("river.datasets")
    learner, right, asked = Ilvq(9, PAPER), 0, 0
    for features, label in datasets.Phishing():
        row = np.array(list(features.values()))
        said = int(learner.predict(row[None])[0])
        asked += said >= 0
        right += said == int(label)
        learner.learn(row, int(label))
    assert asked == 1249
    assert right / asked == pytest.approx(0.8551, abs=2e-3)
