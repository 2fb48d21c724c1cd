"""A group of verbs that says which one was meant when there is no such verb."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click


class Group(click.Group):
    """Verbs in the order they were added, the nearest one named when a wrong one is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        """Verb to its one line of help, without loading more than that needs."""
        return {name: command.get_short_help_str(100) for name, command in self.commands.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(self.summaries(ctx).items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(names)}"
            ctx.fail(f"there is no verb {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


class Lazy(Group):
    """Lists its verbs explicitly and loads one only when it is asked for: `<package>.<verb>` holds it as `command`."""

    package: str
    verbs: Mapping[str, str]
    """Verb to its one line of help, in the order in which they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        command: click.Command = import_module(f"{self.package}.{cmd_name}").command
        return command

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        return dict(self.verbs)
