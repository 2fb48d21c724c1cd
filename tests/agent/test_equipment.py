"""What a node learns with beside its samples: the public set and the graph, given to the method as it wants them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeswarm.agent.config import build_strategy, load
from edgeswarm.agent.encoder import Encoder
from edgeswarm.agent.equipment import Equipment, Files, as_described, described, equip, needed
from edgeswarm.agent.settings import (
    ComputeConfig,
    Config,
    GraphConfig,
    ModelConfig,
    PublicConfig,
    StrategyConfig,
)
from edgeswarm.agent.sources.base import Schema
from edgeswarm.backends.choose import choose
from edgeswarm.errors import ConfigError, ModelError
from edgeswarm.models.file import write
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.models.public import write as write_public
from edgeswarm.strategies.base import finish
from tests.tiny_model import tiny

RAW = Schema("task", ("x0", "x1", "x2"), "", "")
MHD = StrategyConfig("multi_headed_distillation")
COMPUTE = ComputeConfig(backend="reference")


def public_set(d: int = 3, classes: tuple[str, ...] = ("no", "yes"), version: str = "1") -> PublicSet:
    return PublicSet(np.arange(5 * d, dtype=np.float32).reshape(5, d), classes, version)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A model with a head to distil into, a public set, and a ring."""
    write(perceptron(("no", "yes"), np.zeros(3), np.ones(3), 4, heads=1), tmp_path / "model.esm")
    write_public(public_set(), tmp_path / "public.npz")
    return Files(
        ModelConfig(str(tmp_path / "model.esm")),
        graph=GraphConfig("ring", ("a", "b", "c", "d")),
        public=PublicConfig(str(tmp_path / "public.npz")),
    )


def nothing_asked(request: Any) -> Any:
    raise AssertionError(f"nothing is asked here, {request}")


def test_a_method_is_given_its_neighbours_and_the_public_set(files: Files) -> None:
    found = equip(files, COMPUTE, None, node="a")
    bare = build_strategy(MHD)
    preparation = found.preparation(RAW, bare)
    public = finish(found.prepared(preparation), nothing_asked)
    strategy = found.equipped(bare, 7, public)
    assert strategy.public is found.public and strategy.public.hash == public_set().hash
    assert strategy.topology.graph("a", ()).neighbours("a") == ("b", "d")
    with pytest.raises(ConfigError, match="this node, 'z', is not among them"):
        equip(files, COMPUTE, None, node="z")


def test_public_rows_pass_through_what_own_rows_do_and_keep_their_name(tmp_path: Path) -> None:
    model = tiny((3,), embedding=6)
    backend, _ = choose(("reference",))
    backend.load(model)
    found = Equipment(backend, encoder=Encoder(model.card, True), public=public_set())
    preparation = found.preparation(RAW, build_strategy(StrategyConfig()))
    public = finish(found.prepared(preparation), backend.answer)
    assert public is not None and public.x.shape == (5, 6) and public.hash == public_set().hash
    np.testing.assert_allclose(public.x, finish(preparation.rows(public_set().x), backend.answer))


def test_a_public_set_of_other_samples_or_classes_is_one_line(files: Files) -> None:
    found = equip(files, COMPUTE, None)
    preparation = found.preparation(RAW, build_strategy(MHD))
    wide = replace(found, public=public_set(4))
    with pytest.raises(ConfigError, match=r"\[public\] path: its rows have 4 numbers, the samples have 3"):
        finish(wide.prepared(preparation), nothing_asked)
    with pytest.raises(ConfigError, match=r"\[strategy\] multi_headed_distillation: .*public"):
        found.equipped(build_strategy(MHD), 7, public_set(classes=("no", "maybe")))
    with pytest.raises(ConfigError, match=r"\[strategy\] multi_headed_distillation: .* needs the file of one"):
        found.equipped(build_strategy(MHD), 7)


def test_what_is_missing_is_said_and_what_is_not_used_too(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"learns from public samples: set \[public\] path as well"):
        needed(Config(strategy=MHD, model=files.model))
    with pytest.raises(ConfigError, match=r"trains a model: set \[model\] path as well"):
        needed(Config(strategy=MHD, public=files.public))
    caplog.set_level(logging.WARNING)
    assert needed(Config(model=files.model, public=files.public, graph=files.graph)) == Files()
    said = caplog.text
    assert "[model] path is not used" in said and "[public] path is not used" in said and "[graph] is not used" in said


def test_the_configuration_asks_for_both_files(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    text = 'node = "a"\n[broker]\nurl = "mqtt://localhost"\n[source]\nkind = "csv"\npath = "d.csv"\n[strategy]\n'
    for method, more, said in [
        ("multi_headed_distillation", "", r":8: \[strategy\] name = '.*' trains a model: set \[model\] path"),
        ("multi_headed_distillation", "[model]\npath = 'm'", "learns from public samples: set .public. path as well"),
        ("prototype_distillation", "", "learns from public samples: set .public. path as well"),
    ]:
        path.write_text(f"{text}name = '{method}'\n{more}")
        with pytest.raises(ConfigError, match=said):
            load(path, {}, {}, tmp_path, cwd=tmp_path)


def test_whoever_reads_a_state_later_has_the_same_knobs_and_files(files: Files, tmp_path: Path) -> None:
    found = equip(files, COMPUTE, None)
    kept = described(RAW, found, files, replace(MHD, knobs={"steps": 3}), "a")
    assert kept["knobs"] == {"steps": 3} and kept["public"]["hash"] == public_set().hash
    again = as_described(kept, COMPUTE, None)
    assert again.public is not None and again.public.hash == public_set().hash
    assert kept["node"] == "a" and again.topology == found.topology is not None
    write_public(public_set(version="2"), Path(files.public.path))
    with pytest.raises(ModelError, match=r"public\.npz: not the file that was learnt with"):
        as_described(kept, COMPUTE, None)
    Path(files.public.path).unlink()
    with pytest.raises(ModelError, match=r"public\.npz"):
        as_described(kept, COMPUTE, None)
