"""The invariants of prediction exchange (section 4.2 of the project's note on 2211.15774), and what was added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import Gradient, LocalEpoch
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import Bids, Predictions
from edgeswarm.models.card import PRIVATE, PUBLIC
from edgeswarm.models.public import PublicSet
from edgeswarm.strategies.base import Decision, Listen, Peers, Received, Send, Started, Woke, equipped, finish
from edgeswarm.strategies.fedmd import FedMD
from edgeswarm.strategies.isolated import Isolated
from edgeswarm.strategies.multi_headed_distillation import PUBLISHED, MultiHeadedDistillation
from edgeswarm.strategies.prototype_distillation import PrototypeDistillation
from tests.strategies import teaching_world as tw
from tests.strategies.teaching_world import CLASSES, KNOBS, Swarm, cloud, model

TWO = {"ann": (0, 1), "bob": (2, 3)}


def pair(strategy: Any, heads: int = 1) -> dict[str, Any]:
    return {name: (strategy, model(heads=heads), classes) for name, classes in TWO.items()}


def test_nodes_learn_classes_they_never_saw() -> None:
    swarm = Swarm(pair(MultiHeadedDistillation(**KNOBS, serve=1))).to(12)
    for name, own in TWO.items():
        foreign = [label for label in range(4) if label not in own]
        assert swarm.accuracy(name, alone=True, classes=foreign) == 0
        assert swarm.accuracy(name, classes=foreign) > 0.8
        assert swarm.accuracy(name, alone=True, classes=own) > 0.9


def test_without_weight_it_is_isolated_training_bit_for_bit() -> None:
    apart = Swarm(pair(Isolated(**KNOBS))).to(6)
    none = Swarm(pair(MultiHeadedDistillation(**KNOBS, aux_weight=0.0))).to(6)
    some = Swarm(pair(MultiHeadedDistillation(**KNOBS))).to(6)
    for name in TWO:
        assert np.array_equal(apart.state(name).params, none.state(name).params)
        assert not np.array_equal(apart.state(name).params, some.state(name).params)


def test_private_and_auxiliary_gradients_reach_their_heads_alone() -> None:
    held = model(heads=3)
    swarm = Swarm({"ann": (Isolated(**KNOBS), held, (0, 1))})
    layout = held.card.layout()

    def slope(private: float, taught: int) -> dict[str, float]:
        x, y = cloud(5, range(4), 16)
        weight = np.zeros((16, 3), np.float32)
        weight[:, taught] = 1.0 if taught >= 0 and not private else 0.0
        inputs = {
            "x": x, "y": y.astype(np.int64), "w": np.full(16, private, np.float32), "public_x": x,
            "teacher_embedding": np.zeros((16, held.card.embedding), np.float32),
            "embedding_weight": np.zeros(16, np.float32),
            "teacher": np.tile(np.eye(4, dtype=np.float32)[0], (16, 3, 1)), "teacher_weight": weight,
        }  # fmt: skip
        got = swarm.backend.answer(Gradient(held.card.hash, "distill", held.initial, inputs)).gradient
        parts = {name: got[where].reshape(shape) for name, (where, shape) in layout.items()}
        v = np.abs(parts["V"].reshape(-1, 3, 4)).sum(axis=(0, 2))
        return {
            "body": np.abs(parts["A"]).sum(),
            "main": np.abs(parts["W"]).sum(),
            **{f"head {k}": v[k] for k in range(3)},
        }

    private = slope(1.0, 0)
    assert private["body"] > 0 < private["main"]
    assert not any(private[f"head {k}"] for k in range(3))
    for k in range(3):
        auxiliary = slope(0.0, k)
        assert auxiliary["body"] > 0
        assert [name for name, value in auxiliary.items() if value] == ["body", f"head {k}"]


def test_a_node_alone_teaches_itself_down_the_chain() -> None:
    strategy = MultiHeadedDistillation(**KNOBS, own="always", gate=0.0)
    swarm = Swarm({"ann": (strategy, model(heads=2), range(4))}).to(25)
    said = swarm.outputs("ann", tw.PUBLIC.x)
    main = said["logits"].argmax(axis=1)
    for head in range(2):
        assert (said["aux"][:, head].argmax(axis=1) == main).mean() > 0.95


def test_heads_carry_knowledge_as_many_hops_as_their_rank() -> None:
    line = Topology("edges", names=("ann", "bob", "cid"), edges=(("ann", "bob"), ("bob", "cid")))
    strategy = MultiHeadedDistillation(**KNOBS, own="always", serve=2)
    owned = {"ann": (0, 1), "bob": (0, 2), "cid": (2, 3)}
    swarm = Swarm({name: (strategy, model(heads=2), owned[name]) for name in owned}, line).to(20)
    x, _ = cloud(999, (3,), 100)
    far = swarm.outputs("ann", x)["aux"].argmax(axis=2) == 3
    assert far[:, 0].mean() < 0.2  # one hop away nobody knows dogs
    assert far[:, 1].mean() > 0.6


def test_what_teachers_said_is_left_as_it_was_and_taken_by_value() -> None:
    strategy = equipped(MultiHeadedDistillation(**KNOBS), tw.SCHEMA, model(), public=tw.PUBLIC)
    swarm = Swarm(pair(strategy)).to(3)
    state = swarm.state("ann")
    before = state.lessons.teachers["bob"].shares.copy()
    requests: list[LocalEpoch] = []

    def answer(request: Any) -> Any:
        reply = swarm.backend.answer(request)
        if isinstance(request, LocalEpoch):
            requests.append(request)
            for name in ("teacher", "public_x"):  # whoever computes may keep or spoil its copy
                np.asarray(request.data[name])[:] = 0
        return reply

    plain, _ = finish(strategy.step(state, Woke(50.0, "train")), swarm.backend.answer)
    spoilt, _ = finish(strategy.step(state, Woke(50.0, "train")), answer)
    assert requests[0].loss == "distill"
    assert requests[0].picks[PRIVATE].shape == requests[0].picks[PUBLIC].shape
    assert np.array_equal(plain.params, spoilt.params)
    assert np.array_equal(state.lessons.teachers["bob"].shares, before)


def test_whoever_has_not_trained_teaches_nobody_and_another_set_is_not_understood() -> None:
    strategy = equipped(MultiHeadedDistillation(**KNOBS), tw.SCHEMA, model(), public=tw.PUBLIC)
    state = strategy.init("ann", 1)
    for event in (Started(0.0, 1), Peers(0.0, ("bob", "cid"))):
        state, actions = finish(strategy.step(state, event), None)  # type: ignore[arg-type]
    assert actions == [Listen(frozenset({(p, c) for p in ("bob", "cid") for c in ("public", "bids")}))]
    n = len(tw.PUBLIC.x)
    said = Predictions(
        tw.SCHEMA, tw.PUBLIC.number, 1, 0, 4, np.arange(n, dtype=np.uint32), "uint8",
        np.full((n, 1, 4), 60, np.uint8), np.zeros((0, 0, 0), np.uint8), np.full(n, 255, np.uint8),
    )  # fmt: skip

    def hear(message: Any, sender: str = "bob") -> tuple[Any, list[Any]]:
        return finish(strategy.step(state, Received(1.0, sender, message)), None)  # type: ignore[arg-type]

    def reasons(heard: tuple[Any, list[Any]]) -> list[str]:
        return [each.reason for each in heard[1] if isinstance(each, Decision)]

    assert hear(said) == (state, [])
    taught, _ = hear(replace(said, version=3))
    assert list(taught.lessons.teachers) == ["bob"]
    assert hear(replace(said, version=3), "zed") == (state, [])  # no neighbour
    other = PublicSet(tw.PUBLIC.x, CLASSES, "2")
    strange = hear(replace(said, version=3, public=other.number))
    assert reasons(strange) == ["other_public_set"]
    assert not strange[0].lessons.teachers
    short = Bids(tw.SCHEMA, tw.PUBLIC.number, 1, 1, np.zeros(n - 1, np.uint8))
    assert reasons(hear(short)) == ["wrong_size"]
    far = replace(said, version=3, rows=said.rows + np.uint32(5))
    assert reasons(hear(far)) == ["wrong_size"]


def test_only_what_changes_somebodys_mind_is_sent() -> None:
    rows: dict[bool, list[int]] = {True: [], False: []}
    right: dict[bool, float] = {}
    for bids in rows:
        swarm = Swarm(pair(MultiHeadedDistillation(**KNOBS, bids=bids, change=0.0, serve=1)))
        for node in swarm.world.nodes.values():
            perform = node.agent.perform

            def watched(actions: list[Any], perform: Any = perform, bids: bool = bids) -> None:
                rows[bids] += [
                    a.message.rows.size for a in actions if isinstance(a, Send) and isinstance(a.message, Predictions)
                ]
                perform(actions)

            node.agent.perform = watched  # type: ignore[method-assign]
        swarm.to(15)
        right[bids] = min(swarm.accuracy(name) for name in TWO)
    assert rows[False] == [len(tw.PUBLIC.x)] * 30
    assert rows[True][:2] == [len(tw.PUBLIC.x)] * 2  # everything at first
    assert sum(rows[True]) < sum(rows[False]) / 4
    assert right[True] > right[False] - 0.05


def test_with_few_public_rows_a_lesson_has_its_full_weight() -> None:
    small = PublicSet(tw.PUBLIC.x[:5], CLASSES)
    strategy = equipped(MultiHeadedDistillation(**KNOBS, gate=0.0), tw.SCHEMA, model(), public=small)
    swarm = Swarm(pair(strategy), public=small).to(3)
    requests: list[LocalEpoch] = []

    def answer(request: Any) -> Any:
        if isinstance(request, LocalEpoch):
            requests.append(request)
        return swarm.backend.answer(request)

    finish(strategy.step(swarm.state("ann"), Woke(50.0, "train")), answer)
    weight, picks = requests[0].data["teacher_weight"], requests[0].picks[PUBLIC]
    for step in picks:
        assert weight[step[step >= 0], 0].sum() == pytest.approx(1.0)


def test_what_a_peer_sends_too_much_of_is_not_kept() -> None:
    for settings, width in (({"embedding_weight": 1.0}, 12), ({}, 0)):
        strategy = equipped(MultiHeadedDistillation(**KNOBS, **settings), tw.SCHEMA, model(), public=tw.PUBLIC)
        state, _ = finish(strategy.step(strategy.init("ann", 1), Peers(0.0, ("bob", "cid"))), None)  # type: ignore[arg-type]
        for peer, length in (("bob", 4096), ("cid", 12)):
            said = Predictions(
                tw.SCHEMA, tw.PUBLIC.number, 1, 1, 4, np.zeros(1, np.uint32), "float32",
                np.full((1, 32, 4), 0.25, np.float32), np.zeros((0, 0, 0), np.uint8), np.full(1, 255, np.uint8),
                np.ones((1, length), np.int8),
            )  # fmt: skip
            state, _ = finish(strategy.step(state, Received(1.0, peer, said)), None)  # type: ignore[arg-type]
        held = state.lessons.teachers
        assert {teacher.heads for teacher in held.values()} == {1}
        assert held["bob"].embedding.size == 0 and held["cid"].embedding.size == width * len(tw.PUBLIC.x)


def test_bids_of_those_who_left_are_dropped_and_old_ones_do_not_count() -> None:
    strategy = equipped(MultiHeadedDistillation(**KNOBS, forget_s=100.0), tw.SCHEMA, model(), public=tw.PUBLIC)
    swarm = Swarm(pair(strategy)).to(3)
    floors = np.zeros(len(tw.PUBLIC.x), np.uint8)

    def step(state: Any, event: Any) -> Any:
        return finish(strategy.step(state, event), swarm.backend.answer)

    def rows(actions: list[Any]) -> int:
        return sum(a.message.rows.size for a in actions if isinstance(a, Send) and isinstance(a.message, Predictions))

    state, _ = step(swarm.state("ann"), Peers(40.0, ("bob", "cid")))
    state, _ = step(state, Received(41.0, "cid", Bids(tw.SCHEMA, tw.PUBLIC.number, 1, 1, floors)))
    state = replace(state, lessons=replace(state.lessons, said=replace(
        state.lessons.said, versions=state.lessons.said.versions * 0)))  # fmt: skip
    told_at = {at: rows(step(state, Woke(at, "train"))[1]) for at in (50.0, 150.0)}
    assert told_at[50.0] > 0 == told_at[150.0]
    again = strategy.load("ann", strategy.dump(state)).lessons.bids["cid"]
    assert again.at == 41.0
    state, _ = step(state, Peers(60.0, ("bob", "dan")))
    state, _ = step(state, Received(61.0, "dan", Bids(tw.SCHEMA, tw.PUBLIC.number, 1, 1, floors)))
    assert set(state.lessons.bids) == {"bob", "dan"}


def test_a_stable_node_bids_again_before_it_is_forgotten() -> None:
    strategy = MultiHeadedDistillation(**{**KNOBS, "rate": 1e-9}, forget_s=100.0)
    swarm = Swarm(pair(strategy)).to(20)
    assert 200 - swarm.state("ann").lessons.bid_at <= 60 and 200 - swarm.state("ann").lessons.bids["bob"].at <= 60


def test_after_a_reboot_nothing_was_said_in_the_future() -> None:
    swarm = Swarm(pair(MultiHeadedDistillation(**KNOBS, forget_s=100.0))).to(6)
    strategy = swarm.strategies["ann"]
    state = strategy.load("ann", strategy.dump(swarm.state("ann")))
    assert state.lessons.teachers["bob"].made_at.max() > 5
    state, _ = finish(strategy.step(state, Started(5.0, 2)), None)  # type: ignore[arg-type]
    lessons = state.lessons
    assert lessons.teachers["bob"].made_at.max() <= 5 >= lessons.own.made_at.max() and lessons.bid_at <= 5
    assert lessons.bids["bob"].at <= 5
    panel = strategy.panel(lessons, "ann", strategy.graph(swarm.state("ann")), 1, 106.0, 100.0)
    assert not panel.sure.any(), "forgotten a hundred seconds after the start, not after the old clock"


def test_a_silent_swarm_costs_nothing_and_says_so() -> None:
    swarm = Swarm(pair(MultiHeadedDistillation(**{**KNOBS, "rate": 1e-9}, change=0.05))).to(8)
    shares = [d for d in swarm.world.nodes["ann"].decisions if d.kind == "share"]
    assert [each.outcome for each in shares] == ["sent"] + ["held"] * 7


def test_a_liar_costs_little() -> None:
    class Liar(MultiHeadedDistillation):
        def _opinion(self, state: Any) -> Any:
            yield from ()
            truth = cloud(1, range(4), 160)[1]
            return np.eye(4, dtype=np.float32)[(truth + 1) % 4][:, None], None

    def worst(liar: bool, **settings: Any) -> float:
        honest = MultiHeadedDistillation(**KNOBS, **settings, serve=1)
        nodes: dict[str, Any] = {
            name: (honest, model(seed=at), ((at) % 4, (at + 1) % 4))
            for at, name in enumerate(("ann", "bob", "cid", "dan"))
        }
        nodes["eve"] = (Liar(**KNOBS, gate=0.0, bids=False) if liar else Isolated(**KNOBS), model(), (0, 1))
        swarm = Swarm(nodes).to(8)
        return min(swarm.accuracy(name) for name in nodes if name != "eve")

    plain = {key: PUBLISHED[key] for key in ("gate", "tested", "cap", "ceiling", "bids", "change")}
    assert worst(True, **plain) < 0.5
    assert worst(True) > worst(False) - 0.05
    assert worst(False) > 0.85


@pytest.mark.parametrize("turned", [False, True])
def test_a_lie_about_one_class_teaches_nobody(turned: bool) -> None:
    """bob alone knows class 3; cid knows class 1 and hardly takes some of 3 for it; dan knows class 0; eve says that
    all of 3 is 1. Turned: and that class 0 is 3, as one who has seen 3 may believe."""
    strategy = equipped(MultiHeadedDistillation(**KNOBS), tw.SCHEMA, model(), public=tw.PUBLIC)
    state, _ = finish(strategy.step(strategy.init("ann", 1), Peers(0.0, ("bob", "cid", "dan", "eve"))), None)  # type: ignore[arg-type]
    truth = cloud(1, range(4), 160)[1]
    shares = {name: np.full((160, 1, 4), 0.25, np.float32) for name in ("bob", "cid", "dan", "eve")}
    trust = {name: np.zeros(160, np.uint8) for name in shares}
    third = truth == 3
    for name, rows, label, sure, near in (
        ("bob", third, 3, 0.8, 255), ("cid", truth == 1, 1, 0.9, 255), ("cid", third, 1, 0.9, 80),
        ("dan", truth == 0, 0, 0.9, 255), ("eve", third, 1, 1.0, 255), ("eve", truth == 0, 3, 0.8, 255 * turned),
    ):  # fmt: skip
        shares[name][rows] = (1 - sure) / 3
        shares[name][rows, 0, label], trust[name][rows] = sure, near
    for name, p in shares.items():
        said = Predictions(tw.SCHEMA, tw.PUBLIC.number, 1, 1, 4, np.arange(160, dtype=np.uint32), "float32", p,
                           np.zeros((0, 0, 0), np.uint8), trust[name])  # fmt: skip
        state, _ = finish(strategy.step(state, Received(1.0, name, said)), None)  # type: ignore[arg-type]

    def taught(settings: Any, label: int) -> list[int]:
        panel = settings.panel(state.lessons, "ann", strategy.graph(state), 1, 2.0, 3600.0)
        return sorted(set(panel.taught("confident", np.flatnonzero(truth == label), (0,))[0][:, 0].argmax(axis=1)))

    assert taught(strategy, 3) == [3] and taught(strategy, 1) == [1] and taught(strategy, 0) == [0]
    assert taught(replace(strategy, tested=False), 3) == [1], "whoever is surest would be believed"


def word(labels: np.ndarray, sure: float) -> Predictions:
    """That all public rows are of these classes."""
    n = len(labels)
    shares = np.full((n, 1, 4), (1 - sure) / 3, np.float32)
    shares[np.arange(n), 0, labels] = sure
    return Predictions(tw.SCHEMA, tw.PUBLIC.number, 1, 1, 4, np.arange(n, dtype=np.uint32), "float32", shares,
                       np.zeros((0, 0, 0), np.uint8), np.full(n, 255, np.uint8))  # fmt: skip


def test_those_who_sleep_have_no_share_of_the_rows() -> None:
    names = tuple(f"peer-{at:02d}" for at in range(20))
    strategy = equipped(MultiHeadedDistillation(**KNOBS, forget_s=100.0), tw.SCHEMA, model(),
                        topology=Topology("full", ("ann", *names)), public=tw.PUBLIC)  # fmt: skip
    state = strategy.init("ann", 1)
    truth = cloud(1, range(4), 160)[1]

    def limits(at: float) -> tuple[int, bool]:
        panel = strategy.panel(state.lessons, "ann", strategy.graph(state), 1, at, 100.0)
        return panel.limit, bool(panel.taught("confident", np.arange(160), (0,))[1].all())

    for heard, name in enumerate(names, 1):
        state, _ = finish(strategy.step(state, Received(float(heard), name, word(truth, 0.8))), None)  # type: ignore[arg-type]
        assert limits(50.0) == (int(np.ceil(160 * 3 / heard)), True)
    assert limits(50.0)[0] == 24, "all awake: three times an even share among all neighbours"
    assert limits(115.5) == (96, True), "the words of fifteen are forgotten"


def test_a_liar_who_spoke_first_and_alone_is_outvoted_in_a_round() -> None:
    strategy = equipped(MultiHeadedDistillation(**KNOBS, serve=1), tw.SCHEMA, model(), public=tw.PUBLIC)
    swarm = Swarm({"ann": (strategy, model(), (0, 1))}).to(1)
    truth = cloud(1, range(4), 160)[1]
    state, _ = finish(strategy.step(swarm.state("ann"), Peers(11.0, tuple("bcdefgh"))), None)  # type: ignore[arg-type]

    def after(rounds: int, begin: float, state: Any) -> tuple[Any, float]:
        for turn in range(rounds):
            state, _ = finish(strategy.step(state, Woke(begin + 10 * turn, "train")), swarm.backend.answer)
        x, y = cloud(999, (2, 3), 200)
        answers, _ = finish(strategy.predict(state, x), swarm.backend.answer)
        return state, float(np.mean([answer == CLASSES[label] for answer, label in zip(answers, y, strict=True)]))

    lie = np.where(truth >= 2, (truth + 1) % 4, truth)
    state, _ = finish(strategy.step(state, Received(12.0, "b", word(lie, 1.0))), None)  # type: ignore[arg-type]
    state, right = after(5, 20.0, state)
    assert right < 0.2, "nobody else has said anything"
    for name in "cdefgh":
        state, _ = finish(strategy.step(state, Received(61.0, name, word(truth, 0.8))), None)  # type: ignore[arg-type]
    assert after(1, 70.0, state)[1] > 0.9


def test_a_node_without_samples_learns_from_what_others_say() -> None:
    strategy = MultiHeadedDistillation(**KNOBS)
    nodes = {**pair(strategy), "cid": (strategy, model(), ())}
    swarm = Swarm(nodes).to(1)
    cid = swarm.strategies["cid"]
    assert finish(cid.predict(swarm.state("cid"), tw.PUBLIC.x[:2]), swarm.backend.answer)[0] == [None, None]
    swarm.to(12)
    assert swarm.accuracy("cid") > 0.8
    assert swarm.accuracy("cid", alone=True) == 0, "its main head has learnt nothing"
    assert "cid" not in swarm.state("ann").lessons.teachers
    again = cid.load("cid", cid.dump(swarm.state("cid")))
    assert finish(cid.predict(again, tw.PUBLIC.x[:2], True), swarm.backend.answer)[0] == [None, None]
    swarm.give("cid", 20, (0, 1))
    swarm.to(20)
    assert swarm.accuracy("cid", alone=True, classes=(0, 1)) > 0.9
    assert swarm.accuracy("cid", classes=(2, 3)) == 0, "it answers with its main head as the others do"
    assert "cid" in swarm.state("ann").lessons.teachers


def test_a_node_without_samples_rests_while_nobody_speaks() -> None:
    strategy = equipped(MultiHeadedDistillation(**KNOBS, forget_s=100.0), tw.SCHEMA, model(), public=tw.PUBLIC)
    swarm = Swarm({**pair(strategy), "cid": (strategy, model(), ())}).to(3)
    taught = swarm.state("cid")
    assert taught.rounds == 2
    later, _ = finish(strategy.step(taught, Woke(500.0, "train")), swarm.backend.answer)
    assert later.rounds == 2 and np.array_equal(later.params, taught.params)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_restarted_optimiser_is_so_with_teachers_too(optimiser: str) -> None:
    knobs = {**KNOBS, "rate": 0.001, "optimiser": optimiser, "restart": True}
    strategy = equipped(MultiHeadedDistillation(**knobs), tw.SCHEMA, model(), public=tw.PUBLIC)
    swarm = Swarm(pair(strategy)).to(3)
    state = swarm.state("ann")
    requests: list[LocalEpoch] = []

    def answer(request: Any) -> Any:
        if isinstance(request, LocalEpoch):
            requests.append(request)
        return swarm.backend.answer(request)

    after, _ = finish(strategy.step(state, Woke(50.0, "train")), answer)
    asked = requests[0]
    assert asked.loss == "distill" and not any(slot.any() for slot in asked.moments.slots)
    assert asked.moments.step + asked.optimiser.ahead == state.moments.step == 60
    assert asked.optimiser.ahead == (60 if optimiser == "adam" else 0)
    assert after.moments.step == 80


def test_a_node_without_neighbours_goes_on() -> None:
    swarm = Swarm({"ann": pair(MultiHeadedDistillation(**KNOBS, serve=1))["ann"]}).to(3)
    assert swarm.accuracy("ann", alone=True, classes=(0, 1)) > 0.9
    assert not swarm.state("ann").lessons.teachers


def test_another_public_set_after_a_restart_forgets_the_lessons_alone() -> None:
    swarm = Swarm(pair(MultiHeadedDistillation(**KNOBS))).to(3)
    dumped = swarm.strategies["ann"].dump(swarm.state("ann"))
    assert swarm.strategies["ann"].load("ann", dumped).lessons.teachers
    other = equipped(swarm.strategies["ann"], tw.SCHEMA, model(), public=PublicSet(tw.PUBLIC.x[:50], CLASSES))
    state = other.load("ann", dumped)
    assert not state.lessons.teachers
    assert np.array_equal(state.params, swarm.state("ann").params)


@pytest.mark.parametrize(
    ("held", "public", "settings", "text"),
    [
        (model(heads=0), tw.PUBLIC, {}, "has 0 auxiliary heads, .* build --heads 1"),
        (model(heads=1), tw.PUBLIC, {"serve": 2}, "has 1 auxiliary heads, .* needs 2"),
        (model(heads=2), tw.PUBLIC, {"serve": 2, "ranks": 1}, "serve is 2, but only 1 heads learn: raise ranks"),
        (model(), PublicSet(tw.PUBLIC.x, ("ant", "bee", "cat", "eel")), {}, "does not name the class 'dog'"),
        (model(), PublicSet(tw.PUBLIC.x[:, :3].copy(), CLASSES), {}, "have 3 numbers, the model perceptron takes 8"),
        (model(), None, {}, "needs the file of one"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(held: Any, public: Any, settings: dict[str, Any], text: str) -> None:
    for kind in (MultiHeadedDistillation, FedMD):
        with pytest.raises(ValueError, match=text) as caught:
            equipped(kind(**KNOBS, **settings), tw.SCHEMA, held, public=public)
        assert "\n" not in str(caught.value)


def test_classes_are_told_apart_by_name_not_by_place() -> None:
    turned = PublicSet(tw.PUBLIC.x, (*CLASSES[::-1], "eel"))
    swarm = Swarm(pair(MultiHeadedDistillation(**KNOBS, serve=1)), public=turned).to(12)
    assert swarm.accuracy("ann", classes=(2, 3)) > 0.8


def test_fedmd_averages_everybody() -> None:
    swarm = Swarm(pair(FedMD(**KNOBS), heads=2)).to(3)
    strategy = swarm.strategies["ann"]
    assert (strategy.name, strategy.heads()) == ("fedmd", 1)
    state = swarm.state("ann")
    panel = strategy.panel(state.lessons, "ann", strategy.graph(state), 1, 30.0, 3600.0)
    assert panel.names == ("bob", "ann")
    rows = np.arange(5)
    got, _ = panel.taught(strategy.choice, rows, (0,))
    both = [teacher.probabilities(rows)[:, 0] for teacher in panel.teachers]
    assert np.allclose(got[:, 0], (both[0] + both[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("other", ["perceptron", "prototypes"])
def test_a_convolution_and_what_is_none_teach_one_another(other: str) -> None:
    from tests import zoo

    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (3, 144)).astype(np.float32)

    def images(seed: int, classes: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.resize(np.asarray(classes), n)
        noise = np.random.default_rng(seed).random((n, 144)) < 0.2
        return np.where(noise, 1 - patterns[y], patterns[y]).astype(np.float32), y

    from edgeswarm.backends.onnx import OnnxBackend
    from edgeswarm.sim.world import Stream, World
    from edgeswarm.strategies.base import Batch

    lenet5 = zoo.built("lenet5", 3, shape=(1, 12, 12), heads=1)
    perceptron = zoo.built("mlp", 3, shape=(144,), options={"hidden": (16,)}, heads=1)
    models = {"ann": lenet5, "bob": perceptron if other == "perceptron" else None}
    owned = {"ann": (0, 1), "bob": (1, 2)}
    public = PublicSet(images(1, (0, 1, 2), 96)[0], lenet5.card.labels)
    backend = OnnxBackend()
    strategies: dict[str, Any] = {}
    for name, held in models.items():
        method: Any = PrototypeDistillation(period_s=tw.PERIOD_S)
        if held is not None:
            backend.load(held)
            method = MultiHeadedDistillation(**{**KNOBS, "rate": 0.05, "serve": 1})
        strategies[name] = equipped(method, tw.SCHEMA, held, public=public)
    none = Stream(np.zeros((0, 144), np.float32), (), np.zeros(0))
    world = World(strategies.__getitem__, dict.fromkeys(models, none), 0, backend=backend)
    for at, name in enumerate(models):
        x, y = images(7 + at, owned[name], 100)
        world.deliver(world.nodes[name], Batch(0.0, x, tuple(str(label) for label in y)))
    world.run(155.0)
    for name, foreign in (("ann", 2), ("bob", 0)):
        x, _ = images(50, (foreign,), 50)
        state = world.nodes[name].agent.state
        answers, _ = finish(strategies[name].predict(state, x), backend.answer)
        alone, _ = finish(strategies[name].predict(state, x, True), backend.answer)
        assert np.mean([answer == str(foreign) for answer in answers]) > 0.8
        assert not any(answer == str(foreign) for answer in alone)
