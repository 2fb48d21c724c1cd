"""A group of verbs that says which one was meant when there is no such verb."""

from __future__ import annotations

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
