"""Rules every strategy keeps, as functions without a test framework: `run_all(strategy)` names those that are broken.

For whoever writes a method: each rule plays a short, fixed story (three nodes, two classes, a minute) with the strategy
as it is given, so give it settings under which it shares and compresses within a minute. A rule is a function
`check_...(strategy, answer)` that raises AssertionError with what went wrong. A method that cannot keep a rule says so
where it is tested, with the reason.

A method that trains a model is given one that takes D numbers and knows the two classes "no" and "yes", by
`base.equipped`, and `answer` is then that of a backend which has loaded it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias

import msgpack
import numpy as np

from edgeswarm.backends import sets
from edgeswarm.messages import EVERYONE, SNAPSHOT, Array, Bids, Predictions, Prototypes, Pull, Weights
from edgeswarm.strategies.base import (
    Action,
    Batch,
    Event,
    Peers,
    Received,
    Request,
    Send,
    Sent,
    Started,
    Wake,
    Woke,
    finish,
    wants_model,
)

NODES = ("ann", "bob", "cid")
LENGTH_S = 60.0
SAMPLES = 120
D = 3
DELAY_S = 0.01
MESSAGE_BYTES = 200
"""What every message is said to have taken; strategies must not depend on the true size to be correct."""

Answer = Callable[[Request], Any]
Check = Callable[[Any, Answer], None]


# ---- the story -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scene:
    """One step of one node: what happened, and what it did."""

    node: str
    event: Event
    actions: list[Action]


def play(
    strategy: Any,
    answer: Answer = sets.answer,
    seed: int = 1,
    scale: float = 1.0,
    watch: Callable[..., None] | None = None,
    lost: int = 0,
) -> list[Scene]:
    """Three nodes learn two classes and talk to one another for a minute; all that happened, in order.

    answer: who does the arithmetic.  scale: factor of the samples.  lost: of what is said to everybody, every so many
    deliveries one does not come, so that it has to be asked for; 0: all come.
    watch(strategy, state before, event, state after) is called for every step.
    """
    states = {node: strategy.init(node, seed) for node in NODES}
    due: list[tuple[float, int, str, Event]] = []
    order, deliveries = itertools.count(), itertools.count(1)
    alarms: dict[tuple[str, str], float] = {}
    story: list[Scene] = []

    def post(at: float, node: str, event: Event) -> None:
        heapq.heappush(due, (at, next(order), node, event))

    for number, node in enumerate(NODES):
        post(0.0, node, Started(0.0, 1))
        post(0.0, node, Peers(0.0, tuple(peer for peer in NODES if peer != node)))
        for at, x, y in samples(seed + number, scale):
            post(at, node, Batch(at, x[None], (y,)))
    while due and due[0][0] <= LENGTH_S:
        at, _, node, event = heapq.heappop(due)
        if isinstance(event, Woke) and alarms.pop((node, event.name), None) != event.at:
            continue
        before = states[node]
        states[node], actions = finish(strategy.step(before, event), answer)
        story.append(Scene(node, event, actions))
        if watch is not None:
            watch(strategy, before, event, states[node])
        for action in actions:
            if isinstance(action, Wake):
                alarms[node, action.name] = action.at
                post(action.at, node, Woke(action.at, action.name))
            elif isinstance(action, Send):
                post(at, node, Sent(at, action.to, action.message, MESSAGE_BYTES))
                for peer in NODES:
                    if peer == node or action.to not in (EVERYONE, peer):
                        continue
                    if action.to == peer or not lost or next(deliveries) % lost:
                        post(at + DELAY_S, peer, Received(at + DELAY_S, node, sealed(action.message)))
    return story


def sealed(message: Any) -> Any:
    """A message as it comes off the wire: its arrays are views of bytes that nobody may write to."""
    if isinstance(message, np.ndarray):
        copy = message.copy()
        copy.setflags(write=False)
        return copy
    if not is_dataclass(message) or isinstance(message, type):
        return message
    return replace(message, **{each.name: sealed(getattr(message, each.name)) for each in fields(message)})


def samples(seed: int, scale: float = 1.0) -> Iterator[tuple[float, Array, str]]:
    """Time, features (D,) and class of one node's samples: two overlapping clouds that move slowly."""
    rng = np.random.default_rng(seed)
    for i in range(SAMPLES):
        label = int(rng.integers(2))
        x = rng.normal(size=D) + (2.0 * label - 1.0) * np.array([1.0, i / SAMPLES, 0.0])
        yield LENGTH_S * (i + 0.5) / SAMPLES, (scale * x).astype(np.float32), "yes" if label else "no"


def events_of(story: list[Scene], node: str) -> list[Event]:
    """What happened to one node."""
    return [scene.event for scene in story if scene.node == node]


def replay(
    strategy: Any, state: Any, events: Sequence[Event], answer: Answer = sets.answer
) -> tuple[Any, list[Action]]:
    """State after these events, and everything that was wanted on the way."""
    actions: list[Action] = []
    for event in events:
        state, more = finish(strategy.step(state, event), answer)
        actions += more
    return state, actions


def plain(value: Any) -> Any:
    """`value` as nested tuples that can be compared: arrays by type, shape and bytes, records by their fields."""
    if isinstance(value, (np.ndarray, np.generic)):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), plain(held)) for key, held in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(plain(each) for each in value)
    if is_dataclass(value):
        return (type(value).__name__, *(plain(getattr(value, each.name)) for each in fields(value)))
    return repr(value)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the entries of two dumps that are not the same."""
    return sorted(key for key in {*one, *other} if plain(one.get(key)) != plain(other.get(key)))


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def _probes() -> Array:
    return np.random.default_rng(99).normal(size=(40, D)).astype(np.float32)


# ---- the rules -------------------------------------------------------------------------------------------------------


def check_same_seed_same_actions(strategy: Any, answer: Answer = sets.answer) -> None:
    """The same seed and events give the same actions."""
    one, two = (plain([[scene.node, scene.actions] for scene in play(strategy, answer)]) for _ in range(2))
    _require(one == two, "two plays with one seed differ")


def check_it_shares(strategy: Any, answer: Answer = sets.answer) -> None:
    """Something is sent to somebody: the other rules would hold trivially for a method that never speaks."""
    sent = sum(isinstance(action, Send) for scene in play(strategy, answer) for action in scene.actions)
    _require(sent > 0, "nothing was sent in a minute; choose settings under which there is")


def check_step_keeps_the_old_state(strategy: Any, answer: Answer = sets.answer) -> None:
    """A step leaves the state it was given as it was."""
    held: dict[int, Any] = {}

    def watch(strategy: Any, before: Any, event: Event, after: Any) -> None:
        if id(before) in held:
            changed = differing(held.pop(id(before)), strategy.dump(before))
            _require(not changed, f"{type(event).__name__} changed the old state's {', '.join(changed)}")
        held[id(after)] = _frozen(strategy.dump(after))

    play(strategy, answer, watch=watch)


def check_repeated_message_changes_nothing(strategy: Any, answer: Answer = sets.answer) -> None:
    """Every message delivered twice leaves the same state, and so does every one that comes again at the end; also
    where some are lost, so that some are answers to what was asked."""
    for lost in (0, 3):
        _require_deaf_to_repeats(strategy, answer, events_of(play(strategy, answer, lost=lost), NODES[0]))


def _require_deaf_to_repeats(strategy: Any, answer: Answer, events: list[Event]) -> None:
    twice = [again for event in events for again in ((event, event) if isinstance(event, Received) else (event,))]
    once, _ = replay(strategy, strategy.init(NODES[0], 1), events, answer)
    doubled, _ = replay(strategy, strategy.init(NODES[0], 1), twice, answer)
    changed = differing(strategy.dump(once), strategy.dump(doubled))
    _require(not changed, f"messages delivered twice changed {', '.join(changed)}")
    for event in events:
        if isinstance(event, Received) and not isinstance(event.message, Pull):  # a question may be asked again
            doubled, _ = replay(strategy, doubled, [replace(event, at=LENGTH_S)], answer)
    changed = differing(strategy.dump(once), strategy.dump(doubled))
    _require(not changed, f"messages that came late, when newer ones had, changed {', '.join(changed)}")


def check_order_of_messages_does_not_matter(strategy: Any, answer: Answer = sets.answer) -> None:
    """A node that hears the same messages in another order answers the same, before its next round and after it, and
    says the same in it; with samples of its own and without.

    Differences between vectors are left out, and have a rule of their own: they are of use in their order alone.
    """
    events = events_of(play(strategy, answer), NODES[0])
    received = [event for event in events if isinstance(event, Received) and not _is_difference(event)]
    own = [event for event in events if isinstance(event, Batch)]
    for batches in ([], own[: len(own) // 2]):
        beginning: list[Event] = [Started(0.0, 1), Peers(0.0, NODES[1:]), *batches]
        start, _ = replay(strategy, strategy.init(NODES[0], 1), beginning, answer)
        found = []
        for seed in range(4):
            order = np.random.default_rng(seed).permutation(len(received)) if seed else np.arange(len(received))
            state, _ = replay(strategy, start, [replace(received[i], at=LENGTH_S) for i in order], answer)
            found.append(_outcome(strategy, state, events, answer))
        for other in found[1:]:
            _require_alike(found[0], other, "messages in another order")


def check_order_of_differences_does_not_matter(strategy: Any, answer: Answer = sets.answer) -> None:
    """A difference that comes before the one it builds on is not used; but once that one has come, and the answer to
    what was asked meanwhile, a node is where it is with both in order. One that comes after the answer changes nothing.

    Of two differences between vectors that one node tells another; a method that tells none has nothing to keep.
    """
    story = play(strategy, answer)
    here, there = NODES[:2]
    events = events_of(story, here)
    pair = _chained(event for event in events if isinstance(event, Received) and event.sender == there)
    if pair is None:
        return
    first, second = ([replace(event, at=LENGTH_S) for event in step] for step in pair)
    begins, ends = pair[0][0].at, pair[1][0].at
    known = [event for event in events if event.at < begins]
    start, _ = replay(strategy, strategy.init(here, 1), known, answer)
    until = [event for event in events_of(story, there) if event.at < ends]
    teller, _ = replay(strategy, strategy.init(there, 1), until, answer)

    def answered(actions: list[Action]) -> list[Event]:
        asked = [each for each in actions if isinstance(each, Send) and each.to == there]
        pulls = [Received(LENGTH_S, here, sealed(each.message)) for each in asked]
        _, replies = replay(strategy, teller, pulls, answer)
        words = [each for each in replies if isinstance(each, Send) and each.to in (here, EVERYONE)]
        return [Received(LENGTH_S, there, sealed(each.message)) for each in words]

    def outcome(state: Any) -> Outcome:
        return _outcome(strategy, state, events, answer)

    early, asked = replay(strategy, start, second, answer)
    _require_alike(outcome(start), outcome(early), "a difference without the one it builds on", questions=False)
    right, _ = replay(strategy, start, [*first, *second], answer)
    late, more = replay(strategy, early, first, answer)
    late, _ = replay(strategy, late, answered([*asked, *more]), answer)
    _require_alike(outcome(right), outcome(late), "differences in another order, and what was asked for,")
    whole, _ = replay(strategy, early, answered(asked), answer)
    again, _ = replay(strategy, whole, first, answer)
    _require_alike(outcome(whole), outcome(again), "a difference that came late, when the whole had,")


def _chained(heard: Iterable[Received]) -> tuple[list[Received], list[Received]] | None:
    """Differences of one step of their sender's, and those of its next that build on them; None where none do."""
    steps = [list(step) for _, step in itertools.groupby(filter(_is_difference, heard), lambda event: event.at)]

    def place(event: Received, version: str) -> tuple[str, int, int]:
        assert isinstance(event.message, Weights)
        return event.message.part, event.message.epoch, getattr(event.message, version)

    def builds(step: list[Received], on: list[Received]) -> bool:
        return {place(event, "base") for event in step} <= {place(event, "version") for event in on}

    pairs = [(one, two) for one, two in itertools.pairwise(steps) if builds(two, one)]
    return pairs[len(pairs) // 2] if pairs else None


Outcome: TypeAlias = tuple[tuple[list[str | None], Array], tuple[list[str | None], Array], list[Send]]


def _outcome(strategy: Any, state: Any, events: list[Event], answer: Answer) -> Outcome:
    """What a node answers before its next round and after it, and what it says in it."""
    before = finish(strategy.predict(state, _probes()), answer)
    state, actions = replay(strategy, state, _alarms(events), answer)
    after = finish(strategy.predict(state, _probes()), answer)
    return before, after, [action for action in actions if isinstance(action, Send)]


def _require_alike(one: Outcome, other: Outcome, cause: str, questions: bool = True) -> None:
    """questions: whether what is asked counts as said."""
    for (names, confidences), (other_names, others) in zip(one[:2], other[:2], strict=True):
        _require(names == other_names, f"{cause} led to other answers")
        _require(bool(np.allclose(confidences, others, atol=1e-5)), f"{cause} changed answers")
    said = [[send for send in each[2] if questions or not isinstance(send.message, Pull)] for each in (one, other)]
    _require(plain(said[0]) == plain(said[1]), f"{cause} changed what is said")


def check_stranger_is_ignored(strategy: Any, answer: Answer = sets.answer) -> None:
    """Messages of another schema, model or public set, from oneself, or of a model's node that is no neighbour teach
    nothing and are not answered. What may change is the entry "strange" of a dump, peers whose refusal was noted."""
    events = events_of(play(strategy, answer), NODES[0])
    state, _ = replay(strategy, strategy.init(NODES[0], 1), events, answer)
    before, dumped = state, strategy.dump(state)
    heard = [event for event in events if isinstance(event, Received)][-8:]
    strangers = [each for event in heard for each in _strangers(event)]
    if wants_model(strategy):
        asks = Received(LENGTH_S, "stranger", Pull(strategy.schema, 0, SNAPSHOT))
        strangers.append(("a question of a node that is no neighbour", asks))
    for what, strange in strangers:
        state, actions = replay(strategy, state, [strange], answer)
        _require(not any(isinstance(action, Send) for action in actions), f"{what} was answered")
        changed = [name for name in differing(dumped, strategy.dump(state)) if name != "strange"]
        _require(not changed, f"{what} changed {', '.join(changed)}")
    one, two = (replay(strategy, each, _alarms(events), answer) for each in (before, state))
    _require(plain(one[1]) == plain(two[1]), "strangers changed what is done in the next round")


def _strangers(event: Received) -> Iterator[tuple[str, Received]]:
    """What must be ignored, made of what was not: who it is from or what is wrong with it, and the event."""
    message = event.message
    yield "one's own message", replace(event, sender=NODES[0])
    newer: dict[str, Any] = {} if isinstance(message, Pull) else {"version": message.version + 1000}
    schema = replace(message, schema=message.schema ^ 1, **newer)
    yield "a stranger of another schema", replace(event, sender="stranger", message=schema)
    yield "a peer of another schema", replace(event, message=schema)
    if isinstance(message, (Weights, Predictions, Bids)):
        yield "a node that is no neighbour", replace(event, sender="stranger", message=replace(message, **newer))
    if isinstance(message, Weights):
        yield "another model", replace(event, message=replace(message, model=message.model ^ 1, **newer))
    if isinstance(message, (Predictions, Bids)):
        yield "another public set", replace(event, message=replace(message, public=message.public ^ 1, **newer))


def _is_difference(event: Received) -> bool:
    return isinstance(event.message, Weights) and event.message.base != SNAPSHOT


def _alarms(events: list[Event]) -> list[Event]:
    """A round now: whatever the node had asked to be woken for."""
    return [Woke(LENGTH_S, name) for name in sorted({event.name for event in events if isinstance(event, Woke)})]


def check_checkpoint_resumes_as_if_never_stopped(strategy: Any, answer: Answer = sets.answer) -> None:
    """Dumped to plain data, packed, loaded: the rest of the story then goes as it would have."""
    events = events_of(play(strategy, answer), NODES[0])
    for cut in (1, len(events) // 3, 2 * len(events) // 3):
        state, _ = replay(strategy, strategy.init(NODES[0], 1), events[:cut], answer)
        resumed = strategy.load(NODES[0], unpacked(packed(strategy.dump(state))))
        changed = differing(strategy.dump(state), strategy.dump(resumed))
        _require(not changed, f"dump and load changed {', '.join(changed)}")
        end, actions = replay(strategy, state, events[cut:], answer)
        other_end, other_actions = replay(strategy, resumed, events[cut:], answer)
        _require(plain(actions) == plain(other_actions), "after loading it acts differently")
        changed = differing(strategy.dump(end), strategy.dump(other_end))
        _require(not changed, f"after loading it ended with another {', '.join(changed)}")


def check_other_state_is_refused(strategy: Any, answer: Answer = sets.answer) -> None:
    """A state of other features, or spoilt, is a ValueError."""
    dumped = strategy.dump(strategy.init(NODES[0], 1))
    for spoilt in ({**dumped, "schema": strategy.schema ^ 1}, {**dumped, "strategy": "other"}, {}):
        try:
            strategy.load(NODES[0], spoilt)
        except ValueError:
            continue
        raise AssertionError("a state that does not fit was loaded")


def check_huge_inputs_stay_finite(strategy: Any, answer: Answer = sets.answer) -> None:
    """Features of 1e30 lead to finite confidences and messages that peers would take."""

    def watch(strategy: Any, before: Any, event: Event, after: Any) -> None:
        if isinstance(event, Received):
            names, confidences = finish(strategy.predict(after, 1e30 * _probes()), answer)
            _require(len(names) == 40, "a row without an answer")
            _require(bool(np.isfinite(confidences).all()), "a confidence is not finite")
            _require(bool(((confidences >= 0) & (confidences <= 1 + 1e-6)).all()), "a confidence is not in [0, 1]")

    with np.errstate(all="raise", under="ignore"):
        story = play(strategy, answer, scale=1e30, watch=watch)
    for scene in story:
        for action in scene.actions:
            if isinstance(action, Send) and isinstance(action.message, Prototypes):
                vectors = action.message.vectors
                for held in (vectors.codes, vectors.scale, vectors.offset, action.message.summary):
                    _require(bool(np.isfinite(held.astype(float)).all()), "a message holds what is not finite")


def check_empty_state_knows_nothing(strategy: Any, answer: Answer = sets.answer) -> None:
    """Before anything was learnt the answer is None, with confidence 0."""
    names, confidences = finish(strategy.predict(strategy.init(NODES[0], 1), _probes()), answer)
    _require(names == [None] * 40 and not confidences.any(), "an empty state has answers")


def check_predict_changes_nothing(strategy: Any, answer: Answer = sets.answer) -> None:
    """Asking leaves the state as it was, and asking again gives the same answer; none for no rows."""
    state, _ = replay(strategy, strategy.init(NODES[0], 1), events_of(play(strategy, answer), NODES[0]), answer)
    before = _frozen(strategy.dump(state))
    for alone in (False, True):
        one, two = (plain(finish(strategy.predict(state, _probes(), alone), answer)) for _ in range(2))
        _require(one == two, "the same question was answered in two ways")
        _require(len(finish(strategy.predict(state, _probes()[:0], alone), answer)[0]) == 0, "no rows, yet an answer")
    changed = differing(before, strategy.dump(state))
    _require(not changed, f"predict changed {', '.join(changed)}")


ALL: tuple[Check, ...] = (
    check_it_shares,
    check_same_seed_same_actions,
    check_step_keeps_the_old_state,
    check_repeated_message_changes_nothing,
    check_order_of_messages_does_not_matter,
    check_order_of_differences_does_not_matter,
    check_stranger_is_ignored,
    check_checkpoint_resumes_as_if_never_stopped,
    check_other_state_is_refused,
    check_huge_inputs_stay_finite,
    check_empty_state_knows_nothing,
    check_predict_changes_nothing,
)


def run_all(strategy: Any, except_for: tuple[str, ...] = (), answer: Answer = sets.answer) -> dict[str, str]:
    """Rules that `strategy` breaks, by name, with what went wrong; empty is good.

    except_for: rules not to try.  answer: who does its arithmetic; that of a backend with its model for methods that
    train one.
    """
    broken = {}
    for check in ALL:
        if check.__name__ in except_for:
            continue
        try:
            check(strategy, answer)
        except AssertionError as error:
            broken[check.__name__] = str(error)
    return broken


# ---- plain data ------------------------------------------------------------------------------------------------------


def packed(dumped: Any) -> bytes:
    """A dump as bytes, arrays included. Raises TypeError for anything but plain data."""

    def array(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return msgpack.ExtType(1, msgpack.packb([value.dtype.str, list(value.shape), value.tobytes()]))
        raise TypeError(f"a dump holds a {type(value).__name__}")

    data: bytes = msgpack.packb(dumped, default=array)
    return data


def unpacked(data: bytes) -> Any:
    """The dump that was packed; lists stay lists, and arrays are read-only."""

    def array(code: int, held: bytes) -> Any:
        dtype, shape, values = msgpack.unpackb(held)
        return np.frombuffer(values, dtype).reshape(shape)

    return msgpack.unpackb(data, ext_hook=array, strict_map_key=False)


def _frozen(dumped: Any) -> Any:
    """A dump that no later change can reach."""
    return unpacked(packed(dumped))
