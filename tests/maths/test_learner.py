from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths import learner as module
from edgeswarm.maths.learner import (
    EXPERTS,
    HALF_LIVES,
    OWN,
    Learner,
    Others,
    fits,
    opinions,
    opinions_and_trials,
    stack,
)
from edgeswarm.maths.replica import Replica
from edgeswarm.maths.summaries import Table
from edgeswarm.messages import Array

NOBODY = stack({}, 2)


def clouds(seed: int, n: int, labels: tuple[int, ...] = (0, 1)) -> tuple[Array, list[int]]:
    """Class c around (4 c, 0), in a second feature of another unit."""
    rng = np.random.default_rng(seed)
    y = rng.choice(labels, n)
    x = rng.normal(size=(n, 2)) + np.column_stack([4.0 * y, 0 * y])
    return (x * [1.0, 1000.0]).astype(np.float32), y.tolist()


def taught(seed: int, n: int = 150, labels: tuple[int, ...] = (0, 1)) -> Learner:
    learner = Learner.fresh(2, 0.2)
    for x, y in zip(*clouds(seed, n, labels), strict=True):
        learner.learn(x, y)
    return learner


def replica_of(learner: Learner) -> Replica:
    """A peer's set as if it had been received exactly."""
    points, told = learner.points, learner.summaries
    return Replica(
        ids=points.ids.copy(),
        keys=np.ones(len(points), np.int64),
        vectors=points.vectors.astype(np.float32),
        labels=points.labels.copy(),
        counts=points.counts.copy(),
        summary=Table(told.weight.copy(), told.mean.copy(), told.variance.copy()),
        summary_keys=np.ones(told.weight.shape[1], np.int64),
    )


def right(p: Array, y: list[int]) -> float:
    return float((p.argmax(-1) == np.array(y)).mean())


def test_every_expert_learns_two_clouds() -> None:
    x, y = clouds(9, 200)
    p = opinions(taught(0), NOBODY, (), x, 2)
    assert p.shape == (EXPERTS, 200, 2) == (2 + 2 * len(HALF_LIVES), 200, 2)
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert min(right(each, y) for each in p) > 0.93
    np.testing.assert_allclose(p[OWN], p[~OWN], err_msg="without peers the swarm knows what the node knows")


def test_only_the_swarms_experts_hear_peers_and_muted_ones_are_not_heard() -> None:
    x, y = clouds(9, 200, (0, 1, 2))
    mine = taught(0)
    others = stack({"peer": replica_of(taught(1, labels=(1, 2)))}, 2)
    alone, heard = opinions(mine, NOBODY, (), x, 3), opinions(mine, others, (), x, 3)
    np.testing.assert_array_equal(alone[OWN], heard[OWN])
    assert max(right(each, y) for each in alone) < 0.75 < 0.9 < min(right(each, y) for each in heard[~OWN])
    np.testing.assert_allclose(opinions(mine, others, ("peer",), x, 3), alone)


def test_a_node_without_samples_speaks_through_its_peers() -> None:
    x, y = clouds(9, 200)
    p = opinions(None, stack({"peer": replica_of(taught(1))}, 2), (), x, 2)
    assert (p[OWN] == 0.5).all() and min(right(each, y) for each in p[~OWN]) > 0.9


def test_trials_are_of_own_knowledge_and_one_peer() -> None:
    x, y = clouds(9, 100)
    mine, good, liar = taught(0), replica_of(taught(1)), replica_of(taught(2))
    liar = Replica(**{**{n: getattr(liar, n) for n in Replica.__slots__}, "labels": 1 - liar.labels})
    assert liar.summary is not None
    swapped = Table(*(part[:, ::-1].copy() for part in (liar.summary.weight, liar.summary.mean, liar.summary.variance)))
    liar = Replica(**{**{n: getattr(liar, n) for n in Replica.__slots__}, "summary": swapped})
    others = stack({"good": good, "liar": liar}, 2)
    p, tests = opinions_and_trials(mine, others, (), x, 2, ["good", "liar", "unknown"])
    np.testing.assert_array_equal(p, opinions(mine, others, (), x, 2))
    assert tests.shape == (2, 3, 100, 2)
    alone = opinions(mine, NOBODY, (), x, 2)
    np.testing.assert_allclose(tests[:, 2], alone[[0, 2]])
    truth = np.array(y)
    sure = [tests[:, i, np.arange(100), truth].mean() for i in range(3)]
    assert sure[0] > sure[2] - 0.03 and sure[1] < sure[2] - 0.15


def test_stack_keeps_rows_in_order_of_names_and_leaves_out_other_dimensions() -> None:
    a, b = replica_of(taught(0, 30)), replica_of(taught(1, 40))
    flat = Replica(ids=np.array([1], np.uint32), keys=np.ones(1, np.int64), vectors=np.ones((1, 5), np.float32),
                   labels=np.zeros(1, np.int32), counts=np.ones(1, np.float32))  # fmt: skip
    others = stack({"b": b, "a": a, "flat": flat, "new": Replica()}, 2)
    assert list(others.peers) == ["a", "b", "new"] and set(others.tables) == {"a", "b"}
    for name, replica in (("a", a), ("b", b)):
        np.testing.assert_array_equal(others.vectors[others.peers[name]], replica.vectors)
    assert isinstance(stack({}, 2), Others) and stack({}, 2).vectors.shape == (0, 2)


def test_summaries_of_other_speeds_or_dimensions_are_left_out() -> None:
    """A peer of another version may tell more or fewer half-lives; alone they must not break anything."""
    odd = [Replica(summary=Table(np.ones((h, 2)), np.ones((h, 2, d)), np.ones((h, 2, d)))) for h, d in ((3, 2), (1, 5))]
    others = stack({"one": odd[0], "five": odd[1]}, 2)
    assert not others.tables and not any(fits(r.summary, 2) for r in odd if r.summary)
    x, _ = clouds(3, 5)
    np.testing.assert_array_equal(opinions(taught(0), others, (), x, 2), opinions(taught(0), NOBODY, (), x, 2))


def test_seen_and_mass() -> None:
    learner = taught(0, 50, (0, 2))
    assert learner.seen(5).tolist() == [True, False, True, False, False] and learner.seen(1).tolist() == [True]
    assert learner.mass(4)[[1, 3]].tolist() == [0, 0] and 40 < learner.mass(4).sum() <= 50
    assert Learner.fresh(2, 0.2).seen(2).tolist() == [False, False]


def test_boundary_is_what_is_linked_across_classes() -> None:
    learner = taught(4)
    labels = learner.points.labels
    pairs, _ = learner.points.links()
    expected = {int(i) for a, b in pairs if labels[a] != labels[b] for i in (a, b)}
    assert set(np.flatnonzero(learner.boundary()).tolist()) == expected


def test_a_copy_learns_on_its_own_and_a_dump_goes_on_as_if_never_stopped() -> None:
    learner = taught(0)
    copy, again = learner.copy(), Learner.load(learner.dump(), 0.2)
    before = learner.dump()["points"]["vectors"].copy()
    for x, y in zip(*clouds(7, 40), strict=True):
        copy.learn(x, y)
        again.learn(x, y)
    np.testing.assert_array_equal(before, learner.points.vectors)
    np.testing.assert_array_equal(copy.points.vectors, again.points.vectors)
    np.testing.assert_array_equal(copy.summaries.mean, again.summaries.mean)
    np.testing.assert_array_equal(copy.metric, again.metric)


def test_parts_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, flat = taught(0), Learner.fresh(5, 0.2)
    with pytest.raises(ValueError, match="number of features"):
        Learner.load({**learner.dump(), "scale": flat.dump()["scale"]}, 0.2)
    monkeypatch.setattr(module, "HALF_LIVES", (5.0, 50.0))
    with pytest.raises(ValueError, match="other speeds"):
        Learner.load(learner.dump(), 0.2)
