"""Work handed out to processes of this machine (joblib's loky), or to a Dask or Ray cluster where one is named.

All three start their processes with as many threads of arithmetic as there are cores for each.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pkgutil
import signal
import socket
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from edgeswarm import __version__
from edgeswarm.errors import ConfigError, TransportError

CLUSTER_WAIT_S = 10.0
"""For a cluster's first answer, and for its first worker."""
VERSION = "edgeswarm:__version__"
"""What each of its machines is asked for, by a function that it has without edgeswarm."""


class ProcessDied(Exception):
    """A process that was at work was ended from outside, by a system short of memory as a rule."""


def check_packages(dask: str = "", ray: str = "") -> None:
    """Raises ConfigError: what hands the runs out is not installed, or two clusters are named."""
    if dask and ray:
        raise ConfigError("give a Dask or a Ray address, not both")
    needed = [] if dask or ray else [("joblib", "a sweep", "joblib")]
    needed += [("distributed", "a sweep on Dask", "distributed")] if dask else []
    needed += [("ray", "a sweep on Ray", "ray")] if ray else []
    needed += [("grpc", "ray://", "'ray[client]'")] if ray.startswith("ray://") else []
    for module, what, package in needed:
        try:
            importlib.import_module(module)
        except ImportError:
            raise ConfigError(f"{what} needs a package that is not here: pip install {package}") from None


def spread(
    work: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    jobs: int = 1,
    dask: str = "",
    ray: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Any, None, None]:
    """What `work` returns for the arguments in each of `tasks`, as it comes.

    jobs: tasks at a time; -1 for one per core.  dask, ray: address of a cluster's scheduler, "" for none.  stop: asked
    before each task is given out.  Raises ConfigError, TransportError, ProcessDied, and what `work` raises.
    """
    given = itertools.takewhile(lambda task: not stop(), tasks)
    if dask:
        with _dask(dask) as client:
            yield from _on_dask(client, work, given)
    elif ray:
        with _ray(ray) as module:
            yield from _on_ray(module, work, given)
    else:
        yield from _here(jobs, work, given)


def _here(jobs: int, work: Callable[..., Any], tasks: Iterator[tuple[Any, ...]]) -> Generator[Any, None, None]:
    joblib = importlib.import_module("joblib")
    with _quiet(), joblib.parallel_config(backend="loky", n_jobs=jobs):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        try:
            calls = (joblib.delayed(_undisturbed)(os.getpid(), work, *task) for task in tasks)
            with contextlib.closing(parallel(calls)) as found:
                yield from found
        except BrokenExecutor as error:
            raise ProcessDied(str(error)) from None


def _undisturbed(owner: int, work: Callable[..., Any], *task: Any) -> Any:
    """`work` in a process that ends when `owner` says so: a terminal's Ctrl-C reaches all of them."""
    if os.getpid() != owner:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return work(*task)


# By the clusters' own clients: joblib's back end for Dask waits for ever for a task whose worker was killed, and those
# for both do all the work here where the cluster has one core.


def _on_dask(client: Any, work: Callable[..., Any], tasks: Iterator[tuple[Any, ...]]) -> Generator[Any, None, None]:
    killed = importlib.import_module("distributed.scheduler").KilledWorker
    running = importlib.import_module("distributed").as_completed()
    for task in itertools.islice(tasks, 2 * sum(client.ncores().values())):
        running.add(client.submit(work, *task, pure=False))
    for future in running:
        try:
            found = future.result()
        except killed as error:
            raise ProcessDied(str(error)) from None
        for task in itertools.islice(tasks, 1):
            running.add(client.submit(work, *task, pure=False))
        yield found


def _on_ray(ray: Any, work: Callable[..., Any], tasks: Iterator[tuple[Any, ...]]) -> Generator[Any, None, None]:
    faults, remote = importlib.import_module("ray.exceptions"), ray.remote(work)
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running = [remote.remote(*task) for task in itertools.islice(tasks, at_once)]
    while running:
        (ready, *_), _ = ray.wait(running)
        running.remove(ready)
        try:
            found = ray.get(ready)
        except (faults.WorkerCrashedError, faults.OutOfMemoryError) as error:
            raise ProcessDied(str(error)) from None
        running += [remote.remote(*task) for task in itertools.islice(tasks, 1)]
        yield found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """joblib's warnings are for who wrote this, not for who runs it: what they tell of is said in other words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"joblib\.")
        yield


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Any]:
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
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _ray(address: str) -> Iterator[Any]:
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
        yield module
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
