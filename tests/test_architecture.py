"""The drawing in docs/architecture.md is the code's own structure, no arrow more or less."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "edgeswarm"
FREE = {"errors", "values", "decision", "readable", "whole_file", "messages", "__init__", "__main__"}


def _folder(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgeswarm."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("edgeswarm.")}
    return found


def test_the_drawing_is_true() -> None:
    real = set()
    for path in PACKAGE.rglob("*.py"):
        here = _folder(path)
        there = _imported(ast.parse(path.read_text(encoding="utf-8"))) - FREE - {here}
        real |= {(here, other) for other in there if here not in FREE}
    drawn = set(re.findall(r"^ {4}(\w+) --> (\w+)$", (ROOT / "docs/architecture.md").read_text("utf-8"), re.M))
    assert drawn == real


def test_every_folder_is_explained() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {name for name in folders if f"| `{name}/` |" not in text} == set()
