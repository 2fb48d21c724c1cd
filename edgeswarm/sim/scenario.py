"""A simulated swarm as a file says it: swarm.toml, read, checked and turned into one frozen value.

Sections that an agent's configuration has too ([strategy], [model], [encoder], [graph]) have its keys and its checks.
Every error is a ConfigError of one line that names file, line and key, and the nearest right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgeswarm.agent.config import Origins, build_strategy, knobs_of, try_strategy
from edgeswarm.agent.fields import Setting, checked, from_text, settings_of
from edgeswarm.agent.graph import topology as topology_of
from edgeswarm.agent.layers import Origin, Text, fail, read_tree
from edgeswarm.agent.names import did_you_mean, nearest
from edgeswarm.agent.profile import profiles
from edgeswarm.agent.settings import EncoderConfig, GraphConfig, StrategyConfig, setting
from edgeswarm.errors import ConfigError
from edgeswarm.maths.graphs import Topology
from edgeswarm.sim.data import BUILT_IN
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import wants_model, wants_public
from edgeswarm.wire.topics import is_name

FILES = "files"
SPLITS = ("iid", "dirichlet", "main_class", "primary_labels", "classes_per_agent", FILES)
"""Functions of `sim.splits`; files: each device has one of its own."""


@dataclass(frozen=True)
class SwarmTable:
    """[swarm]: how many devices, for how long."""

    nodes: int = setting(8, "devices; they are called n1, n2, ...", low=1, high=100_000)
    names: tuple[str, ...] = setting((), "names instead, as many as there are devices")
    absent: tuple[str, ...] = setting((), "names of [graph] names or file that are no devices: places left empty")
    seed: int = setting(0, "of every random choice", low=0, high=2**32 - 1)
    duration_s: float = setting(600.0, "virtual time that passes", unit="s", low=0.1, high=1e9)


@dataclass(frozen=True)
class DataTable:
    """[data]: what there is to learn, and who has which part of it."""

    path: str = setting(
        "", "csv, npz or a folder of images by class; split files: a folder of csv or npz; empty: `name`", path=True
    )
    test_path: str = setting("", "file of rows to be examined on; empty: a part of the others", path=True)
    name: str = setting("digits", "a set that needs no file", choices=BUILT_IN)
    label: str = setting("", "csv: the label's column (empty: label); npz: the label's array (empty: y)")
    limit_rows: int = setting(20_000, "rows used of a larger file, drawn evenly", low=10, high=10_000_000)
    split: str = setting("dirichlet", "how rows are dealt to the devices (docs/simulator.md)", choices=SPLITS)
    alpha: float = setting(0.3, "dirichlet: 0.1 a strong skew, 1 a mild one", low=0.001, high=1e6)
    share: float = setting(0.8, "main_class: part of a device's rows that is of its main class", low=0.0, high=1.0)
    primary: int = setting(3, "primary_labels: classes that are a device's own", low=1, high=1000)
    skew: float = setting(100.0, "primary_labels: how much likelier a row of an own class is", low=0.0, high=1e9)
    classes: int = setting(3, "classes_per_agent: classes of a device", low=1, high=1000)
    per_node: int = setting(0, "rows of a device; 0: all that there are", low=0, high=10_000_000)
    test: float = setting(0.2, "part of the rows that nobody learns from, where the file keeps none apart", low=0.01,
                          high=0.9)  # fmt: skip
    rate_per_s: float = setting(0.0, "rows that a device sees each second; 0: all are there at its start", unit="1/s",
                                low=0.0, high=1e6)  # fmt: skip


@dataclass(frozen=True)
class ModelTable:
    """[model]: what a method trains; without a path, a perceptron made for the data (`models.perceptron`)."""

    path: str = setting("", "model file or folder (edgeswarm model build); empty: a perceptron for the data", path=True)
    hidden: int = setting(32, "perceptron: width of its hidden layer", low=1, high=4096)
    heads: int = setting(3, "perceptron: auxiliary heads, for methods that distil", low=1, high=32)


@dataclass(frozen=True)
class PublicTable:
    """[public]: samples that every device has, for methods that exchange predictions."""

    path: str = setting("", "file of a public set; empty: rows of the data, set aside", path=True)
    rows: int = setting(200, "rows set aside where there is no file and the method wants some", low=1, high=65_536)


@dataclass(frozen=True)
class NetworkTable:
    """[network]: what happens to messages. The broker keeps the order of a sender's messages."""

    delay_s: tuple[float, ...] = setting((0.0,), "from sender to receiver: one time, or shortest and longest",
                                         unit="s", low=0.0, high=86_400.0)  # fmt: skip
    loss: float = setting(0.0, "chance that a copy never arrives", low=0.0, high=1.0)
    duplicate: float = setting(0.0, "chance that a copy arrives twice", low=0.0, high=1.0)
    reorder: bool = setting(False, "copies may overtake one another after all")
    uplink_bytes_per_s: float = setting(0.0, "of each device; 0: no limit; what waits for it counts as sent",
                                        unit="bytes/s", low=0.0, high=1e12)  # fmt: skip
    downlink_bytes_per_s: float = setting(0.0, "of each device; 0: no limit", unit="bytes/s", low=0.0, high=1e12)
    will_delay_s: float = setting(5.0, "how long a device is away before the others hear of it", unit="s", low=0.0)


@dataclass(frozen=True)
class ReportTable:
    """[report]: how often the devices are examined."""

    every_s: float = setting(30.0, "virtual time between two examinations", unit="s", low=0.01, high=1e9)
    at_s: tuple[float, ...] = setting((), "examine at these times instead, and at the end", unit="s", low=0.0, high=1e9)

    def due_s(self, number: int) -> float:
        """When examination `number` is due, counted from 1; inf beyond the last of `at_s`."""
        if not self.at_s:
            return number * self.every_s
        times = sorted(set(self.at_s))
        return times[number - 1] if number <= len(times) else float("inf")


@dataclass(frozen=True)
class StateTable:
    """[state]: what survives a crash."""

    every_s: float = setting(30.0, "time between two saves: the most that a crash costs", unit="s", low=0.1, high=1e9)


KINDS = ("partition", "heal", "crash", "revive", "leave", "join", "broker_restart", "sleep")


@dataclass(frozen=True)
class EventTable:
    """[[event]]: something that happens at a given time.

    nodes: names, or patterns such as "n1*".  partition: these and the others no longer hear each other; of several at
    once, nobody hears whom one of them parts it from.  heal: ends all partitions.  crash: as at a power cut; the device
    comes back from its last checkpoint.  leave: in good order.  sleep: offline.  Absences that overlap add up: a device
    is back when all are over.  revive, join: back at once, whatever for_s said; a device that joins before it ever left
    is not there from the start.  heal, broker_restart: concern all.
    """

    at_s: float = setting(0.0, "when", unit="s", low=0.0, high=1e9)
    kind: str = setting("", "what", choices=KINDS)
    nodes: tuple[str, ...] = setting((), "names, or patterns such as n1*")
    for_s: float = setting(0.0, "how long; 0: until another event ends it", unit="s", low=0.0, high=1e9)


SECTIONS: Mapping[str, type] = {
    "swarm": SwarmTable,
    "data": DataTable,
    "strategy": StrategyConfig,
    "model": ModelTable,
    "encoder": EncoderConfig,
    "graph": GraphConfig,
    "public": PublicTable,
    "network": NetworkTable,
    "state": StateTable,
    "report": ReportTable,
}
BY_SECTION: Mapping[str, Mapping[str, Setting]] = {name: settings_of(cls) for name, cls in SECTIONS.items()}
BOARDS, EVENT = "boards", "event"
_TABLES = (*SECTIONS, BOARDS, EVENT)


@dataclass(frozen=True)
class Scenario:
    """Everything that decides a run. boards: firmware profiles and the share of the devices that are such boards,
    () when arithmetic takes no time."""

    swarm: SwarmTable = field(default_factory=SwarmTable)
    data: DataTable = field(default_factory=DataTable)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    model: ModelTable = field(default_factory=ModelTable)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    public: PublicTable = field(default_factory=PublicTable)
    network: NetworkTable = field(default_factory=NetworkTable)
    state: StateTable = field(default_factory=StateTable)
    report: ReportTable = field(default_factory=ReportTable)
    boards: tuple[tuple[str, float], ...] = ()
    events: tuple[EventTable, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The devices, sorted: n1, n2, ... with as many digits as it takes, unless they have names of their own."""
        return tuple(sorted(self.swarm.names)) or node_names(self.swarm.nodes)

    @property
    def trains(self) -> bool:
        """Whether the method trains a model."""
        return wants_model(STRATEGIES[self.strategy.name])

    @property
    def distils(self) -> bool:
        """Whether the method learns from public samples."""
        return wants_public(STRATEGIES[self.strategy.name])

    def board_of(self, place: int) -> str:
        """The profile of the device at `place` in `names`, dealt in proportion to the shares; "" without boards."""
        at = (place + 0.5) / self.swarm.nodes * sum(share for _, share in self.boards)
        for profile, share in self.boards:
            at -= share
            if at < 0:
                return profile
        return self.boards[-1][0] if self.boards else ""

    def topology(self) -> Topology:
        """Who hears whom, of all devices, whether they are there or not. Raises ConfigError, one line."""
        names = self.graph.names or (*self.names, *self.swarm.absent)
        return topology_of(replace(self.graph, names=names)) or Topology(names=names)

    def method(self) -> Any:
        """The strategy with its knobs, not equipped yet. Raises ConfigError."""
        return build_strategy(self.strategy)

    def concerned(self, event: EventTable) -> tuple[str, ...]:
        """The devices that an event names."""
        return tuple(name for name in self.names if any(fnmatchcase(name, wanted) for wanted in event.nodes))

    def plain(self) -> dict[str, Any]:
        """As nested dicts of plain values, section by section; `from_plain` reads it."""
        found: dict[str, Any] = {name: _listed(asdict(getattr(self, name))) for name in SECTIONS if name != "strategy"}
        found["strategy"] = {"name": self.strategy.name, **_listed(self.strategy.knobs)}
        found[BOARDS] = dict(self.boards)
        found[EVENT] = [_listed(asdict(event)) for event in self.events]
        return found


def node_names(nodes: int) -> tuple[str, ...]:
    """n1 to n8, n01 to n12, ...: sorted as they are counted."""
    width = len(str(nodes))
    return tuple(f"n{number:0{width}d}" for number in range(1, nodes + 1))


def load(
    path: Path | None, overrides: Mapping[str, object] | None = None, folder: Path | None = None, whole: bool = True
) -> Scenario:
    """The scenario of a file, or of built-in values alone, with some keys set otherwise.

    overrides: by dotted key, "strategy.rate"; text is read as numbers and lists are.  folder: what relative paths of
    overrides are meant from (default: the working folder).  whole: whether its parts have to go together already;
    not where a recording's nodes are yet to be put in (`replay.fitted`).  Raises ConfigError, one line.
    """
    tree, lines = ({}, {}) if path is None else read_tree(path)
    where = {".".join(key): Origin("file", str(path), line) for key, line in lines.items()}
    return _made(tree, where, "built-in" if path is None else str(path), Path.cwd() if path is None else
                 path.absolute().parent, overrides or {}, folder or Path.cwd(), whole)  # fmt: skip


def from_plain(plain: Mapping[str, Any]) -> Scenario:
    """What `Scenario.plain` gave. Raises ConfigError: it was written by another version."""
    return _made(plain, {}, "the saved scenario", Path("/"), {}, Path("/"))


def changed(scenario: Scenario, overrides: Mapping[str, object]) -> Scenario:
    """The scenario with some keys set otherwise. With another method, knobs that it does not have are left out.

    Raises ConfigError, one line.
    """
    return _made(scenario.plain(), {}, "the scenario", Path("/"), overrides, Path.cwd())


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _made(
    tree: Mapping[str, Any],
    where: Mapping[str, Origin],
    source: str,
    tree_folder: Path,
    overrides: Mapping[str, object],
    folder: Path,
    whole: bool = True,
) -> Scenario:
    """The scenario of tables and of keys set otherwise. where: line of each dotted key; source: where none is known.
    whole: as in `load`."""
    origins = {key: where.get(key, Origin("file", source, 1) if where else Origin(source)) for key in _keys(tree)}
    values: dict[str, Any] = {}
    for name, table in tree.items():
        if name not in _TABLES:
            line = where.get(name, source)
            homes = [f"[{section}]" for section, known in BY_SECTION.items() if name in known]
            if homes and not isinstance(table, dict):
                raise ConfigError(f"{line}: unknown key {name!r}; it belongs in {' or '.join(homes)}")
            raise ConfigError(f"{line}: unknown section [{name}]{did_you_mean(name, _TABLES)}")
        if name == EVENT:
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"{where.get(name, source)}: {name!r} is a section: write [{name}] on a line of its own")
        for key, value in table.items():
            values[f"{name}.{key}"] = _value(name, key, value, origins[f"{name}.{key}"], tree_folder)
    for dotted, value in overrides.items():
        section, _, key = dotted.rpartition(".")
        origins[dotted] = Origin("command line")
        if dotted in (*SECTIONS, BOARDS):
            keys = f"profile={value}" if dotted == BOARDS else f"{next(iter(BY_SECTION[dotted]))}=..."
            raise ConfigError(f"command line: {dotted!r} is a section: set one of its keys, as {dotted}.{keys}")
        if section not in (*SECTIONS, BOARDS):
            said = f"[{section}]" if section else repr(dotted)
            raise ConfigError(f"command line: there is no {said}{did_you_mean(section or dotted, (*SECTIONS, BOARDS))}")
        values[dotted] = _value(section, key, value, origins[dotted], folder)
    found = Origins(origins)
    parts: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        chosen = {key: values[f"{section}.{key}"] for key in BY_SECTION[section] if f"{section}.{key}" in values}
        parts[section] = cls(**chosen) if cls is not StrategyConfig else _strategy(values, overrides, found)
    boards = _boards(
        {key.partition(".")[2]: value for key, value in values.items() if key.startswith("boards.")}, found
    )
    scenario = Scenario(**parts, boards=boards, events=_events(tree.get(EVENT, []), where, source))
    if whole:
        _check(scenario, found)
    return scenario


def _keys(tree: Mapping[str, Any]) -> list[str]:
    return [f"{name}.{key}" for name, table in tree.items() if isinstance(table, dict) for key in table]


def _value(section: str, key: str, value: object, origin: Origin, folder: Path) -> Any:
    """One checked value; knobs and boards are looked at when all is read."""
    text = isinstance(value, str) and origin.kind == "command line"
    if section == BOARDS:
        return value
    setting = BY_SECTION[section].get(key)
    if setting is None:
        if section == "strategy":
            return Text(value) if text else value
        raise ConfigError(f"{origin}: {_unknown(section, key)}")
    try:
        found = from_text(setting, str(value)) if text else checked(setting, value)
    except ValueError as error:
        raise fail(origin, f"{section}.{key}", str(error)) from None
    return str(folder / found) if setting.metadata.get("path") and found else found


def _unknown(section: str, key: str) -> str:
    homes = [f"[{other}]" for other, known in BY_SECTION.items() if key in known and other != section]
    if nearest(key, BY_SECTION[section]) is None and homes:
        return f"[{section}] unknown key {key!r}; it belongs in {' or '.join(homes)}"
    return f"[{section}] unknown key {key!r}{did_you_mean(key, BY_SECTION[section])}"


def _strategy(values: Mapping[str, Any], overrides: Mapping[str, object], origins: Origins) -> StrategyConfig:
    """The method and its knobs. Knobs of the file that a method set otherwise does not have are left out."""
    name = values.get("strategy.name", StrategyConfig().name)
    if name not in STRATEGIES:
        raise fail(origins["strategy.name"], "strategy.name", f"cannot be {name!r}{did_you_mean(name, STRATEGIES)}")
    foreign: set[str] = set()
    if "strategy.name" in overrides:
        known = settings_of(STRATEGIES[name])
        foreign = {
            key for key in values if key.startswith("strategy.") and key not in overrides and key[9:] not in known
        }
    kept = {key: value for key, value in values.items() if key not in foreign}
    made = StrategyConfig(name, knobs_of(name, STRATEGIES[name], kept, origins))
    try_strategy(made, STRATEGIES, origins)
    return made


def _boards(table: Mapping[str, object], origins: Origins) -> tuple[tuple[str, float], ...]:
    """[boards]: profile = "pi-4", or a share for each of several profiles."""
    if not table or table == {"profile": ""}:
        return ()
    known = [profile.id for profile in profiles()]
    if "profile" in table:
        name = table["profile"]
        if len(table) > 1:
            raise fail(origins["boards.profile"], "boards.profile", "is for all devices: leave the shares out")
        if name not in known:
            raise fail(
                origins["boards.profile"], "boards.profile", f"cannot be {name!r}{did_you_mean(str(name), known)}"
            )
        return ((str(name), 1.0),)
    shares: list[tuple[str, float]] = []
    for key, value in table.items():
        origin = origins[f"boards.{key}"]
        if key not in known:
            raise ConfigError(f"{origin}: [boards] no firmware profile is called {key!r}{did_you_mean(key, known)}")
        try:
            share = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
        except ValueError:
            share = -1.0
        if not 0 < share < float("inf"):
            raise fail(origin, f"boards.{key}", f"must be a share above 0, not {value!r}")
        shares.append((key, share))
    return tuple(shares)


def _events(tables: object, where: Mapping[str, Origin], source: str) -> tuple[EventTable, ...]:
    if isinstance(tables, dict) or not isinstance(tables, (list, tuple)):
        raise ConfigError(f"{where.get(EVENT, source)}: events are written [[event]], with two brackets")
    known = settings_of(EventTable)
    found = []
    for number, table in enumerate(tables, 1):
        place = f"{source}: [[event]] number {number}"
        chosen: dict[str, Any] = {}
        for key, value in table.items() if isinstance(table, dict) else ():
            if key not in known:
                raise ConfigError(f"{place}: unknown key {key!r}{did_you_mean(key, known)}")
            try:
                chosen[key] = checked(known[key], value)
            except ValueError as error:
                raise ConfigError(f"{place}: {key} {error}") from None
        missing = [key for key in ("at_s", "kind") if key not in chosen]
        if missing:
            raise ConfigError(f"{place}: {missing[0]} is not set")
        found.append(EventTable(**chosen))
    return tuple(sorted(found, key=lambda event: event.at_s))


def _check(scenario: Scenario, origins: Origins) -> None:
    """Rules between settings. Raises ConfigError."""

    def refuse(key: str, text: str) -> ConfigError:
        return fail(origins[key], key, text)

    own = scenario.swarm.names
    wrong = next((name for name in own if not is_name(name) or own.count(name) > 1), None)
    if wrong is not None:
        raise refuse("swarm.names", f"has {wrong!r}, which is no name (a-z, 0-9 and -), or stands there twice")
    if own and len(own) != scenario.swarm.nodes:
        raise refuse("swarm.names", f"are {len(own)}, and nodes = {scenario.swarm.nodes}")
    if scenario.data.split == FILES and not scenario.data.path:
        raise refuse("data.split", '= "files" needs path: a folder with a file for each device')
    delay = scenario.network.delay_s
    if len(delay) not in (1, 2) or delay[0] > delay[-1]:
        raise refuse("network.delay_s", "is one time, or the shortest and the longest")
    if not scenario.report.at_s and scenario.report.every_s > scenario.swarm.duration_s:
        every_s, duration_s = scenario.report.every_s, scenario.swarm.duration_s
        raise refuse(
            "report.every_s", f"= {every_s:g} s is longer than the run: set report.every_s to {duration_s:g} or less, "
            f"or swarm.duration_s, which is {duration_s:g} s, to {every_s:g} or more",
        )  # fmt: skip
    late = [at_s for at_s in scenario.report.at_s if at_s > scenario.swarm.duration_s]
    if late:
        raise refuse("report.at_s", f"has {late[0]:g} s, and the run ends at {scenario.swarm.duration_s:g} s")
    foreign = [name for name in scenario.graph.names if name not in (*scenario.names, *scenario.swarm.absent)]
    if foreign:
        first, last = scenario.names[0], scenario.names[-1]
        raise refuse("graph.names", f"has {foreign[0]!r}, but the devices are {first} to {last}")
    left_out = [name for name in scenario.names if name not in scenario.graph.names] if scenario.graph.names else []
    if left_out:  # an agent that is not in its own graph does not start either
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        raise refuse("graph.names", f"lacks {left_out[0]!r}{more}: every device has its place in it, there or not")
    if scenario.swarm.nodes > 1:
        scenario.topology()
    for number, event in enumerate(scenario.events, 1):
        place = f"[[event]] number {number} ({event.kind} at {event.at_s:g} s)"
        alone = [wanted for wanted in event.nodes if not any(fnmatchcase(name, wanted) for name in scenario.names)]
        if alone:
            raise ConfigError(f"{place}: no device is called {alone[0]!r}{did_you_mean(alone[0], scenario.names)}")
        if event.kind in ("heal", "broker_restart"):
            if event.nodes:
                raise ConfigError(f"{place}: it concerns all devices, so leave nodes out")
        elif not event.nodes:
            raise ConfigError(f'{place}: name the devices, as nodes = ["{scenario.names[0]}"]')
        if event.for_s and event.kind in ("heal", "revive", "join", "broker_restart"):
            raise ConfigError(f"{place}: for_s means nothing here; leave it out")
        if event.kind == "sleep" and not event.for_s:
            raise ConfigError(f"{place}: say for how long, as for_s = 60")
        if event.at_s >= scenario.swarm.duration_s:
            raise ConfigError(f"{place}: the run ends at {scenario.swarm.duration_s:g} s")
