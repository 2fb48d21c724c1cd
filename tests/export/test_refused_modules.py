"""What cannot be trained on every board is refused in one line, with its place in the user's module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeswarm.errors import ModelError
from edgeswarm.export import build as build_module
from edgeswarm.export.build import build
from tests.zoo import needs_torch

USERS = "tests.export.users_modules"


def refusal(function: str, **arguments: object) -> str:
    """The one line that building it ends with."""
    needs_torch()
    with pytest.raises(ModelError) as caught:
        build(f"{USERS}:{function}", 3, shape=(5,), **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "texts"),
    [
        ("batch_norm", ("inner.1 (BatchNorm1d)", "nn.GroupNorm")),
        ("dropout", ("inner.1 (Dropout)", "random")),
        ("functional_dropout", ("inner (Applied)", "random")),
        ("centred", ("one row depend on the other rows",)),
        ("counting", ("buffer seen",)),
        ("two_faced", ("training and evaluation mode",)),
        ("no_onnx", ("inner (Applied)", "bessel_j0", "no operator")),
        ("not_allowed", ("CumSum", "module 'inner'", "not one that boards run")),
        ("tiny_epsilon", ("add with the constant 1e-12", "lost on the way", "torch.clamp")),
        ("branches", ("cannot trace",)),
        ("unused", ("parameter spare.",)),
        ("wrong_classes", ("logits have shape (2, 4)", "(n, 3) is needed")),
        ("image_embedding", ("embedding have shape (2, 3, 1)", "(n, E)")),
        ("scaled_logits", ("not the output of its last nn.Linear",)),
        ("raises", ("RuntimeError: no weights here",)),
        ("not_a_module", ("returned int", "torch.nn.Module")),
        ("number", ("no function 'number'",)),
        ("nobody", ("no function 'nobody'",)),
    ],
)
def test_the_fault_and_its_place_are_named(function: str, texts: tuple[str, ...]) -> None:
    line = refusal(function)
    for text in texts:
        assert text in line


def test_an_operator_without_a_gradient_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch()
    from edgeswarm.export.rules import RULES

    monkeypatch.delitem(RULES, "Tanh")
    line = refusal("pair")
    assert "Tanh" in line and "gradient" in line and "users_modules.py" in line


def test_a_gradient_that_is_not_torchs_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch()
    from edgeswarm.export.rules import RULES

    monkeypatch.setitem(RULES, "Tanh", RULES["Sigmoid"])
    assert "the graph's gradient is off torch's float64 by" in refusal("pair")


def test_dropout_of_rate_0_is_no_dropout() -> None:
    needs_torch()
    assert build(f"{USERS}:dropout", 3, shape=(5,), options={"rate": 0.0}).card.embedding == 4


def test_the_users_module_must_be_found_and_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch()
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    (tmp_path / "broken_for_edgeswarm.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    for name, text in (
        ("absent_for_edgeswarm", "no module 'absent_for_edgeswarm'"),
        ("broken_for_edgeswarm", "needs nothing_of_this_name, which is not installed"),
    ):
        with pytest.raises(ModelError, match=text):
            build(f"{name}:make", 3, shape=(5,))
    with pytest.raises(ModelError, match="say the shape"):
        build(f"{USERS}:pair", 3)
    assert sys.path == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"architecture": "resnet9", "labels": 3}, "no built-in architecture 'resnet9': one of mlp, "),
        ({"architecture": "mlp", "labels": 1}, "two or more labels"),
        ({"architecture": "mlp", "labels": ("a", "a")}, "all different"),
        ({"architecture": "mlp", "labels": 3, "heads": -1}, "heads is 0 or more"),
        ({"architecture": "mlp", "labels": 3, "shape": (0,)}, "all 1 or more"),
        ({"architecture": "mlp", "labels": 3, "options": {"width": 5}}, "no option 'width', but hidden"),
        ({"architecture": "lenet5", "labels": 3, "shape": (784,)}, "takes (channels, height, width)"),
        ({"architecture": "lenet5", "labels": 3, "shape": (1, 8, 8)}, "from 12 x 12, not (1, 8, 8)"),
        ({"architecture": "resnet8", "labels": 3, "mean": (0.5, 0.5)}, "one number or one per channel, 3"),
        ({"architecture": "resnet8", "labels": 3, "std": (0.0,)}, "every std is positive"),
    ],
)
def test_orders_that_cannot_be_met(arguments: dict[str, object], text: str) -> None:
    needs_torch()
    with pytest.raises(ModelError) as caught:
        build(**arguments)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_without_the_torch_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "NEEDED", ("torch_of_another_planet",))
    with pytest.raises(ModelError, match=r"needs torch_of_another_planet here: pip install 'edgeswarm\[torch\]'"):
        build("mlp", 10)
