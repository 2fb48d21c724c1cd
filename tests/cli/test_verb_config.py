from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Run

from edgeswarm.agent.config import load
from edgeswarm.agent.layers import BY_SECTION, TOP
from edgeswarm.cli.config import starter, toml_value

GOOD = """\
node = "node-1"
site = "hall"

[broker]
url = "mqtt://localhost:1883"

[source]
kind = "csv"
path = "samples.csv"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    return path


def test_show_prints_every_setting(run: Run, file: Path) -> None:
    shown = run("config", "show", "--config", str(file)).stdout
    for key in [*TOP, *(f"{section}.{key}" for section, keys in BY_SECTION.items() for key in keys)]:
        assert f"\n{key} " in shown
    assert '"hall"' in shown


def test_show_origin_names_line_variable_and_built_in(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESWARM_TASK", "wafer")
    lines = run("config", "show", "--origin", "--config", str(file)).stdout.splitlines()
    origin = {line.split()[0]: line for line in lines}
    assert origin["site"].endswith(f"{file}:2")
    assert origin["task"].endswith("environment EDGESWARM_TASK")
    assert origin["seed"].endswith("built-in")


def test_show_works_without_any_config(run: Run) -> None:
    assert "broker.url" in run("config", "show").stdout


def test_show_json(run_json: Callable[..., Any], file: Path) -> None:
    data = run_json("config", "show", "--origin", "--config", str(file))
    assert data["config"]["node"] == "node-1"
    assert data["files"] == [str(file)]
    assert data["origin"]["node"] == f"{file}:1"


def test_show_never_shows_a_password(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n")
    file.write_text(GOOD.replace("[source]", 'username = "node-1"\npassword_file = "pw"\n\n[source]'))
    for more in ([], ["--json"], ["--origin"]):
        assert "hunter2" not in run("config", "show", "--config", str(file), *more).output


def test_show_mentions_variables_that_set_nothing(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESWARM_NODDE", "x")
    assert "EDGESWARM_NODDE sets nothing" in run("config", "show", "--config", str(file)).stderr
    assert run("config", "show", "--config", str(file), "-q").stderr == ""


def test_check_says_good(run: Run, file: Path) -> None:
    assert f"{file}: good; node node-1 at site hall" in run("config", "check", str(file)).stdout


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ('site = "hall"', 'sight = "hall"', ":2: unknown key 'sight'; did you mean 'site'?"),
        ("[source]", "[sauce]", ":7: unknown section [sauce]; did you mean 'source'?"),
        ('kind = "csv"', 'kind = "cvs"', ":8: [source] kind cannot be 'cvs'; did you mean 'csv'?"),
        ('url = "mqtt://localhost:1883"', "url = 7", ":5: [broker] url must be"),
        ('site = "hall"', 'site = "hall', ":2: not TOML"),
    ],
)
def test_check_names_line_key_and_the_nearest_right_one(
    run: Run, run_json: Callable[..., Any], file: Path, wrong: str, right: str, said: str
) -> None:
    file.write_text(GOOD.replace(wrong, right))
    assert f"edgeswarm: {file}{said}" in run("config", "check", str(file), code=2).stderr
    data = run_json("config", "check", str(file), code=2)
    assert data["ok"] is False and said in data["error"]


def test_check_of_a_missing_file(run: Run) -> None:
    assert "nowhere.toml" in run("config", "check", "nowhere.toml", code=2).stderr


def test_init_prints_a_file_that_is_good(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    path.write_text(run("config", "init").stdout)
    assert "good" in run("config", "check", str(path)).stdout


def test_the_starter_explains_every_setting_and_all_of_them_can_be_uncommented(tmp_path: Path) -> None:
    text = starter("node-7")
    for keys in (TOP, *BY_SECTION.values()):
        for key, setting in keys.items():
            assert f"\n{key} = " in text or f"\n# {key} = " in text
            assert not setting.metadata.get("help") or setting.metadata["help"] in text
    path = tmp_path / "all.toml"
    lines = [
        line[2:] if line.startswith("# ") and " = " in line and line.split()[2] == "=" else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines))
    config, _ = load(path, {}, {})
    assert config.node == "node-7"


@pytest.mark.parametrize(
    "value", ["plain", 'with "quotes"', "tab\tand\nline", "umlaut ä", "\x7f", True, 3, 0.5, ("a", "b")]
)
def test_toml_value_reads_back(value: object) -> None:
    tomllib = pytest.importorskip("tomllib")
    back = tomllib.loads(f"key = {toml_value(value)}")["key"]
    assert back == (list(value) if isinstance(value, tuple) else value)
