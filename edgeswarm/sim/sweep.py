"""Many runs of one scenario with some keys set otherwise, in parallel on this machine or on a Dask or Ray cluster.

`pool` hands the cells out. Each cell that is over is a file of its own in the sweep's folder, written whole or not at
all, so a sweep that was stopped goes on with the cells that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeswarm.agent.faults import fault_text
from edgeswarm.errors import ConfigError, EdgeswarmError, StateError
from edgeswarm.models.file import read
from edgeswarm.models.limits import Limits
from edgeswarm.readable import brief, percent, size
from edgeswarm.sim.methods import not_own, played_with
from edgeswarm.sim.outcome import Outcome, from_plain
from edgeswarm.sim.pool import ProcessDied, check_packages, spread
from edgeswarm.sim.scenario import Scenario, changed
from edgeswarm.sim.scenario import from_plain as scenario_of
from edgeswarm.sim.stamps import Stamps
from edgeswarm.whole_file import whole

CELLS_LIMIT = 10_000
SEED = "swarm.seed"
COLUMNS = ("accuracy", "accuracy_worst", "accuracy_common", "bytes_per_node", "age_s")
"""Figures of `Outcome.summary` in the table."""
NAMED = 5
"""Most runs that a line names."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. settings: what is set otherwise, by dotted key.  tuning: knobs that `tuned` has set, and
    not to the method's own values."""

    settings: Mapping[str, Any]
    scenario: Scenario
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of its scenario: what is the same run, unless files that it reads have changed (`stamps`)."""
        text = json.dumps(self.scenario.plain(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """What is set otherwise beside the seed: cells that share it are repetitions."""
        return tuple((key, str(value)) for key, value in self.settings.items() if key != SEED)

    @property
    def words(self) -> str:
        """What is set otherwise, in words."""
        return ", ".join(f"{key} = {value}" for key, value in self.settings.items()) or "the scenario as it is"


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
    """Keys and their values from "strategy.name=a,b", "seed=1..5" (short for swarm.seed), "network.delay_s=0,[1,2]".

    Raises ConfigError.
    """
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
    for part in re.split(r",(?![^\[]*\])", text):  # a comma in brackets is one of a list, which is one value
        part = part.strip()
        if ".." not in part or "/" in part:
            if part:
                yield part
            continue
        first, _, last = (side.strip() for side in part.partition(".."))
        if not (first.isdecimal() and last.isdecimal()) or int(first) > int(last):
            raise ConfigError(f"--over {key}: a range is two whole numbers, as 1..5, not {part!r}")
        count = int(last) - int(first) + 1
        if count > CELLS_LIMIT:
            raise ConfigError(f"--over {key}: {part} is {count:,} values, at most {CELLS_LIMIT:,} are run; give fewer")
        yield from map(str, range(int(first), int(last) + 1))


def _bare(value: Any) -> Any:
    """A list in brackets as settings take it."""
    return value[1:-1] if isinstance(value, str) and value[:1] + value[-1:] == "[]" else value


def tuned(settings: Mapping[str, Any], scenario: Scenario, exam: str = "common") -> Cell:
    """A cell whose method has the settings that `compare` and `plan` play it with, where the scenario gives none
    (`methods.played_with`, which says what exam is). Raises ConfigError; ModelError: the model's file."""
    name, given = scenario.strategy.name, scenario.strategy.knobs
    path = scenario.model.path
    heads = read(Path(path), Limits()).card.heads if path and scenario.trains else scenario.model.heads
    hops = scenario.topology().graph(scenario.names[0], scenario.names).diameter()[0]
    more = played_with(name, given, heads, hops, exam)
    made = changed(scenario, {f"strategy.{knob}": value for knob, value in more.items()})
    return Cell(settings, made, not_own(name, more))


def cells(scenario: Scenario, over: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Every combination, in order; methods that are named are `tuned`. Raises ConfigError: one of them is no scenario,
    or there are too many."""
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
        bare = {key: _bare(value) for key, value in settings.items()}
        made = changed(changed(scenario, first) if first else scenario, bare)
        found.append(tuned(settings, made) if first else Cell(settings, made))
    return found


# ---- running ---------------------------------------------------------------------------------------------------------


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
    died: Callable[[str], None] = lambda why: None,
) -> list[Outcome | None]:
    """Outcomes in the order of the cells; None for one that cannot be played, or is not over.

    jobs: runs at a time; -1 for one per core.  dask, ray: address of a cluster's scheduler ("" for none; "auto": the
    one that Ray finds).  progress: called with how many are over.  stop: asked before each cell is given out.
    died: told in a line, and no more cells are given out, when a process was ended from outside, by a system short of
    memory as a rule.  A kept run counts while its files, this version and `backend` are those it was played with.
    Why a cell cannot be played is kept, too, and `table` says it; next time it is tried again, for a file may have been
    mended.

    Raises ConfigError: a package is missing here or there, or an address is none.  TransportError: no cluster answers.
    StateError: the folder cannot be written.
    """
    check_packages(dask, ray)
    outcomes: dict[str, Outcome | None] = {}
    missing: dict[str, tuple[Cell, Path]] = {}
    for cell, place in zip(wanted, files(wanted, folder, backend), strict=True):
        if (kept := outcome_of(place)) is not None:
            outcomes[cell.key] = kept
        else:
            missing.setdefault(cell.key, (cell, place))
            with contextlib.suppress(OSError):  # why it could not be played the last time may hold no longer
                _reason(folder, cell.key).unlink()
    of = len({cell.key for cell in wanted})
    done = of - len(missing)
    if done and missing:
        progress(done, of, wanted[0])
    if missing:
        tasks = [(key, place, cell.scenario.plain(), backend) for key, (cell, place) in missing.items()]
        try:
            with contextlib.closing(spread(_played, tasks, jobs, dask, ray, stop)) as results:
                for key, place, found, failed in results:
                    _keep(place, _reason(folder, key), found, failed)
                    outcomes[key] = None if found is None else from_plain(found)
                    done += 1
                    progress(done, of, missing[key][0])
        except ProcessDied:
            died(_died([cell for key, (cell, _) in missing.items() if key not in outcomes], of))
    return [outcomes.get(cell.key) for cell in wanted]


def _died(missing: Sequence[Cell], of: int) -> str:
    names = "; ".join(cell.words for cell in missing[:NAMED]) + ("; ..." if len(missing) > NAMED else "")
    return (
        "a process that played runs was ended from outside, most likely because memory was short (try fewer --jobs); "
        f"{len(missing)} of {of} runs are missing: {names}; the same command plays these"
    )


Result = tuple[str, Path, dict[str, Any] | None, str]
"""Key of a cell, its file, its outcome as plain data, or why there is none."""


def _played(key: str, place: Path, plain: Mapping[str, Any], backend: str) -> Result:
    """One cell, in a process of its own. place: where its outcome will be kept, with the stamp of what it reads."""
    from edgeswarm.sim.run import run

    scenario = scenario_of(plain)
    try:
        found = run(scenario, backend=backend).plain()
    except EdgeswarmError as error:
        return key, place, None, str(error)
    except MemoryError:
        return key, place, None, "out of memory: free some, try fewer --jobs, fewer devices or a smaller model"
    if _place(key, scenario, Stamps(backend, place.parent)) != place.name:
        return key, place, None, "its files were changed while it was played, or are others on that machine; try again"
    return key, place, found, ""


def files(wanted: Sequence[Cell], folder: Path, backend: str) -> list[Path]:
    """Where the outcome of each cell is kept: told apart by all that decides it, contents of files too."""
    stamps = Stamps(backend, folder)
    return [folder / _place(cell.key, cell.scenario, stamps) for cell in wanted]


def _place(key: str, scenario: Scenario, stamps: Stamps) -> str:
    return f"{key}-{stamps.of(scenario)}.json"


def outcome_of(place: Path) -> Outcome | None:
    """The outcome that is kept there; None for none, or for one that cannot be read (it is run again)."""
    try:
        return from_plain(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reason(folder: Path, key: str) -> Path:
    """Where it is kept why a cell cannot be played."""
    return folder / f"{key}.failed"


def _keep(place: Path, reason: Path, plain: Mapping[str, Any] | None, failed: str) -> None:
    """Write a cell's outcome to `place`, or to `reason` why it has none; whole or not at all."""
    path = place if plain is not None else reason
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(json.dumps(plain) if plain is not None else failed, encoding="utf-8")
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
                failures.setdefault(cell.setting, []).append(_reason(folder, cell.key).read_text(encoding="utf-8"))
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
    return [*cells_, str(row.runs), *shares, both("bytes_per_node", size), both("age_s", brief)]


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {"setting": dict(row.setting), "runs": row.runs, "mean": dict(row.mean), "sd": dict(row.sd),
         "failed": list(row.failed)}
        for row in rows
    ]  # fmt: skip
