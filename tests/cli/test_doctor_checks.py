"""The checks that look at one machine, on small copies of real boards' files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeswarm.agent.profile import load_profile
from edgeswarm.agent.profile_tables import BACKENDS
from edgeswarm.agent.store import Store
from edgeswarm.backends.choose import NAMES
from edgeswarm.backends.probe import Probe
from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding, compute, files, look, machine, software
from edgeswarm.cli.checks.certificate import from_der, from_pem
from edgeswarm.models.file import write
from tests.zoo import small

NOW_UNIX = 1_795_000_000.0
SENSORS = replace(load_profile("generic-aarch64").thermal, limit_c=120.0)

PEM = """\
-----BEGIN CERTIFICATE-----
MIIBnTCCAUOgAwIBAgIUYhQXT0a6qRqrqUnCGXcB8VnUXQYwCgYIKoZIzj0EAwIw
IzEQMA4GA1UECgwHRXhhbXBsZTEPMA0GA1UEAwwGbm9kZS0xMCAXDTI2MTEyMTEz
MjE1MFoYDzIwNTkwOTI5MTMyMTUwWjAjMRAwDgYDVQQKDAdFeGFtcGxlMQ8wDQYD
VQQDDAZub2RlLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARkV5t8mP9/zcVc
oaGmZ8t2mtqtYoIW0A1V99isxRBY9so+JIQ3XnBDLedV32MBtkJAdMGF+oI8YQKv
I9euIHYto1MwUTAdBgNVHQ4EFgQUrHs+DVlQarK7aBSl3SbMFotmMPkwHwYDVR0j
BBgwFoAUrHs+DVlQarK7aBSl3SbMFotmMPkwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiEAu1tzUIbS9geFmDcaY+n25kIDeoXwiKbKHmIKiK1GoWoC
ICkp6z+5qo7D8M5JEYp8TcIhrRIDnYwHtFX9qyAgAUNs
-----END CERTIFICATE-----
"""
"""Self-signed, made for this test; its first date has two digits of the year, its second four. The key is gone."""


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write files below a root folder, by path; returns the root."""

    def write(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def seen(finding: Finding) -> tuple[str, str]:
    return finding.status, finding.text


# ---- the board ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["proc/device-tree", "sys/firmware/devicetree/base"])
def test_board_from_the_device_tree_without_its_zeros(put: Callable[..., Path], folder: str) -> None:
    root = put({
        f"{folder}/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        f"{folder}/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    })  # fmt: skip
    found = machine.board(root)
    assert seen(found) == (OK, "Raspberry Pi 4 Model B Rev 1.4")
    assert found.facts["compatible"] == ["raspberrypi,4-model-b", "brcm,bcm2711"]


def test_board_jetson_with_its_release_and_an_old_one(put: Callable[..., Path]) -> None:
    tree = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\nmore",
    }
    found = machine.board(
        put(tree | {"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0003\0nvidia,tegra234\0"})
    )
    assert found.status == OK and found.facts["l4t"] == "# R36 (release), REVISION: 4.3"
    assert machine.board(put({"proc/device-tree/compatible": "nvidia,jetson-nano\0nvidia,tegra210\0"})).status == WARN


def test_board_of_a_pc(put: Callable[..., Path]) -> None:
    assert seen(machine.board(put({}))) == (OK, "not a known board (no device tree)")
    assert seen(machine.board(put({"sys/class/dmi/id/product_name": "NUC\n"}))) == (OK, "NUC")


@pytest.mark.parametrize(("available_mb", "status"), [(20, FAIL), (100, WARN), (300, OK)])
def test_memory(put: Callable[..., Path], available_mb: int, status: str) -> None:
    root = put(
        {"proc/meminfo": f"MemTotal:  {450 * 1024} kB\nMemFree: 1 kB\nMemAvailable:  {available_mb * 1024} kB\n"}
    )
    found = machine.memory(root)
    assert seen(found) == (status, f"{available_mb} MB available of 450 MB")


def test_memory_unknown(put: Callable[..., Path]) -> None:
    assert machine.memory(put({"proc/meminfo": "MemTotal: 1 kB\n"})).status == SKIP
    assert machine.memory(put({})).status == SKIP


@pytest.mark.parametrize(
    ("now_unix", "synchronised", "status"),
    [(NOW_UNIX, True, OK), (NOW_UNIX, False, WARN), (NOW_UNIX, None, OK), (3600.0, True, FAIL), (3600.0, False, FAIL)],
)
def test_clock(put: Callable[..., Path], now_unix: float, synchronised: bool | None, status: str) -> None:
    assert machine.clock(put({}), now_unix, lambda: synchronised).status == status


def test_clock_believes_timesyncd(put: Callable[..., Path]) -> None:
    root = put({"run/systemd/timesync/synchronized": ""})
    assert machine.clock(root, NOW_UNIX, lambda: False).status == OK


def test_the_kernel_can_be_asked() -> None:
    assert machine.kernel_says_synchronised() in (True, False, None)


@pytest.mark.parametrize(
    ("controllers", "status"), [("cpuset cpu io memory pids\n", OK), ("cpuset cpu io pids\n", WARN)]
)
def test_cgroup_memory(put: Callable[..., Path], controllers: str, status: str) -> None:
    found = machine.cgroup_memory(put({"sys/fs/cgroup/cgroup.controllers": controllers}))
    assert found.status == status
    assert status == OK or "cgroup_enable=memory" in found.todo


def test_cgroup_of_version_1_and_none(put: Callable[..., Path]) -> None:
    assert machine.cgroup_memory(put({})).status == SKIP
    assert machine.cgroup_memory(put({"sys/fs/cgroup/memory/tasks": ""})).status == OK


@pytest.mark.parametrize(
    ("word", "status", "text"),
    [
        ("0x0\n", OK, "never since boot"),
        ("0", OK, "never since boot"),
        ("0x50000", WARN, "since boot: under-voltage, throttled"),
        ("50005", WARN, "now: under-voltage, throttled"),
        ("0x80008", WARN, "now: at the soft temperature limit"),
        ("0x20004", WARN, "now: throttled; since boot: clock capped"),
        ("?", SKIP, "this board does not report it"),
    ],
)
def test_throttling(put: Callable[..., Path], word: str, status: str, text: str) -> None:
    found = machine.throttling(put({"sys/devices/platform/soc/soc:firmware/get_throttled": word}))
    assert seen(found) == (status, text)
    if status == WARN:
        assert ("power supply" in found.todo) == ("under-voltage" in text)


def test_temperature_takes_the_zone_nearest_its_own_limit(put: Callable[..., Path]) -> None:
    zone = "sys/class/thermal/thermal_zone"
    root = put({
        f"{zone}0/temp": "70000\n", f"{zone}0/type": "cpu\n", f"{zone}0/trip_point_0_temp": "99000\n",
        f"{zone}0/trip_point_0_type": "passive\n",
        f"{zone}1/temp": "66000\n", f"{zone}1/type": "gpu\n", f"{zone}1/trip_point_0_temp": "70000\n",
        f"{zone}1/trip_point_0_type": "hot\n", f"{zone}1/trip_point_1_temp": "20000\n",
        f"{zone}1/trip_point_1_type": "active\n",
        f"{zone}2/temp": "-256000\n", f"{zone}3/temp": "\n",
    })  # fmt: skip
    found = machine.temperature(root, SENSORS)
    assert seen(found) == (WARN, "66 °C (gpu); training pauses at 66 °C, the board slows down at 70 °C")
    (root / f"{zone}1/temp").write_text("30000")
    found = machine.temperature(root, SENSORS)
    assert seen(found) == (OK, "70 °C (cpu); training pauses at 95 °C, the board slows down at 99 °C")
    assert found.facts == {"hottest_c": 70.0, "limit_c": 99.0, "pause_c": 95.0, "zone": "cpu"}


def test_no_temperature(put: Callable[..., Path]) -> None:
    assert machine.temperature(put({}), SENSORS).status == SKIP


# ---- what learns here -----------------------------------------------------------------------------------------------


def configured(**compute: str) -> Any:
    """A configuration as far as these checks read it."""
    chosen = {"profile": "auto", "backend": "auto", "model": "", "encoder": ""} | compute
    return SimpleNamespace(
        compute=SimpleNamespace(profile=chosen["profile"], backend=chosen["backend"], batch=0),
        model=SimpleNamespace(path=chosen["model"]),
        encoder=SimpleNamespace(path=chosen["encoder"]),
    )


def test_profile_and_why(put: Callable[..., Path]) -> None:
    root = put({"proc/device-tree/compatible": "acme,none\0"})
    found = compute.profile(None, root)
    assert found.status == OK and found.text.startswith("generic-") and "no profile knows acme,none" in found.text
    found = compute.profile(configured(profile="pi-4"), root)
    assert seen(found) == (OK, "pi-4: asked for by name") and found.facts["tier"] == 1
    assert compute.profile(configured(profile="jetson-nano"), root).status == WARN
    found = compute.profile(configured(profile="pi4"), root)
    assert found.status == FAIL and "did you mean 'pi-4'" in found.text and "auto" in found.todo


def test_memory_budget(put: Callable[..., Path]) -> None:
    root = put({"proc/meminfo": "MemTotal: 440000 kB\n", "sys/fs/cgroup/cgroup.controllers": "cpu io\n"})
    found = compute.memory_budget(configured(profile="pi-zero-2w"), root)
    assert found.text == "200 MB for the agent (memory_max_mb of pi-zero-2w); a service that takes more is not stopped"
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("cpu io memory\n")
    assert compute.memory_budget(configured(profile="pi-4"), root).text == (
        "225 MB for the agent (50% of this board's memory)"
    )
    assert compute.memory_budget(configured(profile="pi-4"), put({"proc/meminfo": ""})).status == SKIP


ONNX = Probe("onnx", True, "onnxruntime 1.31.1", "runs on CPU", "")
REFERENCE = Probe("reference", True, "numpy 2.4.6", "always there", "")
NO_ONNX = Probe("onnx", False, "", "onnxruntime is not installed", 'pip install "edgeswarm[onnx]"')
OLD_WHEEL = Probe("onnx", False, "onnxruntime 1.21.0", "illegal instruction", "install onnxruntime 1.22 or newer")
NO_CUDA = Probe("torch-cuda", False, "torch 2.13.0", "no CUDA device can be used", "check the driver")


@pytest.mark.parametrize(
    ("looked", "wanted", "needed", "status", "text", "todo"),
    [
        ([ONNX], "auto", True, OK, "onnx (onnxruntime 1.31.1, runs on CPU)", ""),
        ([NO_CUDA, ONNX], "auto", True, OK, "not usable: torch-cuda (no CUDA device can be used)", ""),
        ([NO_ONNX, REFERENCE], "auto", False, OK, "reference (numpy 2.4.6, always there); preferred here",
         'for models: pip install "edgeswarm[onnx]"'),
        ([NO_ONNX, REFERENCE], "auto", True, WARN, "onnx (onnxruntime is not installed)", "edgeswarm[onnx]"),
        ([OLD_WHEEL, REFERENCE], "auto", False, WARN, "onnx (illegal instruction)", "1.22 or newer"),
        ([NO_CUDA], "torch-cuda", False, FAIL, "torch-cuda does not work: no CUDA device", "[compute] backend to auto"),
        ([REFERENCE], "reference", True, OK, "set in the configuration", ""),
    ],
)  # fmt: skip
def test_backend(looked: list[Probe], wanted: str, needed: bool, status: str, text: str, todo: str) -> None:
    found = compute.judged(looked, load_profile("pi-4"), wanted, needed)
    assert found.status == status and text in found.text and todo in found.todo and bool(found.todo) == bool(todo)
    assert found.facts["used"] == (looked[-1].name if looked[-1].works else None)


def test_a_real_backend_is_found_here() -> None:
    found = compute.backend(configured(profile="pi-zero-2w"))
    assert found.facts["used"] in ("onnx", "reference") and found.facts["looked_at"][-1]["works"]
    assert compute.backend(configured(backend="reference")).facts["used"] == "reference"


def test_the_profiles_use_the_names_of_the_backends() -> None:
    assert set(BACKENDS) == set(NAMES)


def test_model_files(tmp_path: Path) -> None:
    assert compute.model_file(configured(), "model").status == SKIP
    for which in ("model", "encoder"):
        path = tmp_path / f"{which}.esm"
        found = compute.model_file(configured(**{which: str(path)}), which)
        assert (found.name, found.status) == (f"{which}-file", FAIL) and found.todo and str(path) in found.text
        path.write_bytes(b"PK\x05\x06" + bytes(18))
        assert compute.model_file(configured(**{which: str(path)}), which).status == FAIL


def test_a_model_that_fits_and_one_that_does_not(tmp_path: Path, put: Callable[..., Path]) -> None:
    path = tmp_path / "small.esm"
    write(small("mlp"), path)
    root = put({"proc/meminfo": "MemTotal: 430000 kB\n"})
    settings = configured(model=str(path), encoder=str(path), profile="pi-zero-2w")
    found = compute.model_file(settings, "model", root)
    assert found.status == OK and "parameters, input 6" in found.text and "model check" in found.todo
    assert found.facts["losses"] == ["ce"] and compute.model_file(settings, "encoder", root).status == OK
    settings.compute.batch = 10_000_000
    found = compute.model_file(settings, "model", root)
    assert found.status == WARN and "MB where 200 MB are allowed (memory_max_mb of pi-zero-2w)" in found.text
    settings.compute.batch, settings.compute.profile = 10**9, "pi-4"
    found = compute.model_file(settings, "model", tmp_path / "nothing")
    assert found.status == WARN and "s on pi-4, where at most 10 s are meant" in found.text and "batch" in found.todo


# ---- software -------------------------------------------------------------------------------------------------------


def test_numpy_works_here() -> None:
    found = software.numpy()
    assert found.status == OK and found.facts["version"][0].isdigit()


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "killed by SIGBUS"),
        ("raise ImportError('libopenblas is missing')", "cannot be imported: ImportError: libopenblas is missing"),
        ("raise SystemExit(3)", "no reason given"),
    ],
)
def test_a_numpy_that_dies_takes_nobody_with_it(probe: str, said: str) -> None:
    found = software.numpy(probe=probe)
    assert found.status == FAIL and said in found.text and found.todo
    assert ("newer processor" in found.todo) == ("SIGILL" in said)


def test_nothing_of_numpy_is_needed_before_its_probe() -> None:
    program = (
        "import sys\nfrom edgeswarm.cli.doctor import examine\nfrom pathlib import Path\n"
        "checks = examine(None, Path('/'), 1.0)\n"
        "names = [next(checks).name for _ in range(9)]\n"
        "assert names[-1] == 'numpy', names\nassert 'numpy' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr


def test_extras_missing_are_no_failure_unless_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "find_spec", lambda name: None)
    assert {found.status for found in software.extras()} == {SKIP}
    needs: Any = SimpleNamespace(source=SimpleNamespace(kind="images"))
    found = {each.name: each for each in software.extras(needs)}
    assert found["extra-images"].status == FAIL and "edgeswarm[images]" in found["extra-images"].todo
    assert found["extra-demo"].status == SKIP and "edgeswarm[demo]" in found["extra-demo"].text


def test_extras_are_those_of_the_package() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    part = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    named = {line.split(" = ")[0] for line in part.splitlines() if " = [" in line}
    assert set(software.EXTRAS) == named


def test_open_files_and_python() -> None:
    assert software.open_files().status in (OK, WARN)
    assert software.python().facts["version"] == sys.version.split()[0]


# ---- files ----------------------------------------------------------------------------------------------------------


def state(folder: Path, root: Path = Path("/")) -> dict[str, Finding]:
    return {found.name: found for found in files.state_folder(folder, root)}


def test_a_state_folder_that_will_be_made(tmp_path: Path) -> None:
    found = state(tmp_path / "a" / "b")
    assert found["state-folder"].text == f"{tmp_path}/a/b will be made in {tmp_path}"
    assert not (tmp_path / "a").exists()
    assert found["state-lock"].facts["pid"] is None


def test_a_running_agent_is_seen_by_its_lock(tmp_path: Path) -> None:
    with Store(tmp_path):
        assert state(tmp_path)["state-lock"].text == f"an agent is running on it (process {os.getpid()})"
        assert files.lock_holder(tmp_path) == os.getpid()
    assert files.lock_holder(tmp_path) is None


def test_looking_at_a_lock_does_not_take_it(tmp_path: Path) -> None:
    with Store(tmp_path):
        pass
    assert files.lock_holder(tmp_path) is None
    with (tmp_path / "lock").open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_state_folder_in_memory_is_lost_at_reboot(tmp_path: Path, put: Callable[..., Path]) -> None:
    root = put({"proc/mounts": f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n"})
    found = state(tmp_path / "st", root)["state-space"]
    assert found.status == WARN and "gone after a reboot" in found.text


def test_the_deepest_mount_counts(put: Callable[..., Path]) -> None:
    root = put({"proc/mounts": "a / ext4 rw\nb /mnt f2fs rw\nc /mnt/data\\040card vfat rw\nbroken\n"})
    assert files.file_system(Path("/mnt/data card/x"), root) == "vfat"
    assert files.file_system(Path("/mnt/other"), root) == "f2fs"
    assert files.file_system(Path("/home"), root) == "ext4"


def test_damaged_state_files_are_mentioned(tmp_path: Path) -> None:
    (tmp_path / "state.msgpack.unusable-1").touch()
    assert "state.msgpack.unusable-1" in state(tmp_path)["state-files"].text


def test_a_state_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "st").touch()
    found = state(tmp_path / "st")
    assert list(found) == ["state-folder"] and found["state-folder"].status == FAIL and found["state-folder"].todo


@pytest.mark.parametrize("kind", ["csv", "npz", "images"])
def test_source(tmp_path: Path, kind: str) -> None:
    settings: Any = SimpleNamespace(source=SimpleNamespace(kind=kind, path=str(tmp_path / "s"), topic=""))
    assert files.source(settings).status == FAIL
    (tmp_path / "s").touch()
    assert files.source(settings).status == OK


# ---- certificates ---------------------------------------------------------------------------------------------------


def test_a_certificate_says_its_name_and_dates() -> None:
    found = from_pem("some words before\n" + PEM)
    assert found.common_name == "node-1"
    assert found.not_before == datetime(2026, 11, 21, 13, 21, 50, tzinfo=timezone.utc)
    assert found.not_after == datetime(2059, 9, 29, 13, 21, 50, tzinfo=timezone.utc)
    assert found.days_left(found.not_after - timedelta(days=2)) == 2.0


def test_any_damage_to_a_certificate_is_a_value_error() -> None:
    data = ssl.PEM_cert_to_DER_cert(PEM)
    for cut in range(len(data)):
        with pytest.raises(ValueError):
            from_der(data[:cut])
    for place in range(len(data)):
        changed = bytes([*data[:place], data[place] ^ 0x15, *data[place + 1 :]])
        with contextlib.suppress(ValueError):
            from_der(changed)


@pytest.mark.parametrize("text", ["", "no certificate", PEM.replace("BEGIN", "START")])
def test_a_file_without_a_certificate(text: str) -> None:
    with pytest.raises(ValueError, match="no certificate"):
        from_pem(text)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_dates_agree_with_openssl() -> None:
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate"], input=PEM, capture_output=True, text=True, check=True
    ).stdout.split("=")[1].strip()  # fmt: skip
    assert datetime.strptime(said, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc) == from_pem(PEM).not_after


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Finding:
        raise RuntimeError("oh")

    (found,) = look("memory", broken)
    assert (found.name, found.status) == ("memory", WARN) and "oh" in found.text
