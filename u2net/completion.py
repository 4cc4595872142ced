"""Shell completion of the whole program: the one place that loads every stage's commands at once."""

from __future__ import annotations

import typer

from .cli import STAGES, load
from .cutout import application as cutouts

__all__ = ["complete", "program"]


def program() -> typer.Typer:
    """Everything that `u2net` can do, as one typer application."""
    whole = typer.Typer(name="u2net", rich_markup_mode=None)
    whole.add_typer(cutouts.commands["cutout"])
    for name, stage in STAGES.items():
        application = load(name)
        if application is None:
            continue
        only = stage.command or application.default
        if only is not None and len(application.commands) == 1:
            whole.add_typer(application.commands[only], name=name if only == name else None)
            continue
        group = typer.Typer(rich_markup_mode=None)
        for command in [application.commands[only]] if stage.command and only else application.commands.values():
            group.add_typer(command)
        whole.add_typer(group, name=name)
    return whole


def complete() -> int:
    """Answer the shell, as typer does, and end."""
    program()(prog_name="u2net")
    return 0
