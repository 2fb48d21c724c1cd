"""`edgeswarm completion`: a script a shell reads once, with every verb and option written out.

Click can complete too (`_EDGESWARM_COMPLETE=bash_source edgeswarm`), but starts Python at every press of Tab, which
takes a second on a small board. Here nothing runs but the shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from edgeswarm.cli import options
from edgeswarm.cli.groups import Group

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Flag:
    """An option. value: "" (it takes none), "file", "folder", "words" (one of `choices`) or "value" (anything)."""

    names: tuple[str, ...]
    help: str
    value: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cursor can be: after these verbs. words: what may follow (verbs below, or an argument's choices)."""

    path: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    flags: tuple[Flag, ...]
    files: bool


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@options.common
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes edgeswarm's verbs and options in SHELL; pressing Tab then starts no Python.

    \b
    bash:  edgeswarm completion bash > ~/.local/share/bash-completion/completions/edgeswarm
    zsh:   edgeswarm completion zsh > a folder of your $fpath, as _edgeswarm
    fish:  edgeswarm completion fish > ~/.config/fish/completions/edgeswarm.fish
    """
    places = list(walk(ctx.find_root(), ()))
    writer = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell]
    click.echo(writer(places), nl=False)


def walk(ctx: click.Context, path: tuple[str, ...]) -> Iterator[Place]:
    """Every verb from that of `ctx` down, itself first."""
    command = ctx.command
    below = []
    words: list[tuple[str, str]] = []
    if isinstance(command, Group):
        words = list(command.summaries(ctx).items())
        below = [(name, inner) for name, _ in words if (inner := command.get_command(ctx, name)) is not None]
    files = False
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Argument):
            files = files or isinstance(parameter.type, click.Path)
            if isinstance(parameter.type, click.Choice):
                words += [(str(choice), "") for choice in parameter.type.choices]
    flags = tuple(_flag(p) for p in command.get_params(ctx) if isinstance(p, click.Option))
    yield Place(path, tuple(words), flags, files)
    for name, inner in below:
        yield from walk(click.Context(inner, parent=ctx, info_name=name), (*path, name))


def _flag(option: click.Option) -> Flag:
    value = "value"
    choices: tuple[str, ...] = ()
    if option.is_flag or option.count:
        value = ""
    elif isinstance(option.type, click.Path):
        value = "folder" if not option.type.file_okay else "file"
    elif isinstance(option.type, click.Choice):
        value, choices = "words", tuple(str(choice) for choice in option.type.choices)
    elif option.metavar == "FOLDER":
        value = "folder"
    return Flag(tuple(sorted(option.opts, key=len)), option.help or "", value, choices)


def bash_script(places: list[Place]) -> str:
    """For bash 4 or later: one function with a table of words by verb."""
    lines = ["# edgeswarm completion for bash; made by `edgeswarm completion bash`", "_edgeswarm() {"]
    lines += [
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" at= i',
        "  for ((i = 1; i < COMP_CWORD; i++)); do",
        '    case "$at ${COMP_WORDS[i]}" in',
    ]
    paths = [" ".join(place.path) for place in places if place.path]
    lines += [f"      {_quoted(' ' + path if ' ' not in path else path)}) at={_quoted(path)} ;;" for path in paths]
    lines += ["    esac", "  done", '  case "$at $before" in']
    for place in places:
        for flag in place.flags:
            if flag.value:
                patterns = "|".join(_quoted(f"{' '.join(place.path)} {name}") for name in flag.names)
                lines.append(f"      {patterns}) {_bash_value(flag)}; return ;;")
    lines += ["  esac", '  case "$at" in']
    for place in places:
        names = " ".join([*(word for word, _ in place.words), *(name for flag in place.flags for name in flag.names)])
        files = ' COMPREPLY+=($(compgen -f -- "$word"));' if place.files else ""
        lines.append(
            f'    {_quoted(" ".join(place.path))}) COMPREPLY=($(compgen -W {_quoted(names)} -- "$word"));{files} ;;'
        )
    lines += ["  esac", "}", "complete -o filenames -F _edgeswarm edgeswarm"]
    return "\n".join(lines) + "\n"


def _bash_value(flag: Flag) -> str:
    if flag.value == "words":
        return f'COMPREPLY=($(compgen -W {_quoted(" ".join(flag.choices))} -- "$word"))'
    action = {"file": "-f", "folder": "-d"}.get(flag.value)
    return f'COMPREPLY=($(compgen {action} -- "$word"))' if action else "COMPREPLY=()"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def zsh_script(places: list[Place]) -> str:
    """For zsh: one function per verb, with descriptions."""
    lines = ["#compdef edgeswarm", "# made by `edgeswarm completion zsh`"]
    for place in places:
        lines.append(f"{_function(place.path)}() {{")
        specs = [_zsh_flag(flag) for flag in place.flags]
        below = [other for other in places if other.path[:-1] == place.path and other.path]
        if below:
            # not `words`: that array is zsh's own, the line being completed
            lines += ["  local -a verbs", "  verbs=("]
            lines += [f"    {_quoted(f'{word}:{text}')}" for word, text in place.words]
            lines += ["  )", '  local curcontext="$curcontext" state line', "  _arguments -C \\"]
            lines += [f"    {spec} \\" for spec in specs]
            lines += ["    '1: :{_describe verb verbs}' '*::arg:->args'", '  case "$state:$line[1]" in']
            lines += [f"    args:{other.path[-1]}) {_function(other.path)} ;;" for other in below]
            lines.append("  esac")
        else:
            lines.append("  _arguments \\")
            lines += [f"    {spec} \\" for spec in specs]
            names = " ".join(word for word, _ in place.words)
            last = _quoted(f"1: :({names})") if names else _quoted("*:file:_files") if place.files else ""
            lines.append(f"    {last or '&& return'}")
        lines.append("}")
    lines.append(f'{_function(())} "$@"')
    return "\n".join(lines) + "\n"


def _function(path: tuple[str, ...]) -> str:
    return "_" + "_".join(["edgeswarm", *path])


def _zsh_flag(flag: Flag) -> str:
    text = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    action = {"": "", "file": ":file:_files", "folder": ":folder:_files -/", "value": ":value: "}.get(
        flag.value, f":value:({' '.join(flag.choices)})"
    )
    others = f"({' '.join(flag.names)})" if len(flag.names) > 1 else ""
    names = f"{{{','.join(flag.names)}}}" if len(flag.names) > 1 else flag.names[0]
    return f"{_quoted(others)}{names}{_quoted(f'[{text}]{action}')}" if others else _quoted(f"{names}[{text}]{action}")


def fish_script(places: list[Place]) -> str:
    """For fish: one `complete` line per word and option."""
    lines = ["# edgeswarm completion for fish; made by `edgeswarm completion fish`", "complete -c edgeswarm -f"]
    for place in places:
        when = _fish_condition(place, places)
        for word, text in place.words:
            lines.append(f"complete -c edgeswarm -n {_fish(when)} -a {_fish(word)} -d {_fish(text)}")
        for flag in place.flags:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
            value = {"": "", "file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'", "value": " -x"}.get(
                flag.value, f" -x -a {_fish(' '.join(flag.choices))}"
            )
            lines.append(f"complete -c edgeswarm -n {_fish(when)} {names}{value} -d {_fish(flag.help)}")
        if place.files:
            lines.append(f"complete -c edgeswarm -n {_fish(when)} -F")
    return "\n".join(lines) + "\n"


def _fish_condition(place: Place, places: list[Place]) -> str:
    if not place.path:
        return "__fish_use_subcommand"
    seen = "; and ".join(f"__fish_seen_subcommand_from {verb}" for verb in place.path)
    below = [other.path[-1] for other in places if other.path and other.path[:-1] == place.path]
    return f"{seen}; and not __fish_seen_subcommand_from {' '.join(below)}" if below else seen


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
