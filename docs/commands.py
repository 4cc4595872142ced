"""Write `commands.md` beside this file: every command of the program with its help, out of the program itself.

    python docs/commands.py            (make docs)

`tests/test_commands.py` holds the file against the program.
"""

from __future__ import annotations

from pathlib import Path

import typer

from u2net.cli import STAGES, load, overview
from u2net.commandline import Application
from u2net.cutout import application as cutouts
from u2net.files import write_bytes

PAGE = Path(__file__).with_name("commands.md")
WIDTH = 100  # columns, whatever the terminal has


def help_of(app: typer.Typer, called: str) -> str:
    """What `called --help` prints."""
    command = typer.main.get_command(app)
    context = command.make_context(called, [], resilient_parsing=True, terminal_width=WIDTH)
    return command.get_help(context).rstrip()


def section(application: Application, called: str, only: str | None = None) -> list[str]:
    """The commands of one stage; `only` that one."""
    lines = []
    for name, app in application.commands.items():
        if only in (None, name):
            plain = name == application.default or only is not None
            lines += [f"### `{called if plain else f'{called} {name}'}`", "", "```text"]
            lines += [help_of(app, called if plain else f"{called} {name}"), "```", ""]
    return lines


def page() -> str:
    """The whole document."""
    lines = [
        "# Commands",
        "",
        "Written by `make docs` out of the program. `python -m STAGE` is the same as `u2net STAGE`.",
    ]
    lines += ["", "```text", overview(), "```", "", "## Cut out pictures", "", *section(cutouts, "u2net")]
    for name, stage in STAGES.items():
        application = load(name)
        if application is not None:
            lines += [f"## {name}", "", f"{stage.summary[0].upper()}{stage.summary[1:]}.", ""]
            lines += section(application, f"u2net {name}", stage.command)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    write_bytes(PAGE, page().encode())
