"""What belongs in a model file and whether it fits together: members, card against graphs, start vector, seal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from edgeswarm.errors import ModelError
from edgeswarm.messages import Array
from edgeswarm.models.card import FileEntry, ModelCard
from edgeswarm.models.card_json import hash_of, read_card, write_card
from edgeswarm.models.graph import Graph, Value, read_graph
from edgeswarm.models.json_text import Bad
from edgeswarm.models.limits import Limits
from edgeswarm.models.reference import FORWARD, ReferenceCase, forward_outputs, read_reference, write_reference

CARD, INITIAL, REFERENCE, REFERENCE_DATA, LICENCE = (
    "model.json", "initial.f32", "reference.json", "reference.bin", "LICENSE",
)  # fmt: skip
"""Members besides graphs."""

COPY = "copy the model file again from where it was built"
_MOST_LICENCE_BYTES = 1024 * 1024


class Unusable(Exception):
    """A member cannot be used. member: its name.  The text is one line without it."""

    def __init__(self, member: str, text: str) -> None:
        super().__init__(text)
        self.member = member


@dataclass(frozen=True, eq=False)
class Model:
    """A model file's content, checked. graphs: ONNX bytes by name: "forward", and for each loss "<loss>.loss" (its
    value) and "<loss>.gradient" (value and gradient).  initial: the start vector (p,) float32.  reference: what the
    graphs gave where the model was built, for `model check`.  licence_text: the LICENSE member, "" for none."""

    card: ModelCard
    graphs: Mapping[str, bytes]
    initial: Array
    reference: tuple[ReferenceCase, ...] = ()
    licence_text: str = ""


def graph_names(card: ModelCard) -> list[str]:
    """The graphs a model of this card has: "forward", and two for each loss."""
    return [FORWARD, *(f"{loss}.{kind}" for loss in sorted(card.losses) for kind in ("loss", "gradient"))]


def is_member(name: str) -> bool:
    """Whether a file of this name may be in a model file at all; which ones must be, says the card."""
    return name in (CARD, INITIAL, REFERENCE, REFERENCE_DATA, LICENCE) or (
        name.endswith(".onnx") and name.isascii() and name.replace(".", "").replace("_", "").isalnum()
    )


def seal(
    card: ModelCard,
    graphs: Mapping[str, bytes],
    initial: Array,
    reference: Sequence[ReferenceCase] = (),
    licence_text: str = "",
    limits: Limits | None = None,
    allowed: Collection[str] | None = None,
) -> Model:
    """A model with its members' hashes and its own put into the card, everything checked that `file.read` checks.

    card: `files` and `hash` are overwritten.  initial: (p,) float32.  Raises ModelError: the parts do not fit.
    """
    model = Model(card, dict(graphs), np.asarray(initial, np.float32), tuple(reference), licence_text)
    try:
        sealed = replace(card, files=_entries(_parts(model)), hash="")
        sealed = replace(sealed, hash=hash_of(sealed))
        return unpack({CARD: write_card(sealed), **_parts(model)}, limits or Limits(), allowed)
    except Unusable as error:
        raise ModelError(f"the model cannot be sealed: {error.member}: {error}") from None


def pack(model: Model) -> dict[str, bytes]:
    """All members of a sealed model by name. Raises ModelError when it is not sealed: the card's hashes do not hold."""
    members = _parts(model)
    if _entries(members) != dict(model.card.files) or hash_of(model.card) != model.card.hash:
        raise ModelError("the model is not sealed: its card's hashes are not those of its parts; call `seal` first")
    return {CARD: write_card(model.card), **members}


def read_head(text: bytes, limits: Limits) -> ModelCard:
    """The card, before anything else is read. Raises Unusable, also when the members are not those the card's losses
    call for, or are larger than the limits allow together."""
    try:
        card = read_card(text, limits)
    except Bad as error:
        raise Unusable(CARD, error.line()) from None
    needed = {INITIAL, *(f"{name}.onnx" for name in graph_names(card))}
    if REFERENCE in card.files or REFERENCE_DATA in card.files:
        needed |= {REFERENCE, REFERENCE_DATA}
    for name in sorted(needed - card.files.keys()):
        raise Unusable(CARD, f"it does not list {name}, which a model with its losses has; build the model again")
    for name in sorted(card.files.keys() - needed - {LICENCE}):
        raise Unusable(CARD, f"it lists {name!r:.80}, which does not belong in a model file; build the model again")
    if card.files[INITIAL].size_bytes != 4 * card.size:
        raise Unusable(CARD, f"its shapes make {card.size} parameters, {INITIAL} has {card.files[INITIAL].size_bytes} "
                             "bytes, which is not 4 for each; build the model again")  # fmt: skip
    total = len(text) + sum(entry.size_bytes for entry in card.files.values())
    if total > limits.file_bytes:
        raise Unusable(CARD, too_large(total, limits))
    return card


def too_large(size_bytes: int, limits: Limits) -> str:
    """What is said of a file beyond the limit."""
    return (
        f"the model file has {size_bytes} bytes; the profile allows {limits.file_bytes} (max_model_bytes): "
        "choose a smaller model, or raise the limit if the board has the memory"
    )


def unpack(members: Mapping[str, bytes], limits: Limits, allowed: Collection[str] | None) -> Model:
    """The model in all its members. Raises Unusable."""
    card = read_head(members[CARD], limits)
    for name, entry in sorted(card.files.items()):
        if name not in members:
            raise Unusable(name, f"the card lists it and it is absent; {COPY}")
        data = members[name]
        if len(data) != entry.size_bytes:
            raise Unusable(name, f"it has {len(data)} bytes, the card says {entry.size_bytes}; {COPY}")
        if (digest := sha256(data).hexdigest()) != entry.sha256:
            raise Unusable(name, f"its sha256 is {digest[:12]}..., the card says {entry.sha256[:12]}...: it is damaged "
                                 f"or was changed; {COPY}")  # fmt: skip
    initial = np.frombuffer(members[INITIAL], "<f4").astype(np.float32)
    initial.setflags(write=False)
    if not bool(np.isfinite(initial).all()):
        at = int(np.argmin(np.isfinite(initial)))
        raise Unusable(INITIAL, f"parameter {at} of {len(initial)} is {initial[at]}; only finite numbers are taken: "
                                "build the model again")  # fmt: skip
    graphs = {name: members[f"{name}.onnx"] for name in graph_names(card)}
    for name, data in graphs.items():
        member = f"{name}.onnx"
        try:
            graph = read_graph(data, allowed, limits)
        except ModelError as error:
            raise Unusable(member, str(error)) from None
        check_graph(name, member, graph, card)
    reference: tuple[ReferenceCase, ...] = ()
    if REFERENCE in card.files:
        try:
            reference = read_reference(members[REFERENCE], members[REFERENCE_DATA], card, limits)
        except Bad as error:
            raise Unusable(REFERENCE, error.line()) from None
    try:
        licence_text = members[LICENCE].decode("utf-8") if LICENCE in card.files else ""
    except UnicodeDecodeError:
        raise Unusable(LICENCE, "it is not UTF-8 text; build the model again") from None
    if len(licence_text) > _MOST_LICENCE_BYTES:
        raise Unusable(LICENCE, f"it is longer than {_MOST_LICENCE_BYTES} characters; build the model again")
    return Model(card, graphs, initial, reference, licence_text)


def check_graph(name: str, member: str, graph: Graph, card: ModelCard) -> None:
    """A graph's inputs and outputs against the card; see `ModelCard`. Raises Unusable.

    An axis of rows has a name, not a length, so that the graph takes any batch; the other axes of inputs are known.
    """
    loss, _, kind = name.partition(".")
    inputs: dict[str, tuple[str, tuple[int | None, ...]]] = {}
    if card.size:
        inputs["params"] = ("float32", (card.size,))
    outputs: dict[str, tuple[int | None, ...] | None]
    if name == FORWARD:
        inputs["x"] = ("float32", (None, *card.input.shape))
        outputs = {key: (None, *shape) for key, shape in forward_outputs(card).items()}
    else:
        spec = card.losses[loss]
        inputs |= {tensor.name: (tensor.dtype, (None, *tensor.shape)) for tensor in spec.inputs}
        outputs = {"loss": (), **dict.fromkeys(spec.outputs)}
        if kind == "gradient":
            outputs["gradient"] = (card.size,)
    for side, found, wanted in (("inputs", graph.inputs, inputs), ("outputs", graph.outputs, outputs)):
        names = [value.name for value in found]
        if set(names) != set(wanted) or (side == "inputs" and card.size and names[0] != "params"):
            raise Unusable(member, f"its {side} are {', '.join(names)!r:.200}; the card wants {', '.join(wanted)}; "
                                   "build the model again")  # fmt: skip
    for value in graph.inputs:
        dtype, shape = inputs[value.name]
        _fits(member, value, dtype, shape, exact=True)
    for value in graph.outputs:
        _fits(member, value, "float32", outputs[value.name], exact=False)


def _fits(member: str, value: Value, dtype: str, shape: tuple[int | None, ...] | None, exact: bool) -> None:
    """shape: None for any, a None in it for an axis of rows. exact: named axes are refused where a length is wanted."""
    fits = value.dtype == dtype
    if shape is not None:
        fits = fits and len(value.shape) == len(shape)
        for is_, wanted in zip(value.shape, shape, strict=False):
            fits = fits and (is_ == wanted or (isinstance(is_, str) and (wanted is None or not exact)))
    if not fits:
        wanted_text = "any" if shape is None else ["rows" if length is None else length for length in shape]
        raise Unusable(member, f"{value.name} is {value.dtype} of shape {list(value.shape)}; the card wants {dtype} of "
                               f"shape {wanted_text}; build the model again")  # fmt: skip


def _parts(model: Model) -> dict[str, bytes]:
    """All members but the card, by name."""
    members = {f"{name}.onnx": bytes(data) for name, data in model.graphs.items()}
    members[INITIAL] = np.asarray(model.initial, "<f4").tobytes()
    if model.reference:
        members[REFERENCE], members[REFERENCE_DATA] = write_reference(model.reference)
    if model.licence_text:
        members[LICENCE] = model.licence_text.encode()
    return members


def _entries(members: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {name: FileEntry(sha256(data).hexdigest(), len(data)) for name, data in sorted(members.items())}
