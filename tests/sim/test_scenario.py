"""swarm.toml: what it says, and what is said of a wrong one: a line with place, key and the nearest right one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeswarm.cli.simulate import example_file
from edgeswarm.errors import ConfigError
from edgeswarm.sim.scenario import BY_SECTION, Scenario, changed, from_plain, load, node_names
from edgeswarm.strategies import STRATEGIES


def written(folder: Path, text: str) -> Path:
    path = folder / "swarm.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    said = str(caught.value)
    assert "\n" not in said and caught.value.exit_code == 2
    return said.replace(str(folder), "")


WRONG = {
    "[swarm]\nnode = 3": "/swarm.toml:2: [swarm] unknown key 'node'; did you mean 'nodes'?",
    "nodes = 3": "/swarm.toml:1: unknown key 'nodes'; it belongs in [swarm]",
    "[dat]\nx = 1": "/swarm.toml:1: unknown section [dat]; did you mean 'data'?",
    "\n[network]\nnodes = 3": "/swarm.toml:3: [network] unknown key 'nodes'; it belongs in [swarm]",
    "[swarm]\nnodes = 1.5": "/swarm.toml:2: [swarm] nodes must be a whole number, not 1.5",
    "[swarm]\nnodes = 0": "/swarm.toml:2: [swarm] nodes must be at least 1, not 0",
    '[data]\nsplit = "dirichle"': "/swarm.toml:2: [data] split cannot be 'dirichle'; did you mean 'dirichlet'?",
    '[strategy]\nname = "dpsgd"': "/swarm.toml:2: [strategy] name cannot be 'dpsgd'; did you mean 'd_psgd'?",
    '[strategy]\nname = "d_psgd"\nrat = 1': "/swarm.toml:3: [strategy] d_psgd has no knob 'rat'; did you mean 'rate'?",
    '[graph]\nkind = "rig"': "/swarm.toml:2: [graph] kind cannot be 'rig'; did you mean 'ring'?",
    '[graph]\nnames = ["m1"]': "/swarm.toml:2: [graph] names has 'm1', but the devices are n1 to n8",
    "[boards]\npi-6 = 1": "/swarm.toml:2: [boards] no firmware profile is called 'pi-6'; did you mean 'pi-5'?",
    "[boards]\npi-5 = -1": "/swarm.toml:2: [boards] pi-5 must be a share above 0, not -1",
    '[boards]\nprofile = "pi4"': "/swarm.toml:2: [boards] profile cannot be 'pi4'; did you mean 'pi-4'?",
    '[boards]\nprofile = "pi-4"\npi-5 = 1': "/swarm.toml:2: [boards] profile is for all devices: leave the shares out",
    "[network]\ndelay_s = [2.0, 1.0]": "/swarm.toml:2: [network] delay_s is one time, or the shortest and the longest",
    "[report]\nevery_s = 601.0": "/swarm.toml:2: [report] every_s = 601 s is longer than the run: set "
    "report.every_s to 600 or less, or swarm.duration_s, which is 600 s, to 601 or more",
    "[report]\nat_s = [30.0, 601.0]": "/swarm.toml:2: [report] at_s has 601 s, and the run ends at 600 s",
    '[swarm]\nnodes = 3\n[graph]\nnames = ["n1"]': (
        "/swarm.toml:4: [graph] names lacks 'n2' and 1 more: every device has its place in it, there or not"
    ),
    '[strategy]\nname = "gut"': (
        f"/swarm.toml:2: [strategy] name cannot be 'gut'; one of {', '.join(sorted(STRATEGIES))}"
    ),
    "[event]\nat_s = 3": "/swarm.toml:1: events are written [[event]], with two brackets",
    '[[event]]\nat_s = 3\nkind = "heall"': (
        "/swarm.toml: [[event]] number 1: kind cannot be 'heall'; did you mean 'heal'?"
    ),
    '[[event]]\nkind = "heal"': "/swarm.toml: [[event]] number 1: at_s is not set",
    '[[event]]\nat_s = 1\nkind = "heal"\nnode = []': (
        "/swarm.toml: [[event]] number 1: unknown key 'node'; did you mean 'nodes'?"
    ),
    '[[event]]\nat_s = 1\nkind = "crash"': '[[event]] number 1 (crash at 1 s): name the devices, as nodes = ["n1"]',
    '[[event]]\nat_s = 1\nkind = "heal"\nnodes = ["n1"]': (
        "[[event]] number 1 (heal at 1 s): it concerns all devices, so leave nodes out"
    ),
    '[[event]]\nat_s = 1\nkind = "sleep"\nnodes = ["n1"]': (
        "[[event]] number 1 (sleep at 1 s): say for how long, as for_s = 60"
    ),
    '[[event]]\nat_s = 600\nkind = "heal"': "[[event]] number 1 (heal at 600 s): the run ends at 600 s",
    '[[event]]\nat_s = 1\nkind = "crash"\nnodes = ["x1"]': (
        "[[event]] number 1 (crash at 1 s): no device is called 'x1'; one of n1, n2, n3, n4, n5, n6, n7, n8"
    ),
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_wrong_key_or_value_is_one_line_with_the_nearest_right_one(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) == WRONG[text]


def test_text_that_is_no_toml_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "swarm.toml:1: not TOML" in refusal(tmp_path, "[swarm\n")
    with pytest.raises(ConfigError, match="no such file or folder"):
        load(tmp_path / "none.toml")


def test_a_graph_that_falls_apart_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edges").write_text("n1 n2\nn3 n4\n")
    text = '[swarm]\nnodes = 4\n[graph]\nkind = "edges"\nfile = "edges"'
    assert "the graph falls apart" in refusal(tmp_path, text)


def test_values_of_the_command_line_win_and_are_read_as_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, '[swarm]\nnodes = 3\n[strategy]\nname = "d_psgd"\nrate = 0.5\n[data]\npath = "x.csv"')
    scenario = load(path, {"strategy.rate": "0.25", "network.delay_s": "0.1,0.2", "boards.pi-4": "1"})
    assert scenario.swarm.nodes == 3 and scenario.strategy.knobs == {"rate": 0.25}
    assert scenario.network.delay_s == (0.1, 0.2) and scenario.boards == (("pi-4", 1.0),)
    assert scenario.data.path == str(tmp_path / "x.csv"), "a path is meant from the file's folder"
    for key, said in (
        ("data.alhpa", "did you mean 'alpha'"),
        ("swarms.nodes", "did you mean 'swarm'"),
        ("event", "there is no .event."),
        ("swarm", "'swarm' is a section: set one of its keys, as swarm.nodes=..."),
        ("boards", "'boards' is a section: set one of its keys, as boards.profile="),
    ):
        with pytest.raises(ConfigError, match=said):
            load(path, {key: "1"})


def test_another_method_keeps_the_knobs_that_it_has_too() -> None:
    scenario = load(None, {"strategy.name": "d_psgd", "strategy.rate": "0.1", "strategy.period_s": "3"})
    assert changed(scenario, {"strategy.name": "isolated"}).strategy.knobs == {"rate": 0.1, "period_s": 3.0}
    assert changed(scenario, {"strategy.name": "prototype_gossip"}).strategy.knobs == {"period_s": 3.0}
    with pytest.raises(ConfigError, match="has no knob 'rate'"):
        changed(scenario, {"strategy.name": "prototype_gossip", "strategy.rate": 0.1})


def test_plain_data_and_back(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, example_file()))
    assert scenario.boards == (("pi-4", 0.75), ("pi-zero-2w", 0.25)) and len(scenario.events) == 2
    assert from_plain(scenario.plain()) == scenario
    assert [scenario.board_of(at) for at in range(8)] == ["pi-4"] * 6 + ["pi-zero-2w"] * 2


def test_the_example_names_every_key_with_its_built_in_value(tmp_path: Path) -> None:
    text = example_file()
    for section, settings in BY_SECTION.items():
        part = text.split(f"\n[{section}]\n")[1].split("\n[")[0]
        assert all(f"\n{name} = " in part or f"\n# {name} = " in part for name in settings), section
    everything = "\n".join(line[2:] if line.startswith("# ") and " = " in line else line for line in text.splitlines())
    bare = load(written(tmp_path, "\n".join(line for line in everything.splitlines() if not line.endswith("= "))))
    given = load(written(tmp_path, text))
    assert bare.method() == given.method(), "what stands commented out is what is built in"
    assert replace(bare, strategy=given.strategy) == given


def test_names_are_sorted_as_they_are_counted() -> None:
    for nodes in (1, 8, 12, 100):
        assert node_names(nodes) == tuple(sorted(node_names(nodes))) and len(set(node_names(nodes))) == nodes


def test_every_method_can_be_named() -> None:
    for name in STRATEGIES:
        assert Scenario(strategy=load(None, {"strategy.name": name}).strategy).method().name
