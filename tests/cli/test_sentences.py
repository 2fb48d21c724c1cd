"""Whatever a node may decide, `edgeswarm why` has words for it: reasons are looked up where the code gives them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeswarm.cli import sentences
from edgeswarm.cli.sentences import SENTENCES, sentence
from edgeswarm.cli.why import OUTCOMES
from edgeswarm.strategies import STRATEGIES, checks
from edgeswarm.strategies.base import Decision, equipped
from tests.strategies.test_checks import PUBLIC, SETTINGS, loaded

PACKAGE = Path(sentences.__file__).parents[1]
FILES = [*sorted(PACKAGE.glob("strategies/*.py")), *sorted(PACKAGE.glob("agent/*.py"))]
READS = "ledger.py"
"""Makes decisions of what was written down, in whatever words."""


@dataclass(frozen=True)
class Scope:
    """A function, and all of the package in which it may be called."""

    function: ast.FunctionDef | ast.AsyncFunctionDef
    trees: tuple[ast.Module, ...]

    def parameters(self) -> list[str]:
        return [each.arg for each in self.function.args.args if each.arg != "self"]

    def strings(self, value: ast.expr, place: int | None = None) -> set[str]:
        """What an expression can be, as far as it is written out; place: of a tuple's element."""
        match value:
            case ast.Constant(str() as text):
                return {text} - {""}
            case ast.IfExp():
                return self.strings(value.body, place) | self.strings(value.orelse, place)
            case ast.Tuple() if place is not None:
                return self.strings(value.elts[place])
            case ast.Name():
                return self._of_name(value.id)
            case ast.Call():
                return self._returned(called(value), place)
        return set()

    def _of_name(self, name: str) -> set[str]:
        assert name not in self.parameters(), f"{name} of {self.function.name} is its caller's"
        found = set()
        for node in ast.walk(self.function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    for place, each in enumerate(names):
                        if isinstance(each, ast.Name) and each.id == name:
                            found |= self.strings(node.value, place if isinstance(target, ast.Tuple) else None)
        return found

    def _returned(self, name: str, place: int | None) -> set[str]:
        found = set()
        for function in functions(self.trees):
            if function.name == name:
                scope = Scope(function, self.trees)
                for node in ast.walk(function):
                    if isinstance(node, ast.Return) and node.value is not None:
                        found |= scope.strings(node.value, place)
        return found


def called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def functions(trees: tuple[ast.Module, ...]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node


def calls(trees: tuple[ast.Module, ...], name: str) -> Iterator[tuple[Scope, ast.Call]]:
    for function in functions(trees):
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and called(node) == name:
                yield Scope(function, trees), node


def given(function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call) -> dict[str, ast.expr]:
    """What a call says for each parameter, or its default."""
    names, defaults = [each.arg for each in function.args.args if each.arg != "self"], function.args.defaults
    said = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    return {
        **said,
        **dict(zip(names, call.args, strict=False)),
        **{each.arg: each.value for each in call.keywords if each.arg},
    }


def decided(scope: Scope, parts: list[ast.expr | set[str]]) -> Iterator[list[set[str]]]:
    """What each of `parts` can be, for every way into the function that gives some of them as parameters."""
    own = scope.parameters()
    open_ = [part for part in parts if isinstance(part, ast.Name) and part.id in own]
    known = [part if isinstance(part, set) or part in open_ else scope.strings(part) for part in parts]
    if not open_:
        yield [part for part in known if isinstance(part, set)]
        return
    for outer, call in calls(scope.trees, scope.function.name):
        said = given(scope.function, call)
        if all(part.id in said for part in open_):  # else it is another function of that name
            yield from decided(outer, [said[part.id] if isinstance(part, ast.Name) else part for part in known])


def written() -> list[list[set[str]]]:
    """Of every Decision in the package the kinds, outcomes and reasons that it can have."""
    trees = tuple(ast.parse(path.read_text(encoding="utf-8")) for path in FILES if path.name != READS)
    return [found for scope, call in calls(trees, "Decision") for found in decided(scope, list(call.args[1:4]))]


def test_the_reasons_are_found() -> None:
    found: dict[str, set[str]] = {}
    for kinds, outcomes, reasons in written():
        for outcome in outcomes:
            found.setdefault(f"{'/'.join(kinds)} {outcome}", set()).update(reasons)
    assert found["peer ignored"] == {"other_schema", "wrong_dimension", "too_many_classes"}
    assert found["peer refused"] == {
        "other_schema", "other_model", "other_public_set", "wrong_size", "no_neighbour", "too_large", "too_many_rounds",
        "difference",
    }  # fmt: skip
    assert found["share held"] == {"nothing_learnt", "over_budget", "no_news", "alike", "nothing_new"}
    assert found["share sent"] == {"first", "linked", "news", "drift", "growth", "max_age", "always", "refresh"}
    assert found["step given_up"] == {"out_of_memory", "model_error"}


def test_every_reason_has_a_sentence() -> None:
    """A new kind, outcome or reason anywhere fails here until it can be explained."""
    for kinds, outcomes, reasons in written():
        assert kinds and outcomes and reasons, f"not found in the code: {kinds} {outcomes} {reasons}"
        assert outcomes <= set(OUTCOMES)
        keys = [key for key in SENTENCES if key[0] in kinds and key[1] in outcomes and key[2] in reasons]
        assert {key[1] for key in keys} == outcomes, f"no sentence for {outcomes} of {kinds}"
        assert {key[2] for key in keys} == reasons, f"no sentence for {reasons - {key[2] for key in keys}} of {kinds}"


def test_every_sentence_is_somebodys() -> None:
    found = written()
    for kind, outcome, reason in SENTENCES:
        assert any(kind in kinds and outcome in outcomes and reason in reasons for kinds, outcomes, reasons in found)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_a_method_decides_has_the_facts_that_its_sentences_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generic(*decision: Any) -> str:
        raise AssertionError(f"no words for {decision}")

    monkeypatch.setattr(sentences, "_generic", generic)
    model, backend = loaded()
    story = checks.play(equipped(STRATEGIES[name](**SETTINGS[name][0]), 7, model, public=PUBLIC), backend.answer)
    for scene in story:
        for each in scene.actions:
            if isinstance(each, Decision):
                sentence(each.kind, each.outcome, each.reason, each.facts, each.peer)
