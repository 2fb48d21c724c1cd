"""Imports point one way: what stands further left knows nothing of what stands further right."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgeswarm"
ORDER = [
    "errors", "values", "decision", "readable", "whole_file", "messages", "wire", "maths", "models", "backends",
    "export", "strategies", "transport", "agent", "sim", "demo", "cli", "__main__",
]  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

EVERYWHERE = {"edgeswarm"}
"""The package itself: its `__init__` holds the version and imports nothing."""

ALLOWED: dict[tuple[str, str], str] = {}
"""(file, module) that points right all the same, with the reason."""

OUTER_WORLD = {"asyncio", "datetime", "http", "multiprocessing", "os", "paho", "random", "secrets", "select", "shutil",
               "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib"}  # fmt: skip
"""What a decision may not touch: then it can be replayed, and a device and a simulation differ only at their edges."""

THIRD_PARTY = {"numpy", "msgpack"}
"""All that learning, deciding and encoding may import besides the standard library."""


OUTSIDE: dict[str, set[str]] = {
    "models/file.py": {"os", "shutil"},
    "backends/fit.py": {"time"},
    "backends/onnx.py": {"onnxruntime", "threading"},
    "backends/probe.py": {"os", "subprocess", "sys", "signal"},
    "backends/trial.py": {"onnxruntime", "sys", "torch"},
    "backends/torch.py": {"threading", "torch"},
    "backends/torch_group.py": {"torch"},
    "backends/torch_layers.py": {"torch"},
    "backends/torch_operators.py": {"torch"},
    "backends/torch_program.py": {"torch"},
}
"""What a file of a pure folder may import all the same: the one library it is there for, or the disk it reads."""


def outside(path: Path) -> set[str]:
    return OUTSIDE.get(str(path.relative_to(PACKAGE)), set())


def folder(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, functions and TYPE_CHECKING blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            if node.module == "edgeswarm":
                yield from (f"edgeswarm.{alias.name}" for alias in node.names if alias.name in ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    here = ORDER.index(folder(path))
    for module in set(imports(path)) - EVERYWHERE:
        if module.startswith("edgeswarm.") and (str(path.relative_to(PACKAGE)), module) not in ALLOWED:
            assert ORDER.index(module.split(".")[1]) <= here, f"{path.relative_to(PACKAGE)} looks right, at {module}"


def test_every_exception_is_still_needed() -> None:
    for name, module in ALLOWED:
        assert module in set(imports(PACKAGE / name))


@pytest.mark.parametrize("name", ["errors", "messages", "wire", "maths", "models", "backends", "strategies"])
def test_what_decides_touches_no_clock_socket_file_or_thread(name: str) -> None:
    for path in (path for path in FILES if folder(path) == name):
        roots = {module.split(".")[0] for module in imports(path)} - outside(path)
        assert not roots & OUTER_WORLD, f"{path.relative_to(PACKAGE)} imports {sorted(roots & OUTER_WORLD)}"
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert not calls & {"open", "print", "input", "exec", "eval"}, path


@pytest.mark.parametrize("name", ["errors", "messages", "wire", "maths", "models", "backends", "strategies"])
def test_what_decides_needs_numpy_and_msgpack_alone(name: str) -> None:
    for path in (path for path in FILES if folder(path) == name):
        roots = {module.split(".")[0] for module in imports(path)} - {"edgeswarm"} - outside(path)
        assert roots <= THIRD_PARTY | set(sys.stdlib_module_names), path


def test_no_randomness_without_a_seed() -> None:
    """`np.random.default_rng()` and the global functions of `np.random` would make runs differ."""
    for path in (
        path for path in FILES if folder(path) in ("wire", "maths", "models", "backends", "strategies", "sim")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name.endswith("default_rng"):
                assert node.args, f"{path}: a generator without a seed"
            else:
                assert not re.fullmatch(r"(np|numpy)\.random\.\w+", name), f"{path}: {name}"


def test_every_outside_import_is_still_needed() -> None:
    for name, roots in OUTSIDE.items():
        assert roots <= {module.split(".")[0] for module in imports(PACKAGE / name)}, name


def test_every_folder_has_its_place() -> None:
    assert {folder(path) for path in FILES} <= set(ORDER)
