"""The losses a model file carries, as torch modules over the flat vector; their graphs are what boards differentiate.

`Forward`            params, x -> logits, embedding[, aux]
`CrossEntropy`       `ce`: sum_i w_i CE(y_i, logits_i) / max(sum_i w_i, 1e-12)
`Distillation`       `distill`: `ce` on a node's own rows, plus on public rows that everybody has what teachers say of
                     them (2211.15774, equations 3 to 5): sum_i v_i |n(e_i) - t_i|^2
                     + sum_ih u_ih CE(p_ih, softmax(aux_ih)), where n(e) = e / max(|e|, 1e-6). Public weights count as
                     they stand; the caller divides.

The vector is an input of every graph. Were the parameters constants, the exporter would fold them, and whatever it
folded would silently lose its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import log_softmax

from edgeswarm.export.modules import Standard, unit
from edgeswarm.models.card import PRIVATE, PUBLIC, InputSpec, LossSpec, Parameter, TensorSpec


class Forward(nn.Module):
    """(params (p,), x (n, *shape)) -> (logits, embedding[, aux]), parameters taken from the vector."""

    def __init__(self, model: Standard, parameters: Sequence[Parameter]) -> None:
        super().__init__()
        self.model = model
        own = {name.removeprefix("model."): name for name, _ in model.named_parameters()}
        self.layout = [(own[parameter.name], parameter.shape) for parameter in parameters]

    def forward(self, params: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        pieces = torch.split(params, [prod(shape) for _, shape in self.layout])
        views = {name: piece.view(shape) for (name, shape), piece in zip(self.layout, pieces, strict=True)}
        outputs: tuple[Tensor, ...] = functional_call(self.model, views, (x,))
        return outputs


class CrossEntropy(nn.Module):
    """(params, x, y (n,) int64, w (n,)) -> (loss (), logits). A label outside 0..classes-1 counts for nothing."""

    classes: Tensor

    def __init__(self, forward: Forward, classes: int) -> None:
        super().__init__()
        self.outputs = forward
        self.register_buffer("classes", torch.arange(classes), persistent=False)

    def targets(self, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (n,) that sum to 1 (or are all 0), and one-hot labels (n, classes) times these."""
        share = w / torch.clamp(w.sum(), min=1e-12)
        return share, torch.eq(y.unsqueeze(1), self.classes).to(w.dtype) * share.unsqueeze(1)

    def forward(self, params: Tensor, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        logits = self.outputs(params, x)[0]
        _, targets = self.targets(y, w)
        return -(targets * log_softmax(logits, 1)).sum(), logits


class CrossEntropyAndForward(CrossEntropy):
    """(params, x, y, w) -> (loss, logits, embedding[, aux]): one trace for two graphs, each cut out of it."""

    def forward(self, params: Tensor, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        logits, *others = self.outputs(params, x)
        _, targets = self.targets(y, w)
        return -(targets * log_softmax(logits, 1)).sum(), logits, *others


class Distillation(CrossEntropy):
    """`ce` on own rows plus distillation on public rows; see the module and `distill_spec` for the inputs.

    Both groups pass through the model as one batch, half the nodes of two passes; each has weight 0 in the other's
    terms. That is exact because no row's outputs depend on other rows, which `checks` makes sure of.
    """

    no_class: Tensor
    no_embedding: Tensor
    no_teacher: Tensor

    def __init__(self, forward: Forward, classes: int, heads: int, embedding: int) -> None:
        super().__init__(forward, classes)
        self.register_buffer("no_class", torch.zeros(1, classes), persistent=False)
        self.register_buffer("no_embedding", torch.zeros(1, embedding), persistent=False)
        self.register_buffer("no_teacher", torch.zeros(1, heads, classes), persistent=False)

    def forward(  # type: ignore[override]
        self,
        params: Tensor,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        public_x: Tensor,
        teacher_embedding: Tensor,
        embedding_weight: Tensor,
        teacher: Tensor,
        teacher_weight: Tensor,
    ) -> tuple[Tensor, ...]:
        """-> (loss (), logits (n, C), public_logits (m, C), public_embedding (m, E), public_aux (m, heads, C))."""
        logits, embedding, aux = self.outputs(params, torch.cat([x, public_x]))
        share, own = self.targets(y, w)
        none = share.unsqueeze(1)
        labels = torch.cat([own, embedding_weight.unsqueeze(1) * self.no_class])
        loss = -(labels * log_softmax(logits, 1)).sum()
        away = unit(embedding) - torch.cat([none * self.no_embedding, teacher_embedding])
        pull = torch.cat([none * 0.0, embedding_weight.unsqueeze(1)])
        loss = loss + (pull * away * away).sum()
        said = torch.cat([none.unsqueeze(1) * self.no_teacher, teacher_weight.unsqueeze(2) * teacher])
        loss = loss - (said * log_softmax(aux, 2)).sum()
        rows = x.shape[0]
        return loss, logits[:rows], logits[rows:], embedding[rows:], aux[rows:]


def ce_spec(entry: InputSpec) -> LossSpec:
    """Inputs and outputs of `ce`."""
    return LossSpec(
        (
            TensorSpec("x", entry.shape, "float32", PRIVATE),
            TensorSpec("y", (), "int64", PRIVATE),
            TensorSpec("w", (), "float32", PRIVATE, weight=True),
        ),
        ("logits",),
    )


def distill_spec(entry: InputSpec, classes: int, heads: int, embedding: int) -> LossSpec:
    """Inputs and outputs of `distill`: teacher_embedding of length 1, teacher the probabilities each head learns."""
    return LossSpec(
        (
            *ce_spec(entry).inputs,
            TensorSpec("public_x", entry.shape, "float32", PUBLIC),
            TensorSpec("teacher_embedding", (embedding,), "float32", PUBLIC),
            TensorSpec("embedding_weight", (), "float32", PUBLIC, weight=True),
            TensorSpec("teacher", (heads, classes), "float32", PUBLIC),
            TensorSpec("teacher_weight", (heads,), "float32", PUBLIC, weight=True),
        ),
        ("logits", "public_logits", "public_embedding", "public_aux"),
    )
