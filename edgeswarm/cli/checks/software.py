"""Python and what it can import. NumPy is tried in a process of its own: a wheel for a newer processor kills it."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding

if TYPE_CHECKING:
    from edgeswarm.agent.config import Config

PROBE = "import numpy; a = numpy.ones((8, 8), numpy.float32); a @ a; print(numpy.__version__)"
_PROBE_TIMEOUT_S = 60.0
_LEAST_FILES = 256

EXTRAS = {
    "onnx": ("models on a board: training and answers without torch", ("onnxruntime",)),
    "torch": ("building models, on a workstation", ("torch", "onnx", "onnxscript", "onnxruntime")),
    "demo": ("the live demo with its data and pictures", ("onnxruntime", "sklearn", "matplotlib", "rich", "PIL")),
    "images": ('[source] kind = "images"', ("PIL",)),
    "sim": ("simulations, sweeps and their pictures", ("onnxruntime", "joblib", "matplotlib", "sklearn", "rich")),
    "cluster": ("sweeps on a Dask or a Ray cluster", ("distributed", "ray", "grpc")),
}
"""Extra of the package: what it is for, and the modules it brings."""


def python() -> Finding:
    """The interpreter: version and width of its addresses."""
    bits = 64 if sys.maxsize > 2**32 else 32
    text = f"{platform.python_version()}, {bits}-bit, {platform.machine()}"
    facts = {
        "version": platform.python_version(),
        "bits": bits,
        "machine": platform.machine(),
        "executable": sys.executable,
    }
    if bits == 32:
        return Finding(
            "python", WARN, text, "few wheels exist for 32-bit systems; a 64-bit OS installs without compiling", facts
        )
    return Finding("python", OK, text, "", facts)


def numpy(executable: str = sys.executable, probe: str = PROBE) -> Finding:
    """Whether NumPy can be imported and multiply; in a subprocess: an illegal instruction cannot be caught."""
    try:
        done = subprocess.run(
            [executable, "-c", probe], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "numpy", FAIL, f"importing it takes over {_PROBE_TIMEOUT_S:.0f} s", "look at the storage: `dmesg`, `iostat`"
        )
    if done.returncode == 0:
        return Finding("numpy", OK, f"{done.stdout.strip()} works", "", {"version": done.stdout.strip()})
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        todo = (
            "install another version"
            if name != "SIGILL"
            else "this wheel is built for a newer processor: install an older version of numpy"
        )
        return Finding("numpy", FAIL, f"the import is killed by {name}", todo, {"signal": name})
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding(
        "numpy",
        FAIL,
        f"cannot be imported: {last}",
        "reinstall it: pip install --force-reinstall numpy",
        {"error": last},
    )


def extras(config: Config | None = None) -> list[Finding]:
    """Optional parts: installed or not, and what to type; missing is wrong only where the config needs one."""
    findings = []
    for extra, (purpose, modules) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        facts = {"missing": missing}
        name = f"extra-{extra}"
        install = f"pip install 'edgeswarm[{extra}]'"
        needed = extra == "images" and config is not None and config.source.kind == "images"
        if not missing:
            findings.append(Finding(name, OK, f"installed ({purpose})", "", facts))
        elif needed:
            findings.append(
                Finding(name, FAIL, f"missing {', '.join(missing)}, and {purpose} needs it", install, facts)
            )
        else:
            findings.append(Finding(name, SKIP, f"not installed; only for {purpose}: {install}", "", facts))
    return findings


def open_files() -> Finding:
    """How many files and connections this process may hold."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("open-files", OK, "unlimited")
    facts = {"limit": soft}
    if soft < _LEAST_FILES:
        return Finding(
            "open-files",
            WARN,
            f"only {soft:,} allowed",
            "raise it: ulimit -n 1024, or LimitNOFILE=1024 in the unit",
            facts,
        )
    return Finding("open-files", OK, f"{soft:,} allowed", "", facts)
