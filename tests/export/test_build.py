"""What `build` hands out: sealed, repeatable, lean, with reference values that hold."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.backends.operators import OPERATORS
from tests.zoo import SMALL, built, needs_torch, small

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
needs_torch()

import onnx  # noqa: E402

from edgeswarm.export.build import build  # noqa: E402
from edgeswarm.export.verify import Session, off  # noqa: E402
from edgeswarm.models.file import read, write  # noqa: E402


def test_the_same_call_gives_the_same_bytes_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    one = build("mlp", seed=5, **SMALL["mlp"])
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)
    other = build("mlp", seed=5, **SMALL["mlp"])
    assert one.card == other.card and one.graphs == other.graphs and np.array_equal(one.initial, other.initial)
    third = build("mlp", seed=6, **SMALL["mlp"])
    assert third.graphs == one.graphs and not np.array_equal(third.initial, one.initial)
    assert third.card.hash != one.card.hash


def test_initial_values_are_torchs() -> None:
    torch.manual_seed(5)
    net = torch.nn.Linear(6, 12)
    model = build("mlp", seed=5, **SMALL["mlp"])
    where, shape = model.card.layout()["body.0.weight"]
    assert np.array_equal(model.initial[where].reshape(shape), net.weight.detach().numpy())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_stored_graphs_are_plain(name: str) -> None:
    """Opset 18, IR 9, operators of the default domain on the list, no functions, no notes, and checked by onnx."""
    model = small(name, heads=2)
    for graph in model.graphs.values():
        proto = onnx.load_model_from_string(graph)
        onnx.checker.check_model(proto, full_check=True)
        assert proto.ir_version == 9 and not proto.functions and not proto.metadata_props
        assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
        assert {node.op_type for node in proto.graph.node} <= set(OPERATORS)
        assert all(node.domain == "" and not node.doc_string and not node.metadata_props for node in proto.graph.node)
        assert proto.graph.input[0].name == "params"
        assert not any(value.name == "params" for value in proto.graph.initializer)


@pytest.mark.parametrize(
    ("name", "most"), [("mlp", 44), ("lenet5", 330), ("resnet8", 820), ("resnet20", 2100), ("mobilenet", 2100)]
)
def test_gradient_graphs_stay_lean(name: str, most: int) -> None:
    """Each node costs time at every step; the counts are those of today, with a little room."""
    assert len(onnx.load_model_from_string(small(name, heads=2).graphs["ce.gradient"]).graph.node) <= most


@pytest.mark.parametrize("name", sorted(SMALL))
def test_reference_values_hold(name: str) -> None:
    model = small(name, heads=2)
    assert {case.graph for case in model.reference} == {"forward", "ce", "distill"}
    for case in model.reference:
        assert 1e-6 <= case.tolerance <= 1e-3
        graph = case.graph if case.graph == "forward" else f"{case.graph}.gradient"
        found = Session(model.graphs[graph], case.name).run({"params": model.initial, **case.inputs})
        assert set(found) == set(case.outputs)
        for key, value in case.outputs.items():
            assert off(found[key], value) <= case.tolerance, key


def test_the_card_says_what_a_row_costs() -> None:
    """MLP 6-12-3: 2 x (6 x 12 + 12 x 3) for the products, 12 for ReLU; 12 + 12 + 3 results of 4 bytes."""
    card = small("mlp").card
    assert card.flops == 2 * (6 * 12 + 12 * 3) + 12
    assert card.activation_bytes == 4 * (12 + 12 + 3)
    assert built("lenet5").card.flops > 2 * (28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 840)


def test_a_built_model_is_written_and_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = small("cnn", heads=2)
    for path in (tmp_path / "model.esm", tmp_path / "folder"):
        write(model, path)
        again = read(path)
        assert again.card == model.card and again.graphs == model.graphs
        assert np.array_equal(again.initial, model.initial)
