"""A user's own ONNX network as an encoder: its forward pass with its weights, one embedding out, nothing to train.

The file it comes from is taken as a stranger's: no external data, no operators outside the allow-list, one input and
one embedding. What a board gets is a model file like any other, with reference values that the board recomputes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeswarm.backends.base import Predict
from edgeswarm.backends.operators import OPERATORS
from edgeswarm.errors import ModelError
from edgeswarm.export.bake import OPSET, effort, finished, first_line, fold, pruned
from edgeswarm.models.card import InputSpec, ModelCard
from edgeswarm.models.file import Model, seal
from edgeswarm.models.limits import Limits
from edgeswarm.models.reference import ReferenceCase

CASE_ROWS = 3
TOLERANCE = 1e-4
"""Relative L2 difference that an encoder's answers may show on another machine: float32 through tens of layers."""
LEAST_LENGTH = 1e-12
MOST_DIMENSIONS = 4096
"""Embeddings travel as prototypes, and peers refuse more dimensions (wire.envelope.Limits.max_dimensions)."""


def wrap(
    path: Path,
    name: str,
    *,
    shape: Sequence[int] = (),
    output: str = "",
    units: str = "",
    normalise: bool = False,
    licence: str = "unknown",
    licence_text: str = "",
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Model:
    """The ONNX file at `path` as a model file's content: no parameters, no losses, one embedding.

    name: of the model; "": the file's.  shape: of one sample, where the graph does not say it.  output: which tensor is
    the embedding, where the graph has several outputs.  units: what the input's numbers are.
    normalise: scale embeddings to length 1.
    An older opset is converted; a batch size fixed by the exporter is set free and tried with other sizes.

    Raises ModelError naming file and remedy.
    """
    proto = _loaded(path, limits)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    _free_of_extras(proto, path)
    proto = _converted(proto, path)
    _allowed(proto, path)
    _one_output(proto, path, output)
    proto = pruned(proto)
    sample = _one_input(proto, path, tuple(shape))
    proto = fold(proto)
    proto, width = _with_embedding(proto, path, sample, normalise)
    if not 1 <= width <= MOST_DIMENSIONS:
        raise ModelError(
            f"{path}: embeddings of {width} numbers, peers take at most {MOST_DIMENSIONS}; "
            "choose a narrower tensor with --embedding NAME, or pool before it"
        )
    flops, moved = effort(proto, sample)
    card = ModelCard(
        name=name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "encoder",
        architecture=f"encoder:{path.name}"[:100],
        parameters=(),
        input=InputSpec(sample, "image" if len(sample) == 3 else "vector", units or "as the network was trained"),
        labels=(),
        embedding=width,
        heads=0,
        losses={},
        flops=flops,
        activation_bytes=moved,
        licence=licence,
        producer={"onnx": onnx.__version__},
        normalised=normalise,
    )
    return sealed(card, finished(proto), samples(sample, CASE_ROWS), licence_text=licence_text, limits=limits)


def samples(shape: Sequence[int], rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Inputs to try a graph with: (rows, *shape) numbers from 0 to 1, the last row blank."""
    x = np.random.default_rng(seed).random((rows, *shape), np.float32)
    x[-1] = 0.0
    return x


def sealed(
    card: ModelCard,
    forward: bytes,
    x: NDArray[np.float32],
    tolerance: float = TOLERANCE,
    licence_text: str = "",
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> Model:
    """A model of a forward graph alone, with its answers to `x` by plain onnxruntime as the reference values.

    Raises ModelError: what reading it on a board would raise; answers that are not finite, or that change when rows
    are asked one by one.
    """
    from edgeswarm.backends.onnx import OnnxBackend

    nothing = np.zeros(0, np.float32)
    model = seal(card, {"forward": forward}, nothing, (), licence_text, limits, OPERATORS)
    backend = OnnxBackend()
    backend.load(model)
    answers = backend.answer(Predict(model.card.hash, x))
    one = backend.answer(Predict(model.card.hash, x[:1]))
    for key, value in answers.items():
        if not np.isfinite(value).all():
            raise ModelError(f"{card.name}: its {key} is not finite for numbers from 0 to 1")
        if far(one[key], value[:1]) > 1e-3:
            raise ModelError(
                f"{card.name}: a sample's {key} depends on the other rows; export it in inference mode (model.eval())"
            )
    case = ReferenceCase("forward", "forward", {"x": x}, answers, tolerance)
    return seal(card, {"forward": forward}, nothing, (case,), licence_text, limits, OPERATORS)


def far(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """Relative L2 difference; 0 for two arrays of zeros."""
    length = float(np.linalg.norm(reference.astype(np.float64)))
    gap = float(np.linalg.norm(value.astype(np.float64) - reference.astype(np.float64)))
    return gap / length if length > 0 else gap


# ---- what is asked of the file --------------------------------------------------------------------------------------


def _loaded(path: Path, limits: Limits) -> ModelProto:
    try:
        size = path.stat().st_size
        if size > limits.file_bytes:
            raise ModelError(f"{path}: {size:,} bytes, at most {limits.file_bytes:,} are read; use a smaller encoder")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # google.protobuf's DecodeError, which is no part of onnx's interface
        raise ModelError(f"{path}: not an ONNX file, or a damaged one ({first_line(error)})") from None
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX file, or one without a graph")
    return proto


def _free_of_extras(proto: ModelProto, path: Path) -> None:
    """No external data, no training part, no operators of others."""
    outside = [item.name for item in proto.graph.initializer if item.data_location == TensorProto.EXTERNAL]
    if outside:
        raise ModelError(
            f"{path}: the weights {outside[0]!r} lie in another file; save the network in one file "
            "(onnx.save without external data)"
        )
    if proto.training_info or proto.graph.sparse_initializer:
        raise ModelError(f"{path}: holds a training graph or sparse weights; export it for inference")
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{path}: operator {node.domain}.{node.op_type} ({node.name or 'unnamed'}) is not standard ONNX; "
                "export without runtime-specific optimisation"
            )


def _converted(proto: ModelProto, path: Path) -> ModelProto:
    """Opset 18."""
    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset == OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # its C++ part raises RuntimeError, its Python part whatever comes
        raise ModelError(
            f"{path}: opset {opset} cannot be converted to {OPSET} ({first_line(error)}); export it with opset {OPSET}"
        ) from None


def _allowed(proto: ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.op_type not in OPERATORS and node.op_type != "Constant":
            raise ModelError(
                f"{path}: operator {node.op_type} ({node.name or 'unnamed'}) is not among those a board runs; "
                "take an earlier tensor with --embedding NAME, or replace that layer"
            )


def _one_output(proto: ModelProto, path: Path, wanted: str) -> None:
    names = [value.name for value in proto.graph.output]
    if wanted and wanted not in names:
        made = {name for node in proto.graph.node for name in node.output}
        if wanted not in made:
            raise ModelError(f"{path}: no output {wanted!r}; its outputs are {', '.join(names[:8])}")
        proto.graph.output.append(helper.make_tensor_value_info(wanted, TensorProto.FLOAT, None))
    if not wanted and len(names) != 1:
        raise ModelError(
            f"{path}: {len(names)} outputs ({', '.join(names[:8])}); say which is the embedding: --embedding NAME"
        )
    chosen = wanted or names[0]
    kept = [value for value in proto.graph.output if value.name == chosen]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)


def _one_input(proto: ModelProto, path: Path, given: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sample. The input is renamed to x and gets a symbolic first axis."""
    constants = {item.name for item in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    used = {name for node in proto.graph.node for name in node.input}
    inputs = [value for value in inputs if value.name in used]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"{path}: {len(inputs)} inputs ({names}); an encoder has one, the samples")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(f"{path}: input {inputs[0].name!r} takes {kind}; float32 is needed")
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    if len(dims) < 2 and not given:
        raise ModelError(
            f"{path}: input {inputs[0].name!r} has {len(dims)} axes; rows and at least one more are needed"
        )
    found = tuple(dims[1:])
    if given and found and (len(given) != len(found) or any(f and f != g for f, g in zip(found, given, strict=False))):
        text = ",".join(str(size or "?") for size in found)
        raise ModelError(f"{path}: samples are {text} in the graph, not {','.join(map(str, given))} as --input says")
    sample = given or found
    if not all(sample):
        raise ModelError(f"{path}: the graph leaves sizes of a sample open; say them: --input 3,224,224")
    _rename(proto, inputs[0].name, "x")
    del proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *sample]))
    return sample


def _with_embedding(proto: ModelProto, path: Path, sample: tuple[int, ...], normalise: bool) -> tuple[ModelProto, int]:
    """The graph with its output as (n, E) under the name `embedding`, and E, found by running it."""
    chosen = proto.graph.output[0].name
    shape, kind = _tried(proto, path, chosen, sample)
    if kind != np.float32:
        raise ModelError(f"{path}: output {chosen!r} holds {kind}; an embedding is float32")
    if len(shape) < 2 or shape[0] != CASE_ROWS:
        raise ModelError(f"{path}: output {chosen!r} is {shape} for {CASE_ROWS} samples; one row each is needed")
    last = chosen
    if len(shape) > 2:
        proto.graph.node.append(helper.make_node("Flatten", [last], ["edgeswarm.flat"], axis=1))
        last = "edgeswarm.flat"
    if normalise:
        last = _normalised(proto, last)
    if last == "x":
        raise ModelError(f"{path}: the network does nothing")
    proto.graph.node.append(helper.make_node("Identity", [last], ["embedding"]))
    width = int(np.prod(shape[1:]))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width]))
    return proto, width


def _normalised(proto: ModelProto, last: str) -> str:
    """Rows of length 1; a row of zeros stays one."""
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "edgeswarm.axis"))
    graph.initializer.append(numpy_helper.from_array(np.float32(LEAST_LENGTH).reshape(()), "edgeswarm.least"))
    graph.node.append(helper.make_node("ReduceL2", [last, "edgeswarm.axis"], ["edgeswarm.length"], keepdims=1))
    graph.node.append(helper.make_node("Max", ["edgeswarm.length", "edgeswarm.least"], ["edgeswarm.divisor"]))
    graph.node.append(helper.make_node("Div", [last, "edgeswarm.divisor"], ["edgeswarm.unit"]))
    return "edgeswarm.unit"


def _tried(proto: ModelProto, path: Path, output: str, sample: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
    """Shape and type of the output for CASE_ROWS samples, from running the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    trial = ModelProto()
    trial.CopyFrom(proto)
    trial.ir_version = min(trial.ir_version, 9) or 9
    trial.graph.output[0].type.tensor_type.ClearField("shape")
    _without_batch(trial)
    try:
        session = onnxruntime.InferenceSession(trial.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run([output], {"x": samples(sample, 1)})
    except Exception as error:  # onnxruntime's own classes are not public
        raise ModelError(f"{path}: the network does not run ({first_line(error)})") from None
    try:
        value = session.run([output], {"x": samples(sample, CASE_ROWS)})[0]
    except Exception:  # the same ones
        raise ModelError(
            f"{path}: runs with one sample but not with {CASE_ROWS}; export it with a dynamic first axis"
        ) from None
    return value.shape, value.dtype


def _without_batch(proto: ModelProto) -> None:
    """Forget inferred shapes: they may hold the batch size that the exporter fixed."""
    del proto.graph.value_info[:]


def _rename(proto: ModelProto, old: str, new: str) -> None:
    if old == new:
        return
    graph = proto.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == new:
                    names[at] = f"{new}.before"
                elif name == old:
                    names[at] = new
    for item in graph.initializer:
        if item.name == new:
            item.name = f"{new}.before"
    for value in graph.output:
        if value.name == new:
            value.name = f"{new}.before"
        elif value.name == old:
            value.name = new
