"""Where samples come from: a CSV or npz file, a folder of labelled images, an MQTT sensor topic."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources.base import MOST_FEATURES, FileSource, Pace, Sample, Schema, Source, fingerprint
from edgeswarm.agent.sources.csv_file import CsvSource
from edgeswarm.agent.sources.images import ImagesSource
from edgeswarm.agent.sources.mqtt import MqttSource
from edgeswarm.agent.sources.npz_file import NpzSource
from edgeswarm.errors import DataError
from edgeswarm.messages import Array

__all__ = [
    "CsvSource",
    "FileSource",
    "ImagesSource",
    "Labelled",
    "MqttSource",
    "NpzSource",
    "Pace",
    "Sample",
    "Schema",
    "Source",
    "fingerprint",
    "labelled",
    "labelled_file",
    "open_source",
]


def open_source(
    settings: SourceConfig,
    task: str,
    *,
    seed: int = 0,
    features: tuple[str, ...] = (),
    now: Callable[[], float] = time.monotonic,
    pace: Pace | None = None,
    most: int = MOST_FEATURES,
) -> FileSource | MqttSource:
    """The source that `settings` describe, looked at far enough to know that it can be used.

    seed: of the order of images.  features: for mqtt, the names this node has learnt with so far, from its saved
    state.  now: seconds that only grow.  most: features that a model in front takes, if more than nodes can exchange.
    Raises DataError.
    """
    if settings.kind == "mqtt":
        return MqttSource(settings, task, features, now)
    return _open_file(settings, task, seed, pace or Pace(settings.rate_per_s, now), most)


def _open_file(settings: SourceConfig, task: str, seed: int, pace: Pace, most: int) -> FileSource:
    path = Path(settings.path)
    classes, repeat = settings.classes, settings.repeat
    match settings.kind:
        case "csv":
            label = settings.label or "label"
            return CsvSource(path, task, label, settings.features, settings.id_key, classes, repeat, pace, most)
        case "npz":
            return NpzSource(path, task, settings.label or "y", settings.features, classes, repeat, pace, most)
        case "images":
            return ImagesSource(path, task, settings.image_size, settings.image_mode, classes, repeat, pace, seed, most)
    raise DataError(f"[source] kind {settings.kind!r} is not a file, a folder or a topic")


def labelled_file(
    settings: SourceConfig,
    path: Path | str,
    label: str,
    schema: Schema,
    *,
    limit_rows: int = 5_000,
    seed: int = 0,
    same_form: bool = False,
) -> Labelled:
    """Labelled samples to score against, at most `limit_rows`, drawn as by `labelled`.

    settings: the node's [source], for how its images are scaled. same_form: whether `schema.form` matters. Reads the
    whole file: call it in a worker thread.

    Raises DataError when the file cannot be read, does not fit `schema`, or holds no labelled sample.
    """
    path = Path(path)
    kind = "images" if path.is_dir() else path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "npz", "images"):
        raise DataError(f"{path}: a labelled file is .csv, .npz, or a folder of images")
    named = () if kind == "images" else schema.features
    chosen = dataclasses.replace(settings, kind=kind, path=str(path), label=label, features=named, repeat=False)
    source = _open_file(chosen, schema.task, seed, Pace(0.0), len(schema.features))
    if source.schema() != schema:
        raise DataError(f"{path}: {_in_words(source.schema())}, but this node learns from {_in_words(schema)}")
    if same_form and source.schema().form != schema.form:
        found, wanted = (form or "plain rows" for form in (source.schema().form, schema.form))
        raise DataError(f"{path}: samples are stored as {found}, but this node's source stores them as {wanted}")
    return labelled(source, limit_rows, seed)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """x: (n, d) float32.  y: n labels.  of: how many labelled samples there were.  dropped: samples that were not used,
    by reason; a file's own, and `no_label`."""

    x: Array
    y: tuple[str, ...]
    of: int
    dropped: Counter[str]


def labelled(source: FileSource, limit_rows: int, seed: int) -> Labelled:
    """The labelled samples of a file, at most `limit_rows`.

    A larger file is sampled evenly (reservoir sampling: A. G. Waterman's algorithm R), so files sorted by class are
    fine; the same seed takes the same rows. Raises DataError: there is none.
    """
    rng = np.random.default_rng(seed)
    kept: list[tuple[int, Sample]] = []
    seen = 0
    for row in source.rows():
        if row is None:
            continue
        if row.label is None:
            source.dropped["no_label"] += 1
            continue
        if len(kept) < limit_rows:
            kept.append((seen, row))
        elif (place := int(rng.integers(seen + 1))) < limit_rows:
            kept[place] = (seen, row)
        seen += 1
    if not kept:
        raise DataError(f"{source.path}: holds no labelled sample")
    kept.sort(key=lambda pair: pair[0])
    labels = tuple(str(row.label) for _, row in kept)
    return Labelled(np.stack([row.x for _, row in kept]), labels, seen, Counter(source.dropped))


def _in_words(schema: Schema) -> str:
    return f"{len(schema.features)} features ({schema.encoder or 'plain numbers'})"
