"""GATTA: an averaged body, and a head for which every node weighs its neighbours' heads by attention.

Z. Tian and others, "Distributed Learning over Networks with Graph-Attention-Based Personalization", arXiv 2305.13041;
"specification" means this project's reading of it. The body is averaged with the neighbours (`body_average`). For the
head, three readings of what a node tells (h) and what it uses:

"a"      the last layer is mix phi + (1 - mix) agg, where phi is the node's own and agg the attention-weighted sum of
         the neighbours' h; phi, the attention and the body are trained together. h is agg: the published FEMNIST code.
"b"      the same, and h is the whole last layer: the published PyTorch code.
"class"  this project's. h is the node's own head, and attention works class by class: what a neighbour's head has
         learnt of a class points the way of one's own if both see that class. The numbers of a class are averaged over
         the node and the neighbours whose cosine is at least `least`, weighed by softmax(sharpness cosine). The gate is
         that threshold: a class for which nobody is alike stays private, so with no likeness at all this is
         `body_average`. Nothing is trained for it, and there is nothing to warm up. The threshold is high on purpose:
         heads that have been averaged once look more alike, so one false friend brings more (with 0.6, nodes that order
         their labels differently lost 13 points against the control).

The paper's links with little weight can be skipped (its rule is not known; `skip`): a head that is not wanted is not
subscribed to, so it does not come down this node's link. Bodies come from all neighbours, except with "link", a control
that shows why.

Differs from the paper, for all readings: nobody waits, so a node uses the newest head it has, its score lowered by
`fading` per round of age beyond the first, and none older than `age_limit` rounds. A node that hears nobody uses its
own h for the sum.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import Gradient, Slope
from edgeswarm.errors import NotFinite
from edgeswarm.maths import attention, optimisers
from edgeswarm.maths.attention import Attention, Blend, Places
from edgeswarm.maths.optimisers import Moments
from edgeswarm.messages import Array
from edgeswarm.models.card import HEAD, PRIVATE, ModelCard
from edgeswarm.strategies.base import Action, Decision, Listen, Note, Request
from edgeswarm.strategies.body_average import BodyAverage
from edgeswarm.strategies.exchange import WHOLE_SCHEMES
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.local_model import LOSS
from edgeswarm.strategies.sharing_state import Copy, State

READINGS = ("class", "a", "b")
SKIPS = ("none", "share", "top", "link")


@dataclass(frozen=True)
class GATTA(BodyAverage):
    """The strategy; the other settings are those of `body_average.BodyAverage`.

    head_scheme: how h travels.  fading, age_limit: see the module; age_limit in rounds.
    skip: "share" drops neighbours of less than `skip_share` of the mean weight, "top" all but the fewest that carry
    `top_share` of the weight (q, what is dropped, is then bounded: see `attention.skipped`), "link" is "share" and
    drops their bodies too. None in the first `warm_rounds`, and every `probe_every` rounds all are heard again: the
    round after that chooses, by the weights of all, who is dropped until the next.
    Readings a and b alone: mix, whether it is trained (its logit moves with all else, starting from `mix`), `uniform`
    weights instead of attention (the control), and the h that all begin with: the model's own head, or N(0, 1).
    Reading class alone: sharpness, least.

    Raises ValueError: reading class, and `places_of` does not know its way in the model's head.
    """

    NAME: ClassVar[str] = "gatta"
    PARTS: ClassVar[tuple[str, ...]] = ("body", "head")

    scheme: str = knob("int8", choices=WHOLE_SCHEMES)
    reading: str = knob("class", choices=READINGS)
    head_scheme: str = knob("float16", choices=WHOLE_SCHEMES)
    fading: float = knob(0.1, 0.0, 100.0)
    age_limit: float = knob(20.0, 1.0, 1e6)
    sharpness: float = knob(5.0, 0.0, 1000.0)
    least: float = knob(0.8, -1.0, 1.0)
    mix: float = knob(0.9, 0.0, 1.0)
    train_mix: bool = knob(False)
    uniform: bool = knob(False)
    start_head: str = knob("model", choices=("model", "normal"))
    skip: str = knob("none", choices=SKIPS)
    skip_share: float = knob(0.5, 0.0, 1.0)
    top_share: float = knob(0.9, 0.01, 1.0)
    warm_rounds: int = knob(5, 0, 10**6)
    probe_every: int = knob(10, 1, 10**6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.card is not None and self.card.labels and self.reading == "class":
            _ = self._places  # refused here, not in a round

    # ---- a round -----------------------------------------------------------------------------------------------------

    def _local(
        self, state: State, body: Array, at: float
    ) -> Generator[Request, Any, tuple[State, float, list[Action]]]:
        peers, others, late = self._others(state, at)
        if self.reading == "class":
            weights = self._class_weights(state, others, late)
            head = attention.joined(self.split(state.params)[1], others, weights, self._places)
            state = replace(state, params=np.concatenate([body, head]))
            state, loss, notes = yield from super()._local(state, body, at)
            h, per_peer, mix = self.split(state.params)[1], weights[1:].mean(axis=1), float(weights[0].mean())
        else:
            state, loss = yield from self._trained_together(state, body, others, late)
            found = self._blend(state, others, late)
            h, per_peer, mix = found.aggregate if self.reading == "a" else found.head, found.weights, float(found.mix)
            if not np.isfinite(h).all():
                raise NotFinite("the blended last layer left the finite numbers")
            state, notes = replace(state, arrays={**state.arrays, "h": h}), []
        notes += [Note("mix", mix), Note("heads_heard", float(len(peers)))]
        notes += [Note("weight", float(weight), peer) for peer, weight in zip(peers, per_peer, strict=True)]
        state, more = self._unsubscribed(state, at, peers, others, per_peer, mix)
        return state, loss, [*notes, *more, self.told(state, "head", h, self.head_scheme)]

    def _trained_together(
        self, state: State, body: Array, others: Array, late: Array
    ) -> Generator[Request, Any, tuple[State, float]]:
        """The local epoch of readings a and b: body, phi and attention move in the same optimiser steps; h does not."""
        card, _ = self.model()
        params = np.concatenate([body, self.split(state.params)[1]])
        extra, h = self._attention(state).vector(), self._h(state)
        slots = self._extra_slots(state, extra)
        state = self.scheduled(state)
        epoch = self.request(state, params)
        rule = replace(epoch.optimiser, clip=0.0)  # it is the model's gradient that is clipped, as without attention
        moments = optimisers.owned(epoch.moments)
        extra_moments = optimisers.owned(Moments(moments.step, slots))
        losses: list[float] = []
        for places in epoch.picks[PRIVATE]:
            phi = self.split(params)[1]
            found = attention.blend(phi, Attention.of(extra), h, others, late, self._fixed, self.uniform)
            rows = np.maximum(places, 0)
            inputs = {"x": epoch.data["x"][rows], "y": epoch.data["y"][rows], "w": (places >= 0).astype(np.float32)}
            answer: Slope = yield Gradient(card.hash, LOSS, np.concatenate([params[: body.size], found.head]), inputs)
            with np.errstate(all="ignore"):  # what is not finite is found below
                step = optimisers.clipped(answer.gradient, self.clip) if self.clip else answer.gradient * 1
                down = self.split(step)[1]
                d_phi, d_extra = attention.slope(found, phi, h, others, down, self._fixed is None, self.uniform)
                params, extra = params * 1, extra * 1
                moments = optimisers.advance(rule, params, np.concatenate([step[: body.size], d_phi]), moments)
                extra_moments = optimisers.advance(rule, extra, d_extra, extra_moments)
            if not (np.isfinite(params).all() and np.isfinite(extra).all()):
                raise NotFinite("a step of body, last layer and attention left the finite numbers")
            losses.append(answer.loss)
        kept = {f"extra_{number}": slot for number, slot in enumerate(extra_moments.slots)}
        arrays = {**state.arrays, "attention": extra, **kept}
        state = replace(self.learnt(state, moments), params=params, arrays=arrays)
        return state, float(np.mean(losses))

    def _served_head(self, state: State, at: float) -> Array:
        _, others, late = self._others(state, at)
        if self.reading != "class":
            return self._blend(state, others, late).head
        own = self.split(state.params)[1]
        return attention.joined(own, others, self._class_weights(state, others, late), self._places)

    # ---- weights -----------------------------------------------------------------------------------------------------

    def weights(self, state: State) -> dict[str, float]:
        """Of each neighbour whose head is known, as the node would use it now; with class, the mean over classes."""
        peers, others, late = self._others(state, state.numbers.get("at", 0.0))
        if self.reading == "class":
            found = self._class_weights(state, others, late)[1:].mean(axis=1)
        else:
            found = self._blend(state, others, late).weights
        return dict(zip(peers, found.tolist(), strict=True))

    def _others(self, state: State, at: float) -> tuple[list[str], Array, Array]:
        """Neighbours whose head is known and young enough, their heads (k, S), and what age takes
        off their scores."""
        found: list[tuple[str, Copy, float]] = []
        for peer, copy in self.heard(state, "head", at).items():
            age_rounds = (copy.age_s + at - copy.at) / self.period_s
            if age_rounds <= self.age_limit:
                found.append((peer, copy, max(0.0, age_rounds - 1.0)))
        size = self.split(state.params)[1].size
        others = np.array([copy.vector for _, copy, _ in found], np.float32).reshape(-1, size)
        return [peer for peer, _, _ in found], others, np.array([self.fading * age for *_, age in found], np.float32)

    def _class_weights(self, state: State, others: Array, late: Array) -> NDArray[Any]:
        _, start = self.model()
        own, begun = self.split(state.params)[1], self.split(start)[1]
        cosines = attention.alike(own, others, begun, self._places)
        return attention.class_weights(cosines, self.sharpness, self.least, late)

    def _blend(self, state: State, others: Array, late: Array) -> Blend:
        phi = self.split(state.params)[1]
        return attention.blend(phi, self._attention(state), self._h(state), others, late, self._fixed, self.uniform)

    @property
    def _fixed(self) -> float | None:
        return None if self.train_mix else self.mix

    @cached_property
    def _places(self) -> Places:
        return places_of(self.model()[0])

    def _attention(self, state: State) -> Attention:
        """What was learnt, or what every start begins with."""
        known = state.arrays.get("attention")
        size = self.split(state.params)[1].size
        return (
            attention.fresh(size, self.mix, np.random.default_rng(state.seed)) if known is None else Attention.of(known)
        )

    def _extra_slots(self, state: State, like: Array) -> tuple[Array, ...]:
        """What the optimiser remembers of the attention; nothing where it begins anew, perhaps as another kind."""
        zero, known = np.zeros_like(like), state.arrays if state.moments.step and not self.restart else {}
        return tuple(known.get(f"extra_{at}", zero) for at in range(optimisers.SLOTS[self.optimiser]))

    def _h(self, state: State) -> Array:
        """The h this node told last; the first is the same for everybody."""
        if "h" in state.arrays:
            return state.arrays["h"]
        card, start = self.model()
        head = self.split(start)[1]
        if self.start_head == "model":
            return head
        return np.random.default_rng(int(card.hash[:16], 16)).standard_normal(head.size, np.float32)

    # ---- skipping ----------------------------------------------------------------------------------------------------

    def _unsubscribed(
        self, state: State, at: float, peers: list[str], others: Array, weights: Array, mix: float
    ) -> tuple[State, list[Action]]:
        """Whose heads are heard from now on."""
        if self.skip == "none":
            return state, []
        probing = state.rounds < self.warm_rounds or state.rounds % self.probe_every == 0
        before = muted(state)
        now, q, bound = before, state.numbers.get(_SKIPPED, 0.0), state.numbers.get(_BOUND, 0.0)
        if probing or not before:  # weights of the rest alone would drop more and more of them
            kept = np.ones(len(peers), bool)
            if not probing and weights.sum() > 0:
                near = len(self.neighbours(state))
                kept = (
                    attention.heaviest(weights, self.top_share)
                    if self.skip == "top"
                    else attention.above(weights, self.skip_share, near)
                )
            now = {peer for peer, stays in zip(peers, kept, strict=True) if not stays}
            q, bound = attention.skipped(weights, others, kept, mix) if now else (0.0, 0.0)
        numbers = {name: value for name, value in state.numbers.items() if not name.startswith(_MUTED)}
        chosen = {_SKIPPED: q, _BOUND: bound, **{_MUTED + peer: 1.0 for peer in sorted(now)}}
        state = replace(state, numbers={**numbers, **chosen})
        notes: list[Action] = [Note("skipped_weight", q), Note("skipped", float(len(now)))]
        notes += [Note("skipped_bound", bound)] if self.reading != "class" else []
        if now == before:
            return state, notes
        weight = dict(zip(peers, weights.tolist(), strict=True))
        notes += [
            Decision(at, "head", "skipped", "small_weight", {"weight": weight[peer]}, peer)
            for peer in sorted(now - before)
        ]
        notes += [Decision(at, "head", "heard", "probe", peer=peer) for peer in sorted(before - now)]
        return state, [*notes, *self._listen(state)]

    def _listen(self, state: State) -> list[Action]:
        silent = muted(state)
        wanted = {(peer, part) for peer in self.neighbours(state) for part in self._parts_of(peer, silent)}
        return [Listen(frozenset(wanted))]

    def heard(self, state: State, part: str, at: float) -> dict[str, Copy]:
        """See `Sharing.heard`: without those that are skipped; an old copy of theirs has no weight either."""
        silent = muted(state)
        return {
            peer: copy for peer, copy in super().heard(state, part, at).items() if part in self._parts_of(peer, silent)
        }

    def _parts_of(self, peer: str, silent: set[str]) -> tuple[str, ...]:
        if peer not in silent:
            return self.PARTS
        return () if self.skip == "link" else ("body",)


def muted(state: State) -> set[str]:
    """Neighbours whose heads are skipped."""
    return {name.removeprefix(_MUTED) for name in state.numbers if name.startswith(_MUTED)}


def places_of(card: ModelCard) -> Places:
    """What each number of the model's head is for: of the main head alone, auxiliary ones (-1) are not blended.

    The main head is the one weight with an axis as long as the list of classes and its bias right after it.
    Raises ValueError, one line: the card does not say which weight that is, or which of its axes counts classes.
    """
    count = len(card.labels)
    parameters = [parameter for parameter in card.parameters if parameter.part == HEAD]
    weights = [
        at for at, (name, shape) in enumerate((each.name, each.shape) for each in parameters)
        if len(shape) > 1 and count in shape and not _AUXILIARY.match(name)
    ]  # fmt: skip
    biased = [at for at in weights if at + 1 < len(parameters) and parameters[at + 1].shape == (count,)]
    found = biased or weights
    if len(found) != 1:
        raise ValueError(
            f"the model {card.name} has {len(found)} weights that could be its last layer: reading class needs to know "
            "which; choose strategy.reading a or b"
        )
    weight = parameters[found[0]]
    axes = [axis for axis, length in enumerate(weight.shape) if length == count]
    if len(axes) > 1:  # the embedding is as long as the list of classes
        axes = [0] if "torch" in card.producer else [len(weight.shape) - 1] if "edgeswarm" in card.producer else axes
    if len(axes) > 1:
        raise ValueError(
            f"the model {card.name} does not say which axis of {weight.name} counts classes: build it with another "
            "embedding, or choose strategy.reading a or b"
        )
    (axis,), inputs = axes, weight.size // count
    classes, features = [], []
    for at, parameter in enumerate(parameters):
        whose = features_of = np.full(parameter.size, -1)
        if at == found[0]:
            whose = np.indices(parameter.shape)[axis].ravel()
            rest = np.arange(inputs).reshape([n for i, n in enumerate(parameter.shape) if i != axis])
            features_of = np.broadcast_to(np.expand_dims(rest, axis), parameter.shape).ravel()
        elif biased and at == found[0] + 1:
            whose, features_of = np.arange(count), np.full(count, inputs)
        classes.append(whose)
        features.append(features_of)
    return Places(np.concatenate(classes).astype(np.int32), np.concatenate(features).astype(np.int32), count)


_AUXILIARY = re.compile(r"(V$|v$|(.*\.)?(auxiliary|added)\.)")
"""Names of parameters of auxiliary heads: of `models.perceptron`, of the built-in architectures, and those put on."""
_SKIPPED, _BOUND = "skipped_weight", "skipped_bound"
"""Names in state.numbers: the weight q of the heads that are skipped, and its bound, when they were chosen."""
_MUTED = "muted/"
"""Prefix of the names in state.numbers that say whose heads are skipped."""
