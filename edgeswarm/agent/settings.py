"""What can be set on an agent: every section and key with its type, unit, range and default.

`config` fills these from files, the environment and the command line; docs/config.md explains them, and a test keeps
the two together. Frozen: a running agent's settings do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOLS = ("auto", "5", "3.1.1")
KINDS = ("csv", "npz", "images", "mqtt")
FORMATS = ("json", "msgpack")
IMAGE_MODES = ("grey", "rgb")
BACKENDS = ("auto", "reference", "onnx", "onnx-cuda", "onnx-tensorrt", "torch", "torch-cuda")
"""Names of `backends.choose`; they stand here again because that brings NumPy, and `--help` must stay cheap."""
GRAPHS = (
    "full", "ring", "directed-ring", "torus", "circulant", "exponential", "regular", "erdos-renyi", "dyck", "edges",
)  # fmt: skip
WEIGHTS = ("metropolis", "uniform", "lazy")
"""Kinds and weights of `maths.graphs`; here again for the same reason."""


def setting(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field with a default, a help text and checks.

    more: low, high, choices, unit as `fields` reads them; path=True: a relative value is meant from the folder of the
    file it stands in; credential=True: $CREDENTIALS_DIRECTORY is looked at first.
    """
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class BrokerConfig:
    """[broker]: how to reach the MQTT broker."""

    url: tuple[str, ...] = setting(
        (), "mqtts://host[:8883] or mqtt://host[:1883]; several are tried in turn when one does not answer"
    )
    ca: str = setting("", "PEM file of the authority that signed the broker's certificate", path=True, credential=True)
    cert: str = setting(
        "", "PEM file of this node's certificate; its common name is the node", path=True, credential=True
    )
    key: str = setting("", "PEM file of this node's private key", path=True, credential=True)
    username: str = setting("", "user name, at brokers that ask for one")
    password_file: str = setting("", "file whose first line is the password", path=True, credential=True)
    allow_plain_text: bool = setting(False, "allow mqtt:// to another machine: anyone on the way can read and forge")
    protocol: str = setting("auto", "auto: MQTT 5, and 3.1.1 where the broker knows no 5", choices=PROTOCOLS)
    keepalive_s: int = setting(30, "longest silence before the broker is asked for a sign", unit="s", low=5, high=3600)
    packet_limit_bytes: int = setting(
        120_000, "largest packet sent, below what brokers accept", unit="bytes", low=4_096, high=268_435_455
    )


@dataclass(frozen=True)
class SourceConfig:
    """[source]: where samples come from."""

    kind: str = setting("", "csv, npz, images (a folder of folders) or mqtt (a sensor topic)", choices=KINDS)
    path: str = setting("", "the file, or for images the folder", path=True)
    label: str = setting("", "csv: the label's column (empty: label); npz: the label's array (empty: y)")
    features: tuple[str, ...] = setting((), "names of the features in order; empty: taken from the data")
    classes: tuple[str, ...] = setting((), "labels that may occur; others are dropped; empty: any")
    rate_per_s: float = setting(0.0, "samples a second from a file; 0: as fast as they are learnt", unit="1/s", low=0.0)
    repeat: bool = setting(False, "begin again at the end of the file or folder")
    topic: str = setting("", "mqtt: topic of the samples; + and # are allowed")
    label_topic: str = setting("", "mqtt: topic of labels that come later; empty: the same as topic")
    predictions_topic: str = setting("", "mqtt: topic for predictions of unlabelled samples; empty: none are sent")
    format: str = setting("json", "mqtt: json or msgpack", choices=FORMATS)
    id_key: str = setting("id", "mqtt: key, csv: column, of a sample's id")
    label_key: str = setting("label", "mqtt: key of the label")
    pending_limit: int = setting(
        1_000, "mqtt: unlabelled samples kept for their label; the oldest go first", low=0, high=1_000_000
    )
    pending_s: float = setting(600.0, "mqtt: how long an unlabelled sample is kept for its label", unit="s", low=0.0)
    payload_limit_bytes: int = setting(
        65_536, "mqtt: larger payloads are dropped unread", unit="bytes", low=64, high=16_777_216
    )
    image_size: int = setting(28, "images: width and height they are brought to", unit="pixels", low=1, high=256)
    image_mode: str = setting("grey", "images: grey or rgb", choices=IMAGE_MODES)


@dataclass(frozen=True)
class StrategyConfig:
    """[strategy]: the learning method, and its own knobs under their own names."""

    name: str = setting("prototype_gossip", "the learning method")
    knobs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """[model]: the model that a method trains; nodes that share one have the same file."""

    path: str = setting("", "model file or folder (edgeswarm model build), for methods that train one", path=True)


@dataclass(frozen=True)
class GraphConfig:
    """[graph]: whom a node hears, for methods that have neighbours; it says the same at every node of the task."""

    kind: str = setting("full", "which graph; edges: the one in `file`", choices=GRAPHS)
    names: tuple[str, ...] = setting(
        (), "everybody who belongs to it, whether there or not; empty: those in the file, or whoever is present"
    )
    degree: int = setting(4, "regular: neighbours of each node", low=1, high=1000)
    probability: float = setting(0.3, "erdos-renyi: chance that two nodes are neighbours", low=0.0, high=1.0)
    seed: int = setting(0, "regular, erdos-renyi: of the draw", low=0, high=2**32 - 1)
    file: str = setting("", "edges: lines of two names, perhaps followed by the quality of their link", path=True)
    weights: str = setting("metropolis", "what a neighbour's model counts when models are averaged", choices=WEIGHTS)


@dataclass(frozen=True)
class PublicConfig:
    """[public]: unlabelled samples that every node has, for methods that exchange predictions."""

    path: str = setting("", "file of the public set, the same at every node", path=True)


@dataclass(frozen=True)
class EncoderConfig:
    """[encoder]: a model file that turns samples into embeddings, which are then learnt from in their place."""

    path: str = setting("", "model file or folder; without it the samples themselves are learnt from", path=True)
    normalise: bool = setting(True, "scale embeddings to length 1")


@dataclass(frozen=True)
class ComputeConfig:
    """[compute]: what this board may be asked for; read only where there is a model or an encoder."""

    profile: str = setting("auto", "firmware profile: auto, a name, or a file that ends in .toml")
    backend: str = setting("auto", "who does the arithmetic; auto: the best that works here", choices=BACKENDS)
    threads: int = setting(0, "threads of one calculation; 0: as the profile says", low=0, high=256)
    batch: int = setting(
        0, "rows of a training step, where the method sets none; 0: as the profile says", low=0, high=4096
    )
    pause_when_hot: bool = setting(True, "pause training near the temperature at which the board slows down")


@dataclass(frozen=True)
class StateConfig:
    """[state]: what survives a restart."""

    folder: str = setting(
        "", "folder of this agent alone; empty: $STATE_DIRECTORY, else <XDG state>/edgeswarm/<node>", path=True
    )
    every_s: float = setting(30.0, "time between two saves: the most that a power cut costs", unit="s", low=1.0)


@dataclass(frozen=True)
class ReportConfig:
    """[report]: how often the node says how it is."""

    every_s: float = setting(30.0, "time between two reports to the site", unit="s", low=0.1)


@dataclass(frozen=True)
class EvaluateConfig:
    """[evaluate]: a labelled file to score against; without `path` nothing is scored but the stream itself."""

    path: str = setting("", "labelled csv, npz or folder of images, never learnt from", path=True)
    label: str = setting("", "as in [source]")
    every_s: float = setting(60.0, "time between two scorings", unit="s", low=0.1)


@dataclass(frozen=True)
class Config:
    """Everything an agent is told. Made by `config.load`, or by hand in tests and simulations."""

    node: str = setting("", "this node's name, unique at the site: a-z, 0-9 and '-'")
    site: str = setting("home", "nodes of one site learn together")
    task: str = setting("default", "what is learnt; only nodes with the same task and features exchange anything")
    seed: int = setting(0, "of every random choice", low=0, high=2**32 - 1)
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    public: PublicConfig = field(default_factory=PublicConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    state: StateConfig = field(default_factory=StateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


SECTIONS: Mapping[str, type] = {
    "broker": BrokerConfig,
    "source": SourceConfig,
    "strategy": StrategyConfig,
    "model": ModelConfig,
    "graph": GraphConfig,
    "public": PublicConfig,
    "encoder": EncoderConfig,
    "compute": ComputeConfig,
    "state": StateConfig,
    "report": ReportConfig,
    "evaluate": EvaluateConfig,
}
