"""A model's card: everything a strategy or an operator may know of it without running it.

A model is one flat float32 vector wherever strategies touch it. The card says how the vector is cut into named
parameters, what goes in and comes out, and which losses the model file carries gradients for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

FORMAT = 1
"""Version of the model file. Another one is refused: it may mean something else."""

BODY, HEAD = "body", "head"
"""Parts of the vector. The body comes first, so `vector[:card.body_size]` is what GATTA averages and
`vector[card.body_size:]` what it mixes (2305.13041, section 3.3)."""

PRIVATE, PUBLIC = "private", "public"
"""Groups of rows in a loss: the node's own labelled samples, and unlabelled samples that everybody has."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named tensor in the vector, in the vector's order. part: BODY or HEAD."""

    name: str
    shape: tuple[int, ...]
    part: str

    @property
    def size(self) -> int:
        """Numbers it takes in the vector."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What one sample is. shape: without the row axis, channels first for images, e.g. (1, 28, 28).

    kind: "image" or "vector".  units: for people ("grey 0 to 1"). Normalisation is part of the graph, never of the
    caller's work.
    """

    shape: tuple[int, ...]
    kind: str
    units: str

    @property
    def size(self) -> int:
        """Numbers per sample."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input of a loss besides `params`. shape: without the row axis.  dtype: "float32" or "int64".

    group: PRIVATE or PUBLIC: whose rows its first axis counts.  weight: it weighs rows; a row of weight 0 counts for
    nothing, which is how a short last batch is filled up to the common size.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    weight: bool = False


@dataclass(frozen=True, slots=True)
class LossSpec:
    """A loss the file carries: inputs besides `params`, and outputs besides the loss and its gradient."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One member of a model file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ModelCard:
    """See the module. Graph inputs are named `params`, `x`, ...; outputs `logits` (n, classes), `embedding`
    (n, embedding) and, with auxiliary heads, `aux` (n, heads, classes).

    labels: class names in the order of the logits ("" for a pure encoder: no labels).  flops: floating-point
    operations of one sample's forward pass (a multiply-add counts two).  activation_bytes: of one sample's forward
    pass, all intermediate values kept.  losses: by name ("ce", "distill").  files: members by name.  hash: sha256 of
    the rest of the card, which holds the hashes of all files: two nodes with one hash have one model.
    """

    name: str
    architecture: str
    parameters: tuple[Parameter, ...]
    input: InputSpec
    labels: tuple[str, ...]
    embedding: int
    heads: int
    losses: Mapping[str, LossSpec]
    flops: int
    activation_bytes: int
    licence: str
    producer: Mapping[str, str]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    hash: str = ""
    normalised: bool = False
    """Whether embeddings are scaled to length 1 by the graph itself."""

    @cached_property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def body_size(self) -> int:
        """Numbers of the body, which come first."""
        return sum(parameter.size for parameter in self.parameters if parameter.part == BODY)

    def layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Where each parameter lies in the vector, and its shape."""
        at, places = 0, {}
        for parameter in self.parameters:
            places[parameter.name] = (slice(at, at + parameter.size), parameter.shape)
            at += parameter.size
        return places
