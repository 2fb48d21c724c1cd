"""Which backends work here, found out in a child process with a time limit.

What was found is kept in a file, so that an agent's later starts spawn no child: a success until the package, the
Python, the processor, the kernel or the GPU driver is another one, and so is a crash, which nothing else cures. Other
failures (no CUDA device, too slow, out of memory) are looked at anew each time: a driver mends without any of these
changing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgeswarm import __version__
from edgeswarm.backends.trial import DEVICES, PROVIDERS, one_line
from edgeswarm.whole_file import whole

LIMIT_S = 120.0
"""Importing torch from a slow SD card takes half a minute on the smallest boards."""
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",)}
CRASHES: Mapping[str, str] = {
    "onnxruntime": "install onnxruntime 1.22 or newer (1.21.0 does not run on ARMv8.0)",
    "torch": "install torch 2.11 or newer (2.4.0 and 2.10.0 do not run on ARMv8.0), or use onnxruntime",
}
PLACES = (
    "/proc/driver/nvidia/version",
    "/sys/module/nvidia/version",
    "/etc/nv_tegra_release",
    "/sys/firmware/devicetree/base/model",
)
"""Files whose content changes with the GPU driver or the board."""
PROCESSOR = ("model name", "CPU implementer", "CPU part", "CPU variant", "Features", "flags")


@dataclass(frozen=True, slots=True)
class Probe:
    """What is known of one backend. version: of its library, "" when not installed.  detail: what was found, or what
    went wrong, one line.  advice: what to do about it, "" when it works."""

    name: str
    works: bool
    version: str
    detail: str
    advice: str


def probe(name: str, cache: Path | None = None, limit_s: float = LIMIT_S) -> Probe:
    """Whether the backend `name` works here. Blocks for as long as its library takes to load, at most `limit_s`.

    cache: a file for what was found (see the module); a file that cannot be read or written costs time alone.
    Raises KeyError: there is no such backend. A broken library never raises.
    """
    if name == "reference":
        return Probe(name, True, f"numpy {importlib.metadata.version('numpy')}", "always there", "")
    if name not in PROVIDERS and name not in DEVICES:
        raise KeyError(name)
    package = "onnxruntime" if name in PROVIDERS else "torch"
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin:
        return Probe(name, False, "", f"{package} is not installed", missing_advice(package, platform.machine()))
    key = fingerprint(name, found.origin)
    if cache is not None and (kept := _recall(cache, name, key)):
        return kept
    answer, lasting = _try(name, package, limit_s)
    if cache is not None and lasting:
        _keep(cache, key, answer)
    return answer


def missing_advice(package: str, machine: str) -> str:
    """What to install for a package that is not there, on a machine of this architecture."""
    if machine.startswith("armv"):
        return f"there is no {package} for 32-bit ARM: install a 64-bit system, or use the backend reference"
    if package == "onnxruntime":
        return 'pip install "edgeswarm[onnx]"'
    if machine in ("aarch64", "arm64"):
        return "install the torch wheel of the board's maker, or PyTorch's CPU wheel; plain PyPI adds 3 GB of CUDA"
    return "install torch, the build for this machine's CUDA or PyTorch's CPU wheel"


def fingerprint(name: str, origin: str) -> str:
    """A hash of all that a lasting answer depends on. origin: the package's `__init__.py`."""
    facts = [__version__, name, origin, sys.version, sys.executable, platform.machine(), platform.release()]
    with contextlib.suppress(OSError):
        status = Path(origin).stat()
        facts += [str(status.st_mtime_ns), str(status.st_size)]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        facts += sorted({line for line in lines if line.startswith(PROCESSOR)})
    for place in PLACES:
        with contextlib.suppress(OSError):
            facts.append(Path(place).read_text(encoding="utf-8", errors="replace"))
    return sha256("\n".join(facts).encode()).hexdigest()


def _try(name: str, package: str, limit_s: float) -> tuple[Probe, bool]:
    """What the child found, and whether that lasts."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part or "." for part in sys.path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "edgeswarm.backends.trial", name]
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        detail = f"{package} gave no answer within {limit_s:.0f} s"
        return _no(name, package, detail, "try again when the board is idle, or use another backend"), False
    except OSError as fault:
        return _no(name, package, f"no child process could be started: {one_line(fault)}", "free some memory"), False
    if child.returncode < 0:
        detail, advice = died(-child.returncode, package)
        return _no(name, package, detail, advice), -child.returncode != signal.SIGKILL
    answer = _parsed(child.stdout)
    if answer is None:
        text = one_line((child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1])
        return _no(name, package, f"{package} cannot be tried: {text}", f"install {package} anew"), False
    return Probe(name, **answer), bool(answer["works"])


def died(number: int, package: str) -> tuple[str, str]:
    """What it means that a process which loads `package` was ended by signal `number`, and what to do."""
    if number == signal.SIGILL:
        detail = "illegal instruction: this wheel needs newer CPU instructions than this board has"
        return detail, CRASHES[package]
    if number == signal.SIGKILL:
        return f"killed while {package} was loading, most likely for lack of memory", "free memory, or use reference"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{package} crashed with {name}", f"install another version of {package}"


def _no(name: str, package: str, detail: str, advice: str) -> Probe:
    """A failure; the version is read from the package's metadata, since the child could not say."""
    for distribution in DISTRIBUTIONS[package]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return Probe(name, False, f"{package} {importlib.metadata.version(distribution)}", detail, advice)
    return Probe(name, False, package, detail, advice)


def _parsed(text: str) -> dict[str, Any] | None:
    """The child's last line, checked. None: it wrote none."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            answer = json.loads(line)
            return {
                "works": answer["works"] is True,
                **{part: str(answer[part]) for part in ("version", "detail", "advice")},
            }
    return None


def _recall(cache: Path, name: str, key: str) -> Probe | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        entry = json.loads(cache.read_text(encoding="utf-8"))[name]
        if entry["key"] == key:
            answer = entry["answer"]
            texts = {part: str(answer[part]) for part in ("version", "detail", "advice")}
            return Probe(name, answer["works"] is True, **texts)
    return None


def _keep(cache: Path, key: str, answer: Probe) -> None:
    """Write the answer beside the others, whole or not at all."""
    try:
        entries = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = {}
    if not isinstance(entries, dict):
        entries = {}
    entries[answer.name] = {"key": key, "answer": asdict(answer)}
    with contextlib.suppress(OSError), whole(cache) as fresh:
        fresh.write_text(json.dumps(entries, indent=1, sort_keys=True), encoding="utf-8")
