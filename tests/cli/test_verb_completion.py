from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cli_world import Run

from edgeswarm.cli import VERBS


def bash_offers(script: str, typed: str, folder: Path) -> set[str]:
    """What bash would offer after `typed` and Tab."""
    words = typed.split(" ")
    program = (
        f"{script}\ncd {folder}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_edgeswarm\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("edgeswarm ", set(VERBS)),
        ("edgeswarm st", {"status"}),
        ("edgeswarm co", {"config", "compare", "completion"}),
        ("edgeswarm status --st", {"--state"}),
        ("edgeswarm -q status --wa", {"--watch"}),
        ("edgeswarm config ", {"show", "check", "init"}),
        ("edgeswarm config show --or", {"--origin"}),
        ("edgeswarm config show --config ag", {"agent.toml"}),
        ("edgeswarm run --log-format ", {"text", "json"}),
        ("edgeswarm why --outcome mu", {"muted"}),
        ("edgeswarm why --state st", {"state"}),
        ("edgeswarm why --peer ", set()),
        ("edgeswarm predict ag", {"agent.toml"}),
        ("edgeswarm completion z", {"zsh"}),
        ("edgeswarm why --peer status --la", {"--last"}),
    ],
)
def test_bash(run: Run, tmp_path: Path, typed: str, offered: set[str]) -> None:
    here = tmp_path / "here"
    (here / "state").mkdir(parents=True)
    (here / "agent.toml").touch()
    found = bash_offers(run("completion", "bash").stdout, typed, here)
    assert offered <= found if typed.endswith(" ") and offered else found == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_and_option_is_in_the_script(run: Run, shell: str) -> None:
    script = run("completion", shell).stdout
    for word in [*VERBS, "origin", "log-format", "watch", "outcome", "show"]:
        assert word in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_read_its_script(run: Run, shell: str) -> None:
    binary = shutil.which(shell)
    if binary is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run(
        [binary, "-n"], input=run("completion", shell).stdout, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_named_with_the_known_ones(run: Run) -> None:
    stderr = run("completion", "tcsh", code=2).stderr
    assert all(shell in stderr for shell in ("bash", "zsh", "fish"))
