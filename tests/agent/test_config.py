"""Configuration: order of places, and errors that name file, line, key and the nearest right one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from edgeswarm.agent import config
from edgeswarm.agent.config import SECTIONS, load, redacted, rows
from edgeswarm.agent.fields import settings_of
from edgeswarm.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Gossip:
    """Stands for a learning method: what matters here is its fields."""

    schema: int = 0
    rate: float = dataclasses.field(default=0.5, metadata={"low": 0.0, "high": 1.0})
    keep: int = dataclasses.field(default=64, metadata={"low": 8, "unit": "prototypes"})
    filter: str = dataclasses.field(default="js", metadata={"choices": ("js", "energy")})
    limit: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.strict and self.rate == 0:
            raise ValueError("rate 0 and strict exclude each other")


@dataclasses.dataclass(frozen=True)
class Alone:
    """A method without knobs."""


TABLE: dict[str, type] = {"prototype_gossip": Gossip, "alone": Alone}
GOOD = """node = "kitchen"
[broker]
url = "mqtt://localhost"
[source]
kind = "csv"
path = "data.csv"
"""


@pytest.fixture
def place(tmp_path):
    """Writes a file and loads it; knows nothing of the machine's own files and environment."""

    def use(text=GOOD, name="agent.toml", overrides=None, environ=None, **more):
        path = tmp_path / name
        path.write_text(text)
        return load(path, overrides, environ or {}, tmp_path, cwd=tmp_path, strategies=TABLE, **more)

    return use


def failure(call, *args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return re.sub(r"\S*/(?=agent\.toml)", "", text)


def test_a_good_file(place, tmp_path):
    settings, origins = place()
    assert (settings.node, settings.site, settings.task, settings.seed) == ("kitchen", "home", "default", 0)
    assert settings.broker.url == ("mqtt://localhost",)
    assert settings.source.path == str(tmp_path / "data.csv")
    assert settings.state.folder == str(tmp_path / "var/lib/edgeswarm/kitchen")
    assert str(origins["node"]).endswith("agent.toml:1")
    assert str(origins["broker.url"]).endswith("agent.toml:3")
    assert str(origins["site"]) == "built-in"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GOOD + "pth = 'x'\n", "agent.toml:7: [source] unknown key 'pth'; did you mean 'path'?"),
        ("# c\n\n[broker]\nulr = 'x'", "agent.toml:4: [broker] unknown key 'ulr'; did you mean 'url'?"),
        ("nod = 'x'", "agent.toml:1: unknown key 'nod'; did you mean 'node'?"),
        ("\n[brokr]\nurl = 'x'", "agent.toml:2: unknown section [brokr]; did you mean 'broker'?"),
        ("broker = 'x'", "agent.toml:1: 'broker' is a section: write [broker] on a line of its own"),
        ("[broker]\nnode = 'x'", "agent.toml:2: [broker] unknown key 'node'; it belongs above the first [section]"),
        ("[report]\npassword_file = 'x'", "agent.toml:2: [report] unknown key 'password_file'; it belongs in [broker]"),
        ("keepalive_s = 5", "agent.toml:1: unknown key 'keepalive_s'; it belongs in [broker]"),
        ("[broker]\nkeepalive_s = '5'", "agent.toml:2: [broker] keepalive_s must be a whole number, not the text '5'"),
        ("[broker]\nkeepalive_s = 1", "agent.toml:2: [broker] keepalive_s must be at least 5 s, not 1"),
        ("[broker]\nkeepalive_s = true", "agent.toml:2: [broker] keepalive_s must be a whole number, not true"),
        ("[broker]\nkeepalive_s = 5.5", "agent.toml:2: [broker] keepalive_s must be a whole number, not 5.5"),
        ("[broker]\nurl = [\n1]", "agent.toml:2: [broker] url must be a list of text, not 1"),
        ("[state]\nevery_s = nan", "agent.toml:2: [state] every_s must be a finite number, not nan"),
        ("[state]\nevery_s = 0", "agent.toml:2: [state] every_s must be at least 1 s, not 0"),
        ("[source]\nkind = 'cvs'", "agent.toml:2: [source] kind cannot be 'cvs'; did you mean 'csv'?"),
        ("[source]\nkind = 'csv'", 'agent.toml:2: [source] kind = "csv" needs path to be set too'),
        ("[source]\nrepeat = {a=1}", "agent.toml:2: [source] repeat must be true or false, not a table"),
        ("[strategy]\nname = 'gossip'", "agent.toml:2: [strategy] name cannot be 'gossip'; did you mean "),
        ("[strategy]\nkep = 9", "agent.toml:2: [strategy] prototype_gossip has no knob 'kep'; did you mean 'keep'?"),
        ("[strategy]\nkeep = 2", "agent.toml:2: [strategy] keep must be at least 8 prototypes, not 2"),
        ("[strategy]\nrate = 1.5", "agent.toml:2: [strategy] rate must be at most 1, not 1.5"),
        ("[strategy]\nfilter = 'enrgy'", "agent.toml:2: [strategy] filter cannot be 'enrgy'; did you mean 'energy'?"),
        ("[strategy]\nschema = 3", "agent.toml:2: [strategy] prototype_gossip has no knob 'schema'"),
        (
            "[strategy]\n\nstrict = true\nrate = 0",
            "agent.toml:3: [strategy] prototype_gossip: rate 0 and strict exclude",
        ),
        ("node = 'all'", 'agent.toml:1: node "all" is taken'),
        ("node = 'Küche 1'", 'agent.toml:1: node "Küche 1" is not usable'),
        ("site = ''", 'agent.toml:1: site "" is not usable'),
        ("[broker]\nurl = 'localhost'", "agent.toml:2: [broker] url has to begin with mqtts:// or mqtt://"),
        ("[broker]\nurl = 'mqqt://x'", "and is 'mqqt://x'; did you mean 'mqtt'?"),
        ("[broker]\nurl = 'mqtts://x:99999'", "agent.toml:2: [broker] url is a host and perhaps a port"),
        ("[broker]\nurl = 'mqtt://far'", "agent.toml:2: [broker] url would talk to far in plain text; use mqtts://"),
        ("[broker]\ncert = 'x'", "agent.toml:2: [broker] cert is set, but key is not: they go together"),
        ("[broker]\npassword_file = 'x'", "agent.toml:2: [broker] password_file is set, but username is not"),
        ("[source]\nclasses = ['a', 'a']", "agent.toml:2: [source] classes names 'a' twice"),
        ("[source]\ntopic = 'a/#/b'", "agent.toml:2: [source] topic has a # that is not the whole last level"),
        ("[source]\ntopic = 'edgeswarm/v1/x'", "agent.toml:2: [source] topic begins with edgeswarm/"),
        ("[source]\ntopic = 's/#'\npredictions_topic = 's/p'", "agent.toml:3: [source] predictions_topic is among"),
        ("a = 1\nb = = 2", "agent.toml:2: not TOML: Invalid value, column 5"),
        ("a = 1\na = 2", "agent.toml:2: not TOML: Cannot overwrite a value"),
        ('a = """x\n\n', "agent.toml:2: not TOML: "),
        ("", 'node is not set: write node = "some-name" at the top of the configuration, or set EDGESWARM_NODE'),
        ("node = 'a'", "broker.url is not set: write url = "),
    ],
)
def test_errors_name_the_place_and_the_nearest_right_one(place, text, error):
    assert error in failure(place, text)


def test_an_address_with_a_password_is_refused_without_repeating_it(place):
    text = failure(place, "[broker]\nurl = 'mqtts://me:hunter2@host'")
    assert "password_file" in text and "hunter2" not in text


def test_a_missing_file_and_a_folder_and_other_bytes(tmp_path):
    def attempt(path):
        return failure(load, path, {}, {}, tmp_path, cwd=tmp_path, strategies=TABLE)

    assert "no such file or folder: cannot read the configuration" in attempt(tmp_path / "none.toml")
    assert "this is a folder" in attempt(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"node = 'a'\n# \xff")
    assert attempt(tmp_path / "latin.toml").endswith("latin.toml:2: not UTF-8 text")
    (tmp_path / "large.toml").write_bytes(b"#" * 1_000_001)
    assert "larger than" in attempt(tmp_path / "large.toml")


def test_the_strongest_place_wins(tmp_path):
    work, home = tmp_path / "work", tmp_path / "home"
    for folder, node in ((work, "five"), (home / ".config/edgeswarm", "three"), (tmp_path / "etc/edgeswarm", "two")):
        folder.mkdir(parents=True)
        name = "edgeswarm.toml" if folder == work else "config.toml"
        (folder / name).write_text(f"node = '{node}'\n")
    (tmp_path / "etc/edgeswarm/config.toml").write_text(GOOD + "[report]\nevery_s = 7\n")
    environ = {"HOME": str(home), "EDGESWARM_NODE": "six"}
    overrides = {"node": "seven", "site": None}

    def node(overrides, environ):
        settings, origins = load(None, overrides, environ, tmp_path, cwd=work, strategies=TABLE)
        assert settings.report.every_s == 7  # what nobody stronger has set comes through
        return settings.node, str(origins["node"])

    assert node(overrides, environ) == ("seven", "command line")
    assert node({}, environ) == ("six", "environment EDGESWARM_NODE")
    del environ["EDGESWARM_NODE"]
    assert node({}, environ) == ("five", f"{work}/edgeswarm.toml:1")
    (work / "edgeswarm.toml").unlink()
    assert node({}, environ) == ("three", f"{home}/.config/edgeswarm/config.toml:1")
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "nowhere")
    assert node({}, environ) == ("kitchen", f"{tmp_path}/etc/edgeswarm/config.toml:1")


def test_environment_values_are_read_as_their_types(place):
    environ = {
        "EDGESWARM_BROKER_URL": "mqtts://a, mqtts://b:1",
        "EDGESWARM_BROKER_KEEPALIVE_S": "12",
        "EDGESWARM_SOURCE_REPEAT": "yes",
        "EDGESWARM_SOURCE_RATE_PER_S": "2.5",
        "EDGESWARM_STRATEGY_KEEP": "100",
        "EDGESWARM_STRATEGY_LIMIT": "3",
        "EDGESWARM_REPORT_EVERY_S": "",
        "EDGESWARM_RUN_SOMETHING": "1",
    }
    settings, origins = place(environ=environ)
    assert settings.broker.url == ("mqtts://a", "mqtts://b:1")
    assert (settings.broker.keepalive_s, settings.source.repeat, settings.source.rate_per_s) == (12, True, 2.5)
    assert settings.strategy.knobs == {"keep": 100, "limit": 3.0}
    assert origins.unused == ("EDGESWARM_RUN_SOMETHING",)
    assert str(origins["strategy.keep"]) == "environment EDGESWARM_STRATEGY_KEEP"


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        (
            "EDGESWARM_BROKER_ULR",
            "x",
            "environment EDGESWARM_BROKER_ULR: [broker] unknown key 'ulr'; did you mean 'url'?",
        ),
        ("EDGESWARM_STATE_EVERY_S", "x", "EVERY_S: [state] every_s must be a number, not 'x'"),
        ("EDGESWARM_SOURCE_REPEAT", "maybe", "[source] repeat must be true or false, not 'maybe'"),
        ("EDGESWARM_STRATEGY_KEEP", "many", "[strategy] keep must be a whole number, not 'many'"),
    ],
)
def test_errors_in_the_environment(place, variable, value, error):
    assert error in failure(place, environ={variable: value})


def test_overrides_are_checked_too(place):
    assert "command line: unknown section [brokr]; did you mean 'broker'?" in failure(
        place, overrides={"brokr.url": "x"}
    )
    assert "[broker] unknown key 'ulr'" in failure(place, overrides={"broker.ulr": 3})
    settings, _ = place(overrides={"broker.url": ("mqtts://x",), "strategy.keep": "9", "source.classes": ()})
    assert settings.broker.url == ("mqtts://x",) and settings.strategy.knobs == {"keep": 9}


def test_another_method_leaves_the_knobs_of_a_weaker_place_behind(place):
    settings, _ = place(GOOD + "[strategy]\nkeep = 9\n", overrides={"strategy.name": "prototype_gossip"})
    assert settings.strategy.knobs == {"keep": 9}
    settings, _ = place(GOOD + "[strategy]\nkeep = 9\n", overrides={"strategy.name": "alone"})
    assert settings.strategy.knobs == {}


def test_paths_are_meant_from_where_they_are_written(place, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "node.key").write_text("")
    text = "[broker]\ncert = 'node.pem'\nkey = 'node.key'\nca = '/abs/ca.pem'\n[evaluate]\npath = '~/e.csv'"
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "HOME": "/home/me", "EDGESWARM_SOURCE_PATH": "d.csv"}
    settings, _ = place(text, name="conf-agent.toml", environ=environ, complete=False)
    assert settings.broker.cert == str(tmp_path / "node.pem")
    assert settings.broker.key == str(credentials / "node.key")
    assert settings.broker.ca == "/abs/ca.pem"
    assert settings.evaluate.path == "/home/me/e.csv"
    assert settings.source.path == str(tmp_path / "d.csv")


def test_state_folder_follows_systemd_then_xdg(place):
    assert place(environ={"STATE_DIRECTORY": "/var/lib/e:/x", "HOME": "/h"})[0].state.folder == "/var/lib/e"
    assert place(environ={"XDG_STATE_HOME": "/s", "HOME": "/h"})[0].state.folder == "/s/edgeswarm/kitchen"
    assert place(environ={"HOME": "/h"})[0].state.folder == "/h/.local/state/edgeswarm/kitchen"


def test_shown_values_hold_no_secret(place):
    settings, origins = place()
    leaky = dataclasses.replace(settings, broker=dataclasses.replace(settings.broker, url=("mqtts://me:pw@h:1",)))
    assert redacted(leaky)["broker"]["url"] == ["mqtts://h:1"]
    shown = {key: (value, str(origin)) for key, value, origin in rows(settings, origins)}
    assert shown["site"] == ("home", "built-in")
    assert shown["strategy.name"] == ("prototype_gossip", "built-in")
    assert len(shown) == 4 + sum(len(settings_of(cls)) for cls in SECTIONS.values())


def test_the_shipped_example_can_be_used():
    settings, _ = load(REPOSITORY / "docs/agent.example.toml", {}, {"HOME": "/home/me"})
    assert settings.node and settings.broker.url and settings.source.kind


def test_build_strategy_makes_what_was_asked_for(place):
    settings, _ = place(GOOD + "[strategy]\nkeep = 9\n")
    assert config.build_strategy(settings.strategy, TABLE) == Gossip(keep=9)


def test_the_documentation_lists_every_key_with_its_default():
    """Rows read | `key` | type | default | ... under a heading that names the section."""
    documented: dict[str, str] = {}
    section = ""
    for line in (REPOSITORY / "docs/config.md").read_text().splitlines():
        if heading := re.match(r"## .*?(?:\[(\w+)\]|$)", line):
            section = heading[1] or ""
        elif row := re.match(r"\| `(\w+)` \| [^|]+ \| ([^|]+) \|", line):
            documented[f"{section}.{row[1]}".lstrip(".")] = row[2].strip().strip("`")
    actual = {key: setting.default for key, setting in settings_of(config.Config).items()}
    for section, cls in SECTIONS.items():
        actual.update({f"{section}.{key}": setting.default for key, setting in settings_of(cls).items()})
    said = {key: _toml(value) for key, value in actual.items()}
    assert documented == said


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
