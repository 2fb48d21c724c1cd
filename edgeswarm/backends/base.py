"""Arithmetic too heavy for the event loop, as values: a strategy yields one of these, a backend answers it.

Every backend gives the answers of `backends.reference`, which is the definition, only sooner. Strategies know flat
vectors and these requests; layers are known to backends alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.optimisers import Moments, Optimiser
from edgeswarm.messages import Array
from edgeswarm.models.file import Model
from edgeswarm.values import value


@value(frozen=True, slots=True, eq=False)
class Cluster:
    """Weighted per-class k-means of a prototype set. The answer is what `maths.clustering.kmeans_merge` returns.

    vectors (k, d) float32, labels (k,) int, counts (k,) float32; target: prototypes wanted; keep_last: (k,) bool,
    prototypes to merge last (boundary); seed: of k-means++.
    """

    vectors: Array
    labels: NDArray[np.int32]
    counts: Array
    target: int
    keep_last: NDArray[np.bool_]
    seed: int


@value(frozen=True, slots=True, eq=False)
class Divergence:
    """Distance between two weighted labelled sets with its noise floor; answer: `maths.divergence.Verdict`.

    now, sent: (vectors (k, d), labels (k,), counts (k,)).  method: one of `maths.divergence.METHODS`.
    """

    now: tuple[Array, NDArray[np.int32], Array]
    sent: tuple[Array, NDArray[np.int32], Array]
    method: str
    seed: int


@value(frozen=True, slots=True, eq=False)
class Linkage:
    """The paper's DBSCAN of a prototype set. The answer is what `maths.clustering.dbscan_merge` returns.

    vectors, labels, counts as in `Cluster`; low, high: prototypes wanted, as an interval.
    """

    vectors: Array
    labels: NDArray[np.int32]
    counts: Array
    low: int
    high: int


@value(frozen=True, slots=True, eq=False)
class PaperDistance:
    """The paper's Jensen-Shannon distance of two labelled sets; answer: a float in [0, 1]. See `maths.kde`.

    mine, theirs: (vectors (k, d), labels (k,)).
    """

    mine: tuple[Array, NDArray[np.int32]]
    theirs: tuple[Array, NDArray[np.int32]]
    seed: int


# ---- models ---------------------------------------------------------------------------------------------------------
#
# `model` is the hash of a model file the backend was given with `load`. params is the flat vector (p,) float32 of
# `ModelCard`. Rows of samples are x (n, ...) or (n, d): a backend brings them to the card's shape.


@value(frozen=True, slots=True, eq=False)
class Gradient:
    """Gradient of one of the model's losses; the answer is `Slope`.

    inputs: what `card.losses[loss].inputs` names, rows first. Weights that are left out are ones.
    """

    model: str
    loss: str
    params: Array
    inputs: Mapping[str, NDArray[Any]]


@value(frozen=True, slots=True, eq=False)
class LocalEpoch:
    """Steps of an optimiser over a node's own rows; the answer is `Trained`.

    data: all rows of each input of the loss.  picks: for each group of rows (`card.PRIVATE`, `card.PUBLIC`) the rows
    of each step, (steps, batch) int32; -1 fills a short batch up and weighs nothing.  proximal: (mu, reference):
    adds mu/2 |params - reference|^2.
    """

    model: str
    loss: str
    params: Array
    data: Mapping[str, NDArray[Any]]
    picks: Mapping[str, NDArray[np.int32]]
    optimiser: Optimiser
    moments: Moments
    proximal: tuple[float, Array] | None = None


@value(frozen=True, slots=True, eq=False)
class Embed:
    """Embeddings of samples; the answer is an array (n, card.embedding) float32. params None: those of the file."""

    model: str
    x: Array
    params: Array | None = None


@value(frozen=True, slots=True, eq=False)
class Predict:
    """All outputs of the forward graph; the answer maps "logits", "embedding", "aux" to arrays, rows first."""

    model: str
    x: Array
    params: Array | None = None


@value(frozen=True, slots=True, eq=False)
class Evaluate:
    """How well the model does on labelled rows; the answer is `Evaluation`. y: (n,) int64, positions in card.labels.

    head: -1 for the main head, else the auxiliary head to read.
    """

    model: str
    x: Array
    y: NDArray[np.int64]
    params: Array | None = None
    head: int = -1


@value(frozen=True, slots=True, eq=False)
class Slope:
    """gradient: (p,) float32.  loss: the loss itself.  outputs: by name, e.g. "logits"."""

    gradient: Array
    loss: float
    outputs: Mapping[str, Array]


@value(frozen=True, slots=True, eq=False)
class Trained:
    """params (p,), the optimiser's moments, and the loss of each step (steps,), before that step."""

    params: Array
    moments: Moments
    losses: Array


@value(frozen=True, slots=True, eq=False)
class Evaluation:
    """rows, right, and loss (mean cross-entropy) of labelled rows; per class: (classes,) counts of rows and of right
    answers. An empty set gives zeros."""

    rows: int
    right: int
    loss: float
    class_rows: NDArray[np.int64]
    class_right: NDArray[np.int64]


SetRequest: TypeAlias = Cluster | Divergence | Linkage | PaperDistance
ModelRequest: TypeAlias = Gradient | LocalEpoch | Embed | Predict | Evaluate
Request: TypeAlias = SetRequest | ModelRequest


class Backend(Protocol):
    """Who does the arithmetic. Safe to be called from several threads.

    between: called between two steps of a LocalEpoch; it may wait (heat, an inference that is due), or raise to give
    the epoch up. Whatever is raised, the request's own arrays are left as they were.
    """

    name: str
    between: Callable[[], None]

    def load(self, model: Model) -> None:
        """Make requests for `model.card.hash` answerable. Raises ModelError: the graph cannot be run here."""
        ...

    def answer(self, request: Request) -> Any:
        """See each request. Raises ModelError: unknown model, rows that do not fit.  OutOfMemory: nothing changed."""
        ...

    def answer_all(self, requests: Sequence[Request]) -> list[Any]:
        """Answers in the order of the requests; requests alike in model, kind and shapes may be answered in one go."""
        ...
