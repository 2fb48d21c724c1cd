"""Everything a run needs before time begins: rows dealt out, examination, model, backend, each device's method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.compute import Answering, Sets
from edgeswarm.agent.encoder import Encoder, Preparation
from edgeswarm.agent.equipment import Equipment
from edgeswarm.agent.profile import load_profile, speed
from edgeswarm.agent.settings import GraphConfig
from edgeswarm.agent.sources.base import usable_label
from edgeswarm.backends.base import Gradient, LocalEpoch
from edgeswarm.backends.choose import choose
from edgeswarm.errors import ConfigError, DataError
from edgeswarm.messages import Array
from edgeswarm.models import public as public_file
from edgeswarm.models.card import ModelCard
from edgeswarm.models.cost import cost
from edgeswarm.models.file import Model, read
from edgeswarm.models.limits import Limits
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.sim import data as data_sets
from edgeswarm.sim import splits
from edgeswarm.sim.data import DataSet
from edgeswarm.sim.evaluation import NOBODYS, Exam
from edgeswarm.sim.scenario import FILES, Scenario
from edgeswarm.sim.world import Stream
from edgeswarm.strategies.base import Request, Strategy, equipped, finish, wants_neighbours
from edgeswarm.strategies.own_rows import LARGEST, trainable

TEST_LIMIT = 2_000
"""Most rows of an examination: the error of a share of right answers is then about one point."""
CUDA_FROM = 64
"""Devices from which on a GPU is looked for, which takes seconds. Without one, onnxruntime, which answers one by
one, was as fast as torch, which answers all in one call (measured with perceptrons and up to 150 devices)."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stage:
    """A scenario with all that is read and drawn for it.

    parts: rows of each device, as places in `x`.  x: (n, d) float32 and y: (n,) places in `classes`, of all of them.
    model: None where the method trains none.  public: None where it learns from no public set.
    """

    scenario: Scenario
    name: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    x: Array
    y: NDArray[np.int64]
    parts: Mapping[str, Rows]
    exam: Exam
    schema: int
    backend: Answering
    model: Model | None
    public: PublicSet | None

    def streams(self, starts_s: Mapping[str, float]) -> dict[str, Stream]:
        """What each device sees and when. starts_s: of those that are not there at the beginning."""
        rate = self.scenario.data.rate_per_s
        labels = np.array(self.classes)
        found = {}
        for name, rows in self.parts.items():
            start_s = starts_s.get(name, 0.0)
            gaps_s = np.arange(1, len(rows) + 1) / rate if rate else np.zeros(len(rows))
            times_s: Any = start_s + gaps_s  # float64: in float32 the last rows of a long stream would come together
            found[name] = Stream(self.x[rows], labels[self.y[rows]].tolist(), times_s, start_s)
        return found

    def strategies(self) -> Callable[[str], Strategy[Any]]:
        """By device, the method as it is to run there. Raises ConfigError: it cannot work with this model or set."""
        scenario = self.scenario
        topology, method = scenario.topology(), scenario.method()
        made: dict[str, Strategy[Any]] = {}
        for profile in {self.boards[name] for name in scenario.names}:
            batch = load_profile(profile).training.batch if profile else 0
            try:
                made[profile] = equipped(method, self.schema, self.model, batch, topology, self.public)
            except ValueError as error:
                raise ConfigError(f"[strategy] {scenario.strategy.name}: {error}") from None
        return lambda name: made[self.boards[name]]

    @cached_property
    def boards(self) -> dict[str, str]:
        """Firmware profile of each device, "" for none."""
        return {name: self.scenario.board_of(at) for at, name in enumerate(self.scenario.names)}

    def durations(self) -> Callable[[str, Request], float] | None:
        """Virtual time that a device takes for a request; None where arithmetic takes none.

        Training alone takes time, as `models.cost` estimates it for the device's board.
        """
        if not self.scenario.boards or self.model is None:
            return None
        card = self.model.card
        speeds = {board: speed(load_profile(board)) for board, _ in self.scenario.boards}

        def taken_s(name: str, request: Request) -> float:
            if isinstance(request, LocalEpoch):
                groups = list(request.picks.values())
                steps, batch = len(groups[0]), sum(group.shape[1] for group in groups)
            elif isinstance(request, Gradient):
                steps, batch = 1, len(next(iter(request.inputs.values())))
            else:
                return 0.0
            return steps * cost(card, speeds[self.boards[name]], batch).step_s

        return taken_s

    @cached_property
    def fingerprint(self) -> str:
        """Of the data, who has it, the model and the public set: a checkpoint belongs to one of these alone."""
        digest = hashlib.sha256(f"{self.schema} {self.classes}".encode())
        for array in (self.x, self.y, self.exam.x, self.exam.y, *self.parts.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update((self.model.card.hash if self.model else "").encode())
        digest.update((self.public.hash if self.public else "").encode())
        return digest.hexdigest()[:32]


def prepare(scenario: Scenario, data: DataSet | None = None, backend: str = "auto") -> Stage:
    """Read, deal, build. data: instead of what the scenario names.  backend: a name of `backends.choose`, or "auto".

    Raises ConfigError, DataError, ModelError, one line.
    """
    data = _read(scenario) if data is None else data
    classes, rng = data.classes, np.random.default_rng((scenario.swarm.seed, 1))
    y, learn, exam_x, exam_y = _labelled(data, scenario.data.test, rng)
    given = read(Path(scenario.model.path), Limits()) if scenario.model.path and scenario.trains else None
    encoder = read(Path(scenario.encoder.path), Limits()) if scenario.encoder.path else None
    answering = _backend(scenario.trains or encoder is not None, backend, scenario.swarm.nodes)
    if encoder is not None:
        answering.load(encoder)
    made = Preparation(data.schema, Encoder(encoder.card, scenario.encoder.normalise) if encoder else None,
                       given.card if given else None)  # fmt: skip
    x = finish(made.rows(data.x), answering.answer)
    exam_x = finish(made.rows(exam_x), answering.answer)
    model = given
    if scenario.trains and given is None:
        own = x[learn]
        heads = scenario.model.heads if scenario.distils else 0
        model = perceptron(
            classes, own.mean(axis=0), own.std(axis=0), scenario.model.hidden, heads=heads, seed=scenario.swarm.seed
        )
    if model is not None:
        _known(model.card, classes)
        answering.load(model)
    public, learn = _public(scenario, x, learn, classes, rng, made, answering)
    parts = _dealt(scenario, y, learn, data.parts)
    mixes = {name: np.bincount(y[rows], minlength=len(classes)) / max(1, len(rows)) for name, rows in parts.items()}
    notes = (*data.notes, *_foreign(data, exam_y))
    notes = (*notes, *(f"{name} has no rows of its own" for name, rows in parts.items() if not len(rows)))
    if public is not None and not scenario.public.path and len(public.x) < scenario.public.rows:
        said = f"of the {scenario.public.rows:,} rows for the public set {len(public.x):,} were set aside"
        notes = (*notes, f"{said}: not more than half of those to learn from")
    notes = (*notes, *splits.held_by_nobody(y, list(parts.values()), classes))
    if scenario.graph != GraphConfig() and not wants_neighbours(scenario.method()):
        notes = (*notes, f"[graph] is not used: with {scenario.strategy.name} everybody hears everybody")
    if scenario.trains:
        dealt = np.unique(np.concatenate(list(parts.values()))).astype(np.int64)
        notes = (*notes, *_left_out(x[dealt], data.features if encoder is None else ()))
    if scenario.trains and scenario.distils and not getattr(scenario.method(), "serve", 1):
        main = "devices answer with the main head, which learns their own samples alone"
        notes = (*notes, f"{main}; with strategy.serve=1, with the first head that learns from others")
    return Stage(
        scenario, data.name, notes, classes, x, y, parts, Exam(exam_x, exam_y, classes, mixes),
        made.schema.fingerprint, answering, model, public,
    )  # fmt: skip


def read_data(scenario: Scenario) -> DataSet:
    """The samples, as every run of the scenario has them. Raises DataError, one line: nobody could learn from them."""
    data = _read(scenario)
    _labelled(data, scenario.data.test, np.random.default_rng(0))
    return data


def _foreign(data: DataSet, exam_y: NDArray[np.int64]) -> tuple[str, ...]:
    """A note where the examination has rows of classes that nobody learns."""
    count = int((exam_y == NOBODYS).sum())
    if not count or data.test is None:
        return ()
    names = sorted(set(data.test[1]) - set(data.y))
    named = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{count:,} of the {len(exam_y):,} rows of the examination are of classes that nobody learns ({named}): "
        "whatever is answered is wrong, as on a device",
    )


def _left_out(x: Array, columns: tuple[str, ...]) -> tuple[str, ...]:
    """A note where devices will not train with some of the rows x. columns: their names, where they have some."""
    large = int((~trainable(x)).sum())
    if not large:
        return ()
    found = np.flatnonzero(~(np.abs(x) <= LARGEST).all(axis=0))
    names = [columns[at] if len(columns) == x.shape[1] else f"number {at + 1}" for at in found[:3].tolist()]
    more = ", ..." if len(found) > len(names) else ""
    return (
        f"{large:,} of {len(x):,} rows are not learnt from: {', '.join(names)}{more} beyond {LARGEST:,.0f}; "
        "scale such columns down",
    )


def _read(scenario: Scenario) -> DataSet:
    table, seed = scenario.data, scenario.swarm.seed
    if not table.path:
        found = data_sets.digits()
    elif table.split == FILES:
        found = data_sets.read_parts(Path(table.path), table.label, table.limit_rows, seed)
    else:
        found = data_sets.read(Path(table.path), table.label, table.limit_rows, seed)
    if table.test_path:
        # a model file in front takes the rows as they are stored
        modelled = bool(scenario.encoder.path or (scenario.model.path and scenario.trains))
        found = data_sets.with_test(
            found, Path(table.test_path), table.label, table.limit_rows, seed, same_form=modelled
        )
    return found


def _labelled(
    data: DataSet, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Rows, Array, NDArray[np.int64]]:
    """Each row's class as a place among `data.classes`, and what `_apart` gives. Raises DataError."""
    classes = data.classes
    if len(classes) < 2:
        raise DataError(f"{data.name}: one class alone ({classes[0]!r}); there is nothing to tell apart")
    foreign = next((label for label in classes if not usable_label(label)), None)
    if foreign is not None:
        raise DataError(f"{data.name}: {foreign[:40]!r} cannot be a class name")
    place = {label: at for at, label in enumerate(classes)}
    y = np.array([place[label] for label in data.y], np.int64)
    return y, *_apart(data, y, place, share, rng)


def _apart(
    data: DataSet, y: NDArray[np.int64], place: Mapping[str, int], share: float, rng: np.random.Generator
) -> tuple[Rows, Array, NDArray[np.int64]]:
    """Places of the rows to learn from, and the examination: what is kept apart, else `share` of every class. In the
    former, a class that nobody learns is `NOBODYS`."""
    if data.test is not None:
        test_x, names = data.test
        truth = np.array([place.get(label, NOBODYS) for label in names], np.int64)
        if (truth == NOBODYS).all():
            raise DataError(f"{data.name}: no row kept for examination is of a class that is learnt")
        kept = np.arange(len(truth))
        kept = np.sort(rng.choice(kept, TEST_LIMIT, replace=False)) if len(kept) > TEST_LIMIT else kept
        return np.arange(len(y)), test_x[kept], truth[kept]
    held: list[Rows] = []
    scale = min(1.0, TEST_LIMIT / max(1.0, share * len(y)))
    for label in range(len(place)):
        rows = rng.permutation(np.flatnonzero(y == label))
        if len(rows) < 2:
            name = next(name for name, at in place.items() if at == label)
            raise DataError(
                f"{data.name}: class {name!r} has {len(rows)} row{'' if len(rows) == 1 else 's'}, which cannot be both "
                "learnt and examined; leave it out"
            )
        held.append(rows[: min(len(rows) - 1, max(1, round(share * scale * len(rows))))])
    test = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(y)), test), data.x[test], y[test]


def _backend(needed: bool, name: str, nodes: int) -> Any:
    if not needed:
        return Sets()
    return choose(("torch-cuda", "onnx") if nodes >= CUDA_FROM else ("onnx",), name)[0]


def _known(card: ModelCard, classes: tuple[str, ...]) -> None:
    """Raises ConfigError: the model has another set of classes."""
    lacking = [label for label in classes if label not in card.labels]
    if lacking:
        raise ConfigError(f"[model] path: the model {card.name} knows no class {lacking[0]!r}, which the data has")


def _public(
    scenario: Scenario, x: Array, learn: Rows, classes: tuple[str, ...], rng: np.random.Generator, made: Preparation,
    answering: Answering,
) -> tuple[PublicSet | None, Rows]:  # fmt: skip
    """The public set, as devices prepare it, and the rows that are left to learn from. Raises ConfigError."""
    if not scenario.distils:
        return None, learn
    if scenario.public.path:
        device = Equipment(answering, public=public_file.read(Path(scenario.public.path)))
        return finish(device.prepared(made), answering.answer), learn
    rows = min(scenario.public.rows, len(learn) // 2)
    aside = np.sort(rng.choice(learn, rows, replace=False))
    return PublicSet(x[aside], classes, "set aside by the simulator"), np.setdiff1d(learn, aside)


def _dealt(scenario: Scenario, y: NDArray[np.int64], learn: Rows, own: Mapping[str, Rows]) -> dict[str, Rows]:
    """Places of each device's rows. own: where each has a file. Raises ConfigError: the split cannot be made."""
    if scenario.data.split == FILES:
        named = set(scenario.names) <= set(own)
        if len(own) != scenario.swarm.nodes and not named:
            raise ConfigError(f"[data] path: {len(own)} files, but [swarm] nodes = {scenario.swarm.nodes}")
        files = scenario.names if named else sorted(own)
        return {name: own[file][np.isin(own[file], learn)] for name, file in zip(scenario.names, files, strict=True)}
    table, nodes, seed = scenario.data, scenario.swarm.nodes, scenario.swarm.seed
    labels, per_node = y[learn], table.per_node or None
    try:
        match table.split:
            case "iid":
                parts = splits.iid(labels, nodes, seed, per_node)
            case "dirichlet":
                parts = splits.dirichlet(labels, nodes, table.alpha, seed, per_node)
            case "main_class":
                parts = splits.main_class(labels, nodes, seed, table.share, per_node)
            case "primary_labels":
                parts, _ = splits.primary_labels(labels, nodes, seed, table.primary, table.skew, 0.0, per_node)
            case _:
                parts = splits.classes_per_agent(labels, nodes, seed, table.classes, per_node)
    except ValueError as error:
        raise ConfigError(f"[data] split = {table.split!r}: {error}") from None
    return {name: learn[part] for name, part in zip(scenario.names, parts, strict=True)}
