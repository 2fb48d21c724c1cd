"""Multi-headed distillation: nodes learn from one another's predictions on public samples, through a chain of heads.

A. Zhmoginov, M. Sandler, N. Miller, G. Kristiansen, M. Vladymyrov. "Decentralized Learning with Multi-Headed
Distillation." arXiv 2211.15774, CVPR 2023; in the form of prediction exchange (section 4.2 of the project's note).

The main head learns the node's own labels alone. Auxiliary head k learns, on public rows, what head k - 1 of the surest
of its teachers says: head 1 imitates specialists, head 2 those who imitate them, and so on, one hop of the graph each.
No weights travel, so every node may have another model; the public set's class names are what they have in common.
A node without rows of its own learns from the public ones alone; it tells nothing.

Beyond the paper: see `teaching`. As published, but for the pool of snapshots, which is a table of predictions here, is
`PUBLISHED`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import LocalEpoch, Predict, Trained
from edgeswarm.messages import Array, Bids, Predictions
from edgeswarm.models.card import PUBLIC
from edgeswarm.strategies.base import Action, Answers, Batch, Event, Listen, Note, Received, Request, Started
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.local_model import BATCH, named, usable
from edgeswarm.strategies.own_rows import picks
from edgeswarm.strategies.refusals import refused
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.strategies.sharing_state import State, Step
from edgeswarm.strategies.teaching import Lessons, Panel, TeachingKnobs

LOSS = "distill"
LISTENING = "listening"
"""Number that says that the main head has learnt nothing so far, for want of rows of its own."""
PUBLISHED: dict[str, Any] = {
    "own": "always", "encoding": "float32", "gate": 0.0, "tested": False, "cap": 0.0, "ceiling": 1.0, "change": 0.0,
    "bids": False, "embedding_weight": 1.0, "split_weight": False, "aux_warmup": 0, "clip": 0.0,
}  # fmt: skip
"""Settings of the paper's form."""


@dataclass(frozen=True, eq=False)
class Taught(State):
    """lessons: what the node knows of others' opinions."""

    lessons: Lessons = field(default=cast(Lessons, None))


@dataclass(frozen=True)
class MultiHeadedDistillation(TeachingKnobs, Sharing):
    """The strategy; its settings are also those of `teaching.TeachingKnobs` and `local_model.ModelKnobs`.

    ranks: auxiliary heads that learn, 0: all that the model has.  aux_weight, embedding_weight: nu_aux of each head and
    nu_emb in the loss.  split_weight: aux_weight is for all heads together.  aux_warmup: steps in which these weights
    grow to their full size.  serve: which head answers, 0: the main one (`alone` always asks that), or the first
    auxiliary one for as long as the main one has learnt nothing.

    Raises ValueError: a model without auxiliary heads, or with a class that the public set does not name.
    """

    NAME: ClassVar[str] = "multi_headed_distillation"
    PARTS: ClassVar[tuple[str, ...]] = ()

    ranks: int = knob(0, 0, 64)
    aux_weight: float = knob(1.0, 0.0, 1e3)
    embedding_weight: float = knob(0.0, 0.0, 1e3)
    split_weight: bool = knob(True)
    aux_warmup: int = knob(0, 0, 10**9)
    serve: int = knob(0, 0, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.card is None or self.public is None:
            return
        if LOSS in self.card.losses and self.card.heads >= self.serve > self.heads():
            raise ValueError(f"serve is {self.serve}, but only {self.heads()} heads learn: raise ranks, or lower serve")
        if LOSS not in self.card.losses or self.serve > self.card.heads:
            raise ValueError(
                f"the model {self.card.name} has {self.card.heads} auxiliary heads, {self.name} needs "
                f"{max(1, self.serve)}: build it with `edgeswarm model build --heads {max(1, self.serve)}`"
            )
        missing = [label for label in self.card.labels if label not in self.public.classes]
        if missing:
            raise ValueError(f"the public set does not name the class {missing[0]!r} of the model {self.card.name}")
        if self.public.x.shape[1] != self.card.input.size:
            raise ValueError(
                f"rows of the public set have {self.public.x.shape[1]} numbers, the model {self.card.name} takes "
                f"{self.card.input.size}"
            )

    # ---- state -------------------------------------------------------------------------------------------------------

    def init(self, node: str, seed: int) -> Taught:
        """See `strategies.base.Strategy`."""
        return _taught(super().init(node, seed), self.nothing_heard())

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        return {**super().dump(state), "lessons": _lessons(state).dump(self.public_set())}

    def load(self, node: str, dumped: dict[str, Any]) -> Taught:
        """See `strategies.base.Strategy`. What was heard about another public set is forgotten."""
        return _taught(super().load(node, dumped), Lessons.load(dumped["lessons"], self.public_set()))

    # ---- events ------------------------------------------------------------------------------------------------------

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        if isinstance(event, Started):
            state = _taught(state, _lessons(state).restarted(event.at))
        return (yield from super().step(state, event))

    def _learn(self, state: State, event: Batch) -> Step:
        card, _ = self.model()
        after, actions = yield from super()._learn(state, event)
        if after is state:
            return after, actions
        labels, mask, _ = usable(card, event.x, event.y)
        place = np.array([self.public_set().classes.index(label) for label in card.labels])
        return _taught(after, self.seen(_lessons(after), event.x[mask], place[labels[mask]])), actions

    def _listen(self, state: State) -> list[Action]:
        return [Listen(self.channels(state.node, self.graph(state)))]

    def _heard(self, state: State, event: Received) -> tuple[State, list[Action]]:
        if event.sender == state.node or not isinstance(event.message, (Predictions, Bids)):
            return state, []
        before = _lessons(state)
        width = self.model()[0].embedding if self.embedding_weight else 0
        lessons, reason, notes = self.listened(
            before, event, self.schema, state.node, self.graph(state), self.heads(), width
        )
        if reason:
            return refused(state, event, reason)
        return (state if lessons is before else _taught(state, lessons)), notes

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """See `strategies.base.Strategy`; `alone` asks the main head, which has learnt this node's samples only."""
        card, _ = self.model()
        listening = LISTENING in state.numbers
        head = 0 if alone else self.serve or int(listening)
        if not head and not listening:
            return (yield from super().predict(state, x, alone))
        x = np.atleast_2d(np.asarray(x, np.float32))
        if x.shape[1] != card.input.size:
            raise ValueError(f"rows have {card.input.size} features, not {x.shape[1]}")
        if not head or not state.rounds or not len(x):
            return [None] * len(x), np.zeros(len(x), np.float32)
        answer = yield Predict(card.hash, x, self.served(state))
        return named(card, answer["aux"][:, head - 1])

    # ---- a round -----------------------------------------------------------------------------------------------------

    def learns(self, state: State, at: float) -> bool:
        """See `Sharing.learns`. What others say will do."""
        heard = (teacher.spoke(at, self.forget_s).any() for teacher in _lessons(state).teachers.values())
        return super().learns(state, at) or (bool(self.aux_weight or self.embedding_weight) and any(heard))

    def _round(self, state: State, at: float) -> Step:
        state, result, notes = yield from self._taught_epoch(state, at)
        numbers = {name: number for name, number in state.numbers.items() if name != LISTENING}
        if not len(state.rows):
            numbers[LISTENING] = 1.0
        state = replace(state, params=result.params, numbers=numbers)
        notes.append(Note("loss", float(result.losses.mean())))
        if LISTENING in numbers or state.rounds % self.refresh_every:
            return state, notes
        p, embedding = yield from self._opinion(state)
        lessons, actions = self.refreshed(
            _lessons(state), p, embedding, self.schema, state.epoch, state.rounds, at, state.node, self.graph(state),
            self.forget_s, state.samples,
        )  # fmt: skip
        return _taught(state, lessons), [*notes, *actions]

    def _taught_epoch(self, state: State, at: float) -> Generator[Request, Any, tuple[State, Trained, list[Action]]]:
        """`trained`, with the distillation terms as soon as there is somebody to learn from."""
        card, _ = self.model()
        public, heads = self.public_set(), self.heads()
        panel = self.panel(_lessons(state), state.node, self.graph(state), heads, at, self.forget_s)
        notes = self.judged(panel)
        state = self.scheduled(state)
        share = min(1.0, state.moments.step / self.aux_warmup) if self.aux_warmup else 1.0
        nu_aux = share * self.aux_weight / (heads if self.split_weight else 1)
        nu_embedding = share * self.embedding_weight
        own = self.request(state, state.params)
        if len(state.rows) and not (panel.names and (nu_aux or nu_embedding)):
            result = yield own
            return self.learnt(state, result.moments), result, notes
        steps, batch = self.steps, self.batch or BATCH
        seed = (state.seed, state.counter - 1, 1)
        drawn = picks(len(public.x), steps, batch, state.seed ^ 1, state.counter - 1)
        rows = np.maximum(drawn, 0).ravel().astype(np.intp)
        said, taught = panel.taught(self.choice, rows, seed)
        place = [public.classes.index(label) for label in card.labels]
        teacher = np.zeros((rows.size, card.heads, len(card.labels)), np.float32)
        weight = np.zeros((rows.size, card.heads), np.float32)
        known = said[:, :, place]
        mass = known.sum(axis=2)
        taught = taught * (mass > 0.5)  # what is said of classes that this model does not have is no lesson
        teacher[:, :heads] = known / np.maximum(mass, 1e-6)[:, :, None]
        each = min(batch, len(public.x))  # rows in a step: `picks` draws no row twice
        weight[:, :heads] = taught * (nu_aux / each)
        towards, near = self._embeddings(panel, rows, nu_embedding / each)
        data = {
            **own.data,
            "public_x": public.x[rows],
            "teacher_embedding": towards,
            "embedding_weight": near,
            "teacher": teacher,
            "teacher_weight": weight,
        }
        public_picks = np.where(drawn >= 0, np.arange(drawn.size).reshape(drawn.shape), -1).astype(np.int32)
        request: LocalEpoch = replace(own, loss=LOSS, data=data, picks={**own.picks, PUBLIC: public_picks})
        result = yield request
        notes.append(Note("rows_taught", float(taught[:, 0].mean())))
        return self.learnt(state, result.moments), result, notes

    def _embeddings(self, panel: Panel, rows: NDArray[np.intp], weight: float) -> tuple[Array, Array]:
        """The mean of the teachers' embeddings of `rows` (r, e), of unit length each, and its weight (r,).

        Only of teachers with embeddings of this model's size. The mean over teachers of the squared distances has the
        gradient of the squared distance to their mean.
        """
        card, _ = self.model()
        total = np.zeros((rows.size, card.embedding), np.float32)
        count = np.zeros(rows.size, np.float32)
        for name, teacher, belief in zip(panel.names, panel.teachers, panel.belief, strict=True):
            if weight and belief.any() and name != panel.node and teacher.embedding.shape[1] == card.embedding:
                spoke = (teacher.versions[rows] >= 0).astype(np.float32)
                total += teacher.embedding[rows] * (spoke / np.float32(127))[:, None]
                count += spoke
        total /= np.maximum(count, 1)[:, None]
        return total, np.where(count > 0, weight, 0).astype(np.float32)

    def _opinion(self, state: State) -> Generator[Request, Any, tuple[Array, Array | None]]:
        """What heads 0 to ranks - 1 say of the public set (n, heads, classes), and the embeddings where they travel."""
        card, _ = self.model()
        public, heads = self.public_set(), self.heads()
        answer = yield Predict(card.hash, public.x, state.params)
        logits = np.concatenate([answer["logits"][:, None], answer["aux"][:, : heads - 1]], axis=1)
        logits = logits - logits.max(axis=2, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=2, keepdims=True)
        said = np.zeros((*p.shape[:2], len(public.classes)), np.float32)
        said[:, :, [public.classes.index(label) for label in card.labels]] = p
        return said, answer["embedding"] if self.embedding_weight else None

    def heads(self) -> int:
        """Auxiliary heads that learn, which is also how many heads are told of."""
        card, _ = self.model()
        return min(self.ranks or card.heads, card.heads)


def _lessons(state: State) -> Lessons:
    return cast(Taught, state).lessons


def _taught(state: State, lessons: Lessons) -> Taught:
    if isinstance(state, Taught):
        return replace(state, lessons=lessons)
    return Taught(**{each.name: getattr(state, each.name) for each in fields(state)}, lessons=lessons)
