"""The demo itself: a broker, some agents as processes, one watcher, and the certainty that all of it ends."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgeswarm.backends.choose import choose
from edgeswarm.demo.broker import KINDS, start_broker
from edgeswarm.demo.data import AgentFiles, Deal, Terms, deal, write_files
from edgeswarm.demo.encoder import Encoder, train
from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.image_data import Images, mnist, read_images, split
from edgeswarm.demo.processes import AgentProcess, Interrupts, start_agent, stop_agents
from edgeswarm.demo.screen import Screen
from edgeswarm.demo.summary import FLOAT_BYTES, PIXEL_BYTES, Summary, percent, summarise
from edgeswarm.demo.table_file import read_table
from edgeswarm.demo.view import View
from edgeswarm.demo.watch import Watcher
from edgeswarm.errors import EdgeswarmError
from edgeswarm.models.file import write
from edgeswarm.sim.data import DataSet, digits
from edgeswarm.transport.settings import parse_url

DRAW_EVERY_S = 0.25
LATE_S = 14.0
"""How long after its due time a share may still be unfinished before the demo ends without it."""

_CONNECT_S = 12.0
"""Long enough for a broker that is silent to MQTT 5 for ten seconds to be asked in MQTT 3.1.1."""

_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Wish:
    """What the reader asked for.

    broker: a URL of a running broker, the name of a kind to start ("mosquitto", "amqtt"), or "" for whichever is there.
    data, label: a CSV file and its label column, or None and "" for the digits that come with scikit-learn.
    images: learn images through an encoder; data is then a NumPy archive, or None for MNIST.
    """

    agents: int = 5
    length_s: float = 25.0
    seed: int = 7
    broker: str = ""
    data: Path | None = None
    label: str = ""
    images: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of it. broker: kind, version and url of the broker. wall_s: from the start to the last agent's end.

    encoder: of a demo with images.
    """

    history: History
    summary: Summary
    view: View
    data: DataSet
    broker: dict[str, str]
    wall_s: float
    dealt: Deal
    encoder: Encoder | None = None


def run(wish: Wish, screen: Screen, interrupts: Interrupts) -> Outcome:
    """Run the demo to its end. To be called in the main thread.

    Raises KeyboardInterrupt after Ctrl-C, SIGTERM or SIGHUP, DataError and ConfigError for what cannot be used,
    TransportError without a broker, EdgeswarmError when no agent lives. However it ends, nothing is left running and
    no temporary file stays behind.
    """
    began = time.monotonic()
    with interrupts.at_once():
        laboratory, data = _data(wish)
        dealt = deal(data, wish.agents, wish.seed)
        encoder = _encoder(laboratory, dealt, wish.seed, screen) if laboratory is not None else None
    view: View | None = None
    try:
        with _folder() as folder, _broker(wish, folder, interrupts) as broker:
            terms = _terms(wish, broker)
            if encoder is not None:
                terms = replace(terms, encoder=str(folder / "encoder.esm"))
                write(encoder.model, folder / "encoder.esm")
            files = write_files(dealt, folder, terms)
            view = _view(wish, dealt, files, broker)
            others = not broker["kind"]
            watcher = Watcher(terms.url, terms.site, terms.plain_text, terms.protocol, keep_topics=others)
            # the agents first: forking a process that has threads is best avoided, and they take longest to start
            with watcher, _agents(files, view, screen, interrupts) as processes:
                with interrupts.at_once():
                    watcher.start(_CONNECT_S)
                _follow(view, watcher, processes, terms, screen, interrupts)
            view.phase = "done"
    finally:
        with contextlib.suppress(OSError):
            screen.close(view)
    assert view is not None
    wall_s = time.monotonic() - began
    summary = summarise(view.history, dealt.data.x.shape[1], PIXEL_BYTES if wish.images else FLOAT_BYTES)
    return Outcome(view.history, summary, view, data, broker, wall_s, dealt, encoder)


def _data(wish: Wish) -> tuple[Images | None, DataSet]:
    """The laboratory's images, where images are wanted, and what the devices will see. Raises DataError."""
    if wish.images:
        return split(read_images(wish.data) if wish.data is not None else mnist(), wish.seed)
    return None, read_table(wish.data, wish.label) if wish.data is not None else digits()


def _encoder(laboratory: Images, dealt: Deal, seed: int, screen: Screen) -> Encoder:
    """An encoder trained before the devices start, with plain ONNX Runtime where it is installed, else NumPy."""
    backend, _ = choose(("onnx",))
    encoder = train(laboratory, backend, seed, (dealt.holdout_x, dealt.holdout_y), lambda part: None)
    screen.say(
        f"Trained an encoder on {len(laboratory.y)} images of its own ({backend.name}): {encoder.model.card.embedding} "
        f"numbers for each image; by itself it recognises {percent(encoder.accuracy)} of the hold-out."
    )
    return encoder


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="edgeswarm-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _broker(wish: Wish, folder: Path, interrupts: Interrupts) -> Iterator[dict[str, str]]:
    """kind, version and url of a broker of our own, or of the reader's, whose kind is "" because nobody told us."""
    if wish.broker and wish.broker not in KINDS:
        yield {"kind": "", "version": "", "url": str(parse_url(wish.broker))}
        return
    with interrupts.at_once():
        # a broker that is left here half-started dies with this process
        running = start_broker(wish.broker or None, folder / "broker")
    try:
        yield {"kind": running.kind, "version": running.version, "url": running.url}
    finally:
        running.stop(patience_s=1.0)


@contextlib.contextmanager
def _agents(
    files: tuple[AgentFiles, ...], view: View, screen: Screen, interrupts: Interrupts
) -> Iterator[list[AgentProcess]]:
    """The agents, one process each; none of them runs any more when this is left, however it is left."""
    processes: list[AgentProcess] = []
    try:
        for file in files:
            interrupts.check()
            processes.append(start_agent(file.node, file.config))
            view.history.agents[file.node].pid = processes[-1].process.pid
        yield processes
    finally:
        signals = interrupts.count
        try:
            view.phase = "stopping"
            with contextlib.suppress(OSError):  # the terminal may be gone
                screen.draw(view)
        finally:
            stop_agents(processes, hurry=lambda: interrupts.count > max(1, signals))


def _terms(wish: Wish, broker: dict[str, str]) -> Terms:
    address = parse_url(broker["url"])
    # a name nobody else uses: on a broker that others share, two demos must not teach each other
    site = f"demo-{secrets.token_hex(4)}"
    plain_text = not (address.tls or address.loopback)
    protocol = "3.1.1" if broker["kind"] == "amqtt" else "auto"
    return Terms(broker["url"], site, wish.length_s, wish.seed, plain_text, protocol)


def _view(wish: Wish, dealt: Deal, files: tuple[AgentFiles, ...], broker: dict[str, str]) -> View:
    data = dealt.data
    what = f"{len(data.classes)} classes" if wish.images else f"{data.x.shape[1]} features, {len(data.classes)} classes"
    title = f"{wish.agents} agents, {data.name} ({what}), seed {wish.seed}"
    if broker["kind"]:
        name = {"mosquitto": "Mosquitto", "amqtt": "amqtt (embedded)"}[broker["kind"]]
        words = f"{name} {broker['version']}, private, at {broker['url']}"
    else:
        words = f"yours, at {broker['url']}"
    history = History(AgentHistory(file.node, file.total, file.main) for file in files)
    return View(history, title, words, data.notes, "starting", 0.0, wish.length_s)


def _follow(
    view: View,
    watcher: Watcher,
    processes: list[AgentProcess],
    terms: Terms,
    screen: Screen,
    interrupts: Interrupts,
) -> None:
    """Watch until every living agent has learnt its share and been examined after it, or time is up."""
    history = view.history
    settle_s = terms.evaluate_every_s + 1.5 * terms.report_every_s
    began = time.monotonic()
    learning_since: float | None = None
    done_since: float | None = None
    next_draw = 0.0
    while True:
        interrupts.check()
        now = time.monotonic()
        view.elapsed_s = now - began
        for heard in watcher.reports():
            history.record(view.elapsed_s, heard.node, heard.notes, heard.links, heard.bytes)
        _notice_the_dead(view, processes)
        if all(agent.ended is not None for agent in history.agents.values()):
            last = next(iter(history.agents.values()))
            raise EdgeswarmError(f"every agent ended before its time; {last.node} said: {last.ended}")
        if learning_since is None and history.total("samples") > 0:
            learning_since = now
        if done_since is None and history.all_done():
            done_since = now
        view.phase = _phase(view, watcher, learning_since is not None, done_since is not None)
        if now >= next_draw:
            next_draw = now + DRAW_EVERY_S
            screen.draw(view)
        if done_since is not None and now - done_since >= settle_s:
            return
        if view.elapsed_s > terms.length_s + LATE_S:
            view.events.append("time is up: " + _unfinished(history))
            return
        time.sleep(_TICK_S)


def _notice_the_dead(view: View, processes: list[AgentProcess]) -> None:
    for process in processes:
        agent = view.history.agents[process.node]
        if agent.ended is None and process.process.poll() is not None:
            agent.ended = process.last_words()
            view.events.append(f"{process.node} ended before its time: {agent.ended}")


def _phase(view: View, watcher: Watcher, learning: bool, done: bool) -> str:
    if done:
        return "last exam"
    if learning:
        return "learning"
    connected = sum(watcher.states.get(node) in ("ready", "sleeping") for node in view.history.agents)
    return f"starting ({connected} of {len(view.history.agents)} connected)"


def _unfinished(history: History) -> str:
    late = [agent for agent in history.agents.values() if not agent.finished]
    return ", ".join(f"{a.node} learnt {a.latest('samples') or 0:.0f} of {a.total} samples" for a in late)
