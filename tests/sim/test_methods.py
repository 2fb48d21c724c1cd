"""One table says what each method is; plan, compare, README and docs agree with it."""

from __future__ import annotations

import re
from pathlib import Path

from edgeswarm.sim.methods import CANDIDATES, GOALS, METHODS, by_rule
from edgeswarm.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]


def test_every_method_is_there_and_is_for_something() -> None:
    assert set(METHODS) == set(STRATEGIES)
    assert all(method.control or method.goals for method in METHODS.values())
    assert {goal for method in METHODS.values() for goal in method.goals} == set(GOALS)


def test_a_rule_names_candidates_and_ends_with_learning_alone() -> None:
    for goal in GOALS:
        assert set(by_rule(goal)) <= set(CANDIDATES) and by_rule(goal)[-1] == "isolated"


def test_the_readme_offers_what_is_no_control() -> None:
    offered = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text("utf-8").partition("## Which method")[2], re.M)
    assert set(offered) == {name for name, method in METHODS.items() if not method.control}


def test_the_page_of_methods_knows_them_all() -> None:
    said = (ROOT / "docs" / "methods.md").read_text("utf-8").partition("## What a method costs")[0]
    assert set(re.findall(r"`(\w+)`", said)) >= set(METHODS)
    assert set(re.findall(r"^\| `(\w+)`", said, re.M)) >= set(CANDIDATES)
