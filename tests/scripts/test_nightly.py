"""The nightly script for ARM as far as it can be tried in a second: what it says where it cannot run."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "nightly" / "aarch64"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its name has no ending, so it is loaded by hand."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("nightly_aarch64", str(SCRIPT))
    spec = importlib.util.spec_from_loader("nightly_aarch64", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_without_an_emulator_it_says_so_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--quick", "--folder", str(tmp_path / "work")]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "aarch64: qemu-aarch64 is not here: install qemu-user, or name the emulator with --qemu\n"
    done = subprocess.run([*words, "--qemu", "/no/such"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and done.stderr.startswith("aarch64: /no/such is not here")
    assert not (tmp_path / "work").exists()


def test_what_it_runs_is_there(script: ModuleType) -> None:
    root = SCRIPT.parents[2]
    for path in {*script.QUICK, *script.FULL}:
        assert (root / path).exists(), path


def test_reports_are_counted(script: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert script.counts(report) == ("no report: the tests did not come to an end", True)
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="1" skipped="3"/></testsuites>')
    assert script.counts(report) == ("4 passed, 2 failed, 3 skipped", True)
    report.write_text('<testsuites><testsuite tests="9" failures="0" errors="0" skipped="9"/></testsuites>')
    assert script.counts(report) == ("0 passed, 0 failed, 9 skipped", True), "nothing ran: nothing is known"
    report.write_text('<testsuites><testsuite tests="9" failures="0" errors="0" skipped="3"/></testsuites>')
    assert script.counts(report) == ("6 passed, 0 failed, 3 skipped", False)
    report.write_text("<testsuites><tests")
    assert script.counts(report)[1]


def test_it_ends_by_itself_with_all_it_started(script: ModuleType, tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = (
        f"import os, time\nif not os.fork():\n    open({str(child)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    assert script.limited([sys.executable, "-c", program], dict(os.environ), 1.0) == -9
    number = int(child.read_text())
    for _ in range(200):  # an orphan is collected by init, or stays as a zombie where there is none
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"{number} is still running")
