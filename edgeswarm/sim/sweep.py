"""Many runs of one scenario with some keys set otherwise, in parallel on this machine or on a Dask or Ray cluster.

joblib hands the cells out (its loky processes here, its `dask` and `ray` back ends where an address is given). Each
cell that is over is a file of its own in the sweep's folder, written whole or not at all, so a sweep that was stopped
goes on with the cells that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import os
import pkgutil
import socket
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeswarm import __version__
from edgeswarm.agent.faults import fault_text
from edgeswarm.errors import ConfigError, EdgeswarmError, StateError, TransportError
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy
from edgeswarm.sim.outcome import Outcome, from_plain
from edgeswarm.sim.report import percent, size, span
from edgeswarm.sim.scenario import Scenario, changed
from edgeswarm.sim.scenario import from_plain as scenario_of

CELLS_LIMIT = 10_000
CLUSTER_WAIT_S = 10.0
"""For a cluster's first answer, and for its first worker."""
VERSION = "edgeswarm:__version__"
"""What each of its machines is asked for, by a function that it has without edgeswarm."""
SEED = "swarm.seed"
PICTURE = "sweep.png"
COLUMNS = ("accuracy", "accuracy_worst", "accuracy_common", "bytes_per_node", "age_s")
"""Figures of `Outcome.summary` in the table."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. settings: what is set otherwise, by dotted key."""

    settings: Mapping[str, Any]
    scenario: Scenario

    @property
    def key(self) -> str:
        """Name of its file: of all that decides the run."""
        text = json.dumps(self.scenario.plain(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """What is set otherwise beside the seed: cells that share it are repetitions."""
        return tuple((key, str(value)) for key, value in self.settings.items() if key != SEED)


@dataclass(frozen=True)
class Row:
    """What cells that differ in their seed alone came to. mean, sd: by figure; None where no run had it; sd None of a
    single run.  runs: how many; failed: those that could not be played, with the reason."""

    setting: tuple[tuple[str, str], ...]
    runs: int
    mean: Mapping[str, float | None]
    sd: Mapping[str, float | None]
    failed: tuple[str, ...] = ()


# ---- what to run -----------------------------------------------------------------------------------------------------


def parsed(over: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Keys and their values from "strategy.name=a,b", "seed=1..5" (short for swarm.seed). Raises ConfigError."""
    found: dict[str, tuple[str, ...]] = {}
    for text in over:
        key, mark, values = text.partition("=")
        key = SEED if key.strip() == "seed" else key.strip()
        if not mark or "." not in key:
            raise ConfigError(f"--over takes KEY=A,B,C or KEY=1..5, as strategy.name=d_psgd,isolated, not {text!r}")
        if key in found:
            raise ConfigError(f"--over {key} is given twice; give all its values at once")
        several = tuple(dict.fromkeys(_values(key, values)))
        if not several:
            raise ConfigError(f"--over {key} has no value")
        found[key] = several
    return found


def _values(key: str, text: str) -> Iterator[str]:
    for part in text.split(","):
        first, dots, last = (side.strip() for side in part.partition(".."))
        if not dots:
            if first:
                yield first
            continue
        if not (first.isdigit() and last.isdigit()) or int(first) > int(last) or int(last) - int(first) > CELLS_LIMIT:
            raise ConfigError(f"--over {key}: a range is two whole numbers, as 1..5, not {part.strip()!r}")
        yield from map(str, range(int(first), int(last) + 1))


def cells(scenario: Scenario, over: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Every combination, in order. Raises ConfigError: one of them is no scenario, or there are too many."""
    count = 1
    for values in over.values():
        count *= len(values)
    if count > CELLS_LIMIT:
        raise ConfigError(f"the sweep has {count:,} cells, at most {CELLS_LIMIT:,} are run; give fewer values")
    found = []
    for combination in itertools.product(*over.values()):
        settings = dict(zip(over, combination, strict=True))
        # the method first: which knobs there are depends on it
        first = {key: value for key, value in settings.items() if key == "strategy.name"}
        found.append(Cell(settings, changed(changed(scenario, first) if first else scenario, settings)))
    return found


# ---- running ---------------------------------------------------------------------------------------------------------


def check_packages(dask: str = "", ray: str = "") -> None:
    """Raises ConfigError: what hands the runs out is not installed, or two clusters are named."""
    if dask and ray:
        raise ConfigError("give a Dask or a Ray address, not both")
    needed = [("joblib", "a sweep", "joblib")]
    needed += [("distributed", "a sweep on Dask", "distributed")] if dask else []
    needed += [("ray", "a sweep on Ray", "ray")] if ray else []
    needed += [("grpc", "ray://", "'ray[client]'")] if ray.startswith("ray://") else []
    for module, what, package in needed:
        try:
            importlib.import_module(module)
        except ImportError:
            raise ConfigError(f"{what} needs a package that is not here: pip install {package}") from None


def sweep(
    wanted: Sequence[Cell],
    folder: Path,
    jobs: int = 1,
    *,
    dask: str = "",
    ray: str = "",
    backend: str = "auto",
    progress: Callable[[int, int, Cell], None] = lambda done, of, cell: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome | None]:
    """Outcomes in the order of the cells; None for one that is not over because `stop` said so.

    jobs: runs at a time; -1 for one per core.  dask, ray: address of a cluster's scheduler ("" for none; "auto": the
    one that Ray finds).  progress: called with how many are over.  stop: asked before each cell is given out.
    Why a cell cannot be played is kept, too, and `table` says it; next time it is tried again, for a file may have been
    mended.

    Raises ConfigError: a package is missing here or there, or an address is none.  TransportError: no cluster answers.
    StateError: the folder cannot be written.
    """
    check_packages(dask, ray)
    outcomes: dict[str, Outcome | None] = {}
    missing: dict[str, Cell] = {}
    for cell in wanted:
        if (kept := outcome_of(folder, cell)) is not None:
            outcomes[cell.key] = kept
        else:
            missing.setdefault(cell.key, cell)
    of = len({cell.key for cell in wanted})
    done = of - len(missing)
    if done and missing:
        progress(done, of, wanted[0])
    if missing:
        joblib = importlib.import_module("joblib")
        with _pool(joblib, jobs, dask, ray):
            for key, found, failed in _results(joblib, list(missing.values()), backend, stop, together=bool(ray)):
                _keep(folder, key, found, failed)
                outcomes[key] = None if found is None else from_plain(found)
                done += 1
                progress(done, of, missing[key])
    return [outcomes.get(cell.key) for cell in wanted]


Result = tuple[str, dict[str, Any] | None, str]
"""Key of a cell, its outcome as plain data, or why there is none."""


def _results(
    joblib: Any, waiting: Sequence[Cell], backend: str, stop: Callable[[], bool], together: bool
) -> Iterator[Result]:
    """As they come. together: the back end gives results by the lot alone, so that lots are given out."""

    def work(some: Sequence[Cell]) -> Iterator[Any]:
        for cell in some:
            if stop():
                return
            yield joblib.delayed(_played)(cell.key, cell.scenario.plain(), backend)

    if not together:
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")(work(waiting))
        return
    parallel = joblib.Parallel(batch_size=1)
    lot = 2 * joblib.effective_n_jobs(-1)
    for start in range(0, len(waiting), lot):
        yield from parallel(work(waiting[start : start + lot]))


def _played(key: str, plain: Mapping[str, Any], backend: str) -> Result:
    """One cell, in a process of its own."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # several runs share the cores
    from edgeswarm.sim.run import run

    try:
        return key, run(scenario_of(plain), backend=backend).plain(), ""
    except EdgeswarmError as error:
        return key, None, str(error)


@contextlib.contextmanager
def _pool(joblib: Any, jobs: int, dask: str, ray: str) -> Iterator[None]:
    """joblib's back end for what is asked, its packages being there. Raises ConfigError, TransportError."""
    if dask:
        with _dask(dask), joblib.parallel_config(backend="dask"):
            yield
    elif ray:
        with _ray(ray), joblib.parallel_config(backend="ray"):
            yield
    else:
        with joblib.parallel_config(backend="loky", n_jobs=jobs):
            yield


@contextlib.contextmanager
def _dask(address: str) -> Iterator[None]:
    """A client of the scheduler there, which has workers that have edgeswarm."""
    distributed = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=f"{CLUSTER_WAIT_S:g}s")
    except ValueError as error:
        raise ConfigError(f"--dask {address} is no address of a scheduler: {_first_line(error)}") from None
    except OSError as error:
        raise TransportError(f"no Dask scheduler answers at {address}: {_first_line(error)}") from None
    try:
        try:
            client.wait_for_workers(1, timeout=CLUSTER_WAIT_S)
        except OSError:
            raise TransportError(
                f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
            ) from None
        _same_edgeswarm(lambda: client.run(pkgutil.resolve_name, VERSION).values())
        yield
    finally:
        client.close()


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    """A connection to the cluster there, whose machines have edgeswarm."""
    module = importlib.import_module("ray")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), CLUSTER_WAIT_S).close()
        module.init(address=address, logging_level="ERROR", log_to_driver=False)
    except ValueError as error:
        raise ConfigError(f"--ray {address} is no address of a cluster: {_first_line(error)}") from None
    except (OSError, OverflowError, RuntimeError) as error:
        raise TransportError(f"no Ray cluster answers at {address}: {_first_line(error)}") from None
    try:
        _same_edgeswarm(lambda: [module.get(module.remote(pkgutil.resolve_name).remote(VERSION))])
        importlib.import_module("ray.util.joblib").register_ray()
        yield
    finally:
        module.shutdown()


def _same_edgeswarm(versions: Callable[[], Iterable[str]]) -> None:
    """Raises ConfigError: what the cluster's machines say is another version than ours, or they have none. Without
    this look, a worker that cannot read what it is given ends, or waits, without a word."""
    try:
        found = set(versions())
    except ImportError:
        raise ConfigError("the cluster's machines have no edgeswarm: install it there, too") from None
    if found != {__version__}:
        raise ConfigError(f"the cluster's machines have edgeswarm {', '.join(sorted(found))}, here it is {__version__}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]


def outcome_of(folder: Path, cell: Cell) -> Outcome | None:
    """The outcome that is kept of a cell; None for none, or for one that cannot be read (it is run again)."""
    try:
        return from_plain(json.loads((folder / f"{cell.key}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(folder: Path, key: str, plain: Mapping[str, Any] | None, failed: str) -> None:
    """Write a cell's file, whole or not at all."""
    path = folder / (f"{key}.json" if plain is not None else f"{key}.failed")
    fresh = path.with_suffix(".new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(plain) if plain is not None else failed, encoding="utf-8")
        fresh.replace(path)
        if plain is not None:
            (folder / f"{key}.failed").unlink(missing_ok=True)
    except OSError as error:
        raise StateError(fault_text("keep a run of the sweep in", path, error)) from None


# ---- what came of it -------------------------------------------------------------------------------------------------


def table(wanted: Sequence[Cell], outcomes: Sequence[Outcome | None], folder: Path) -> list[Row]:
    """Mean and standard deviation by setting, in the order of the cells; cells that are not over are left out."""
    groups: dict[tuple[tuple[str, str], ...], list[Outcome]] = {}
    failures: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for cell, outcome in zip(wanted, outcomes, strict=True):
        group = groups.setdefault(cell.setting, [])
        if outcome is not None:
            group.append(outcome)
        else:
            with contextlib.suppress(OSError):
                failures.setdefault(cell.setting, []).append(
                    (folder / f"{cell.key}.failed").read_text(encoding="utf-8")
                )
    rows = []
    for setting, group in groups.items():
        summaries = [outcome.summary() for outcome in group]
        values = {key: [each[key] for each in summaries if each[key] is not None] for key in COLUMNS}
        rows.append(
            Row(
                setting, len(group),
                {key: statistics.fmean(found) if found else None for key, found in values.items()},
                {key: statistics.stdev(found) if len(found) > 1 else None for key, found in values.items()},
                tuple(dict.fromkeys(failures.get(setting, ()))),
            )
        )  # fmt: skip
    return rows


def common_fault(failed: Iterable[Sequence[str]]) -> str:
    """The one reason for which no run could be played; "" where there are several. failed: reasons, of each setting."""
    reasons = {why for whys in failed for why in whys}
    return reasons.pop() if len(reasons) == 1 else ""


def heads(rows: Sequence[Row]) -> list[str]:
    """Of the columns of `words`."""
    keys = [key.removeprefix("strategy.") for key, _ in rows[0].setting] or ["scenario"]
    return [*keys, "runs", "own mix", "worst device", "all alike", "bytes of a device", "age"]


def words(row: Row) -> list[str]:
    """A row of the table: mean ± standard deviation."""

    def both(key: str, form: Callable[[float], str]) -> str:
        mean, sd = row.mean[key], row.sd[key]
        return "-" if mean is None else form(mean) if sd is None else f"{form(mean)} ± {form(sd)}"

    def points(key: str) -> str:
        mean, sd = row.mean[key], row.sd[key]
        return percent(mean) if mean is None or sd is None else f"{100 * mean:.1f} ± {100 * sd:.1f} %"

    cells_ = [value for _, value in row.setting] or ["as it is"]
    shares = [points(key) for key in ("accuracy", "accuracy_worst", "accuracy_common")]
    return [*cells_, str(row.runs), *shares, both("bytes_per_node", size), both("age_s", span)]


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {"setting": dict(row.setting), "runs": row.runs, "mean": dict(row.mean), "sd": dict(row.sd),
         "failed": list(row.failed)}
        for row in rows
    ]  # fmt: skip


def draw(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Accuracy by setting, and against bytes, each with its standard deviation. Raises NoPicture."""
    shown = [row for row in rows if row.mean["accuracy"] is not None]
    figure = canvas((12.0, max(3.6, 1.6 + 0.42 * len(shown))))
    bars, costs = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    places = range(len(shown))
    for key, colour, name, shift in (
        ("accuracy", COLOURS[0], "own mix", 0.16), ("accuracy_common", COLOURS[1], "all classes alike", -0.16),
    ):  # fmt: skip
        means = [100 * (row.mean[key] or 0.0) for row in shown]
        spread = [100 * (row.sd[key] or 0.0) for row in shown]
        bars.errorbar(means, [at + shift for at in places], xerr=spread, fmt="o", color=colour, capsize=4, label=name)
    names = [", ".join(value for _, value in row.setting) or "as it is" for row in shown]
    bars.set_yticks(list(places), [literal(name) for name in names])
    bars.set_ylim(len(shown) - 0.5, -0.5)
    bars.set_xlabel("samples recognised, %")
    bars.set_title(literal(title), fontsize=11, loc="left")
    for at, (row, name) in enumerate(zip(shown, names, strict=True)):
        colour = COLOURS[at % len(COLOURS)]
        x, y = row.mean["bytes_per_node"] or 0.0, 100 * (row.mean["accuracy_common"] or 0.0)
        across, up = row.sd["bytes_per_node"] or 0.0, 100 * (row.sd["accuracy_common"] or 0.0)
        costs.errorbar(max(x, 1.0), y, xerr=across, yerr=up,
                       fmt="o", color=colour, capsize=4)  # fmt: skip
        costs.annotate(literal(name), (max(x, 1.0), y), xytext=(6, 5), textcoords="offset points", fontsize=8)
    costs.set_xscale("log")
    costs.set_xlabel("MQTT bytes of a device, sent and received")
    costs.set_ylabel("all classes alike, %")
    for axes in (bars, costs):
        tidy(axes)
    handles, labels = bars.get_legend_handles_labels()
    if labels:
        labels[-1] += "  (mean and standard deviation over the seeds)"
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return saved(figure, path)
