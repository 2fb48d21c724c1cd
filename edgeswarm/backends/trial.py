"""What `probe` runs in a process of its own: import a library, do one small calculation, say how it went.

A wheel built for newer processors dies with a signal that no `except` catches, and a CUDA library can be listed,
imported and initialised and still fail at its first kernel. So nothing counts but a right answer.
"""

from __future__ import annotations

import json
import platform
import sys
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
PROVIDERS: Mapping[str, str] = {"onnx": CPU, "onnx-cuda": CUDA, "onnx-tensorrt": TENSORRT}
DEVICES: Mapping[str, str] = {"torch": "cpu", "torch-cuda": "cuda"}

GRAPH = (
    "CAk6yAIKJAoBeAoBaxIBYyIEQ29udioRCgRwYWRzQAFAAUABQAGgAQc6AAoOCgFjEgFyIgRSZWx1OgAKGwoBchIBcCIRR2xvYmFsQXZlcmFnZVBv"
    "b2w6AAoRCgFwEgFmIgdGbGF0dGVuOgAKEwoBZgoBdxIBeSIGTWF0TXVsOgASBXRyaWFsKnsIAwgBCAMIAxABImwAAIA/AAAAAAAAAAAAAAAAAACA"
    "PwAAAAAAAAAAAAAAAAAAgD8AAAAAAAAAAAAAgD8AAAAAAACAPwAAAAAAAIA/AAAAAAAAAAAAAIA/AACAvwAAgD8AAIC/AACAPwAAgL8AAIA/AACA"
    "vwAAgD9CAWtaHAoBeBIXChUIARIRCgMSAW4KAggBCgIIBAoCCARaEwoBdxIOCgwIARIICgIIAwoCCAJiFAoBeRIPCg0IARIJCgMSAW4KAggCQgQK"
    "ABAS"
)
"""An ONNX file (opset 18): x (n, 1, 4, 4) -> Conv 3x3 with three constant kernels -> Relu -> GlobalAveragePool ->
Flatten -> MatMul with w (3, 2) -> y (n, 2)."""
KERNELS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    ((1, -1, 1), (-1, 1, -1), (1, -1, 1)),
)
EXPECTED = (41.875, 76.25)
"""y for x = 0, 1, ... 15 and w = 0, 1, ... 5; the numbers between are small enough to be exact."""


BOARD = platform.machine() in ("aarch64", "arm64")
GPU_WHEEL = (
    "install the onnxruntime-gpu wheel built for this board and its JetPack; the one on PyPI has no code for its GPU"
    if BOARD
    else "install onnxruntime-gpu for this machine's CUDA, in place of onnxruntime"
)
CUDA_WHEEL = (
    "install the torch wheel built for this board and its JetPack"
    if BOARD
    else "install the torch build for this machine's CUDA and GPU"
)


class Refused(Exception):
    """It does not work. args: what went wrong, what to do, the version found ("" when none)."""

    def __init__(self, detail: str, advice: str, version: str = "") -> None:
        super().__init__(detail)
        self.detail, self.advice, self.version = detail, advice, version


def main(name: str, write: Callable[[str], Any] | None = None) -> None:
    """Try the backend `name` and write one line of JSON: works, version, detail, advice."""
    version = ""
    try:
        version, detail = try_onnx(PROVIDERS[name]) if name in PROVIDERS else try_torch(DEVICES[name])
        answer: dict[str, Any] = {"works": True, "detail": detail, "advice": ""}
    except Refused as fault:
        version = fault.version
        answer = {"works": False, "detail": fault.detail, "advice": fault.advice}
    except Exception as fault:
        advice = "install it anew, or another version of it"
        answer = {"works": False, "detail": f"{type(fault).__name__}: {one_line(fault)}", "advice": advice}
    (write or sys.stdout.write)(json.dumps({"version": version, **answer}) + "\n")


def one_line(fault: object, longest: int = 160) -> str:
    """The first line of an error that says anything, cut to `longest` characters."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    text = lines[0] if lines else type(fault).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."


def try_onnx(provider: str) -> tuple[str, str]:
    """Version and what was found. Raises Refused: the provider is missing, or its kernels do not run."""
    import numpy as np
    import onnxruntime as ort  # type: ignore[import-not-found, unused-ignore]

    version = f"onnxruntime {ort.__version__}"
    if provider not in ort.get_available_providers():
        raise Refused(f"this onnxruntime was built without {provider}", GPU_WHEEL, version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if provider != CPU:
        # Without this a provider whose library or kernels are missing is passed over in silence.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    try:
        session = ort.InferenceSession(b64decode(GRAPH), options, providers=[provider])
        session.disable_fallback()
        if session.get_providers()[0] != provider:
            raise Refused(f"{provider} is listed but did not start: a library it needs is missing", GPU_WHEEL, version)
        y = session.run(None, {"x": x, "w": w})[0]
    except Refused:
        raise
    except Exception as fault:
        advice = GPU_WHEEL if provider != CPU else "install another version of onnxruntime, 1.20 or newer"
        raise Refused(f"its first kernel failed: {one_line(fault)}", advice, version) from fault
    _compare(y[0], "onnxruntime", version)
    return version, f"runs on {provider.removesuffix('ExecutionProvider')}"


def try_torch(device: str) -> tuple[str, str]:
    """Version and what was found. Raises Refused: no CUDA device, or its kernels do not run, forward or backward."""
    import torch

    version = f"torch {torch.__version__}"
    found = "CPU"
    if device == "cuda":
        if torch.version.cuda is None:
            raise Refused("this torch was built without CUDA", CUDA_WHEEL, version)
        if not torch.cuda.is_available():
            advice = f"check the driver; this torch is for CUDA {torch.version.cuda}"
            raise Refused("no CUDA device can be used", advice, version)
        major, minor = torch.cuda.get_device_capability(0)
        found = f"{torch.cuda.get_device_name(0)}, compute capability {major}.{minor}"
    torch.set_num_threads(1)
    try:
        x = torch.arange(16.0, device=device).reshape(1, 1, 4, 4)
        kernels = torch.tensor(KERNELS, dtype=torch.float32, device=device)[:, None].requires_grad_()
        hidden = torch.relu(torch.nn.functional.conv2d(x, kernels, padding=1)).mean((2, 3))
        y = hidden @ torch.arange(6.0, device=device).reshape(3, 2)
        (slope,) = torch.autograd.grad(y.sum(), kernels)
        answer, middle = y[0].tolist(), float(slope[0, 0, 1, 1])
    except Exception as fault:
        advice = CUDA_WHEEL if device == "cuda" else "install another version of torch, 2.6 or newer"
        raise Refused(f"its first kernel failed: {one_line(fault)}", advice, version) from fault
    _compare(answer, "torch", version)
    _compare((middle,), "torch", version, (7.5,))  # mean of x times 0 + 1, the weights of hidden unit 0
    return version, f"runs on {found}"


def _compare(got: Any, library: str, version: str, wanted: tuple[float, ...] = EXPECTED) -> None:
    if any(not abs(float(a) - b) <= 1e-3 * abs(b) for a, b in zip(got, wanted, strict=True)):
        numbers = ", ".join(f"{float(value):.6g}" for value in got)
        raise Refused(f"it computes wrong numbers ({numbers})", f"install another version of {library}", version)


if __name__ == "__main__":
    main(sys.argv[1])
