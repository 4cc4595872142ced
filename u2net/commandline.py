"""One construction for every command line of this project.

An `Application` is a set of commands; a command is a plain function whose parameters become arguments and options
(typer reads its annotations). Every command gets the same behaviour from here and writes none of it:

- `--json` prints the result, and nothing else, as JSON on standard output; `--quiet` leaves only errors; both are taken
  before or after a command's name. `--version` says the version;
- what is refused is one line, `error: …`, with control characters escaped so that a file's name cannot forge lines;
- the exit status is 0 where all went well, 1 where what was asked for failed or was refused, 2 where the command itself
  was wrong, 130 where it was interrupted (Ctrl-C or SIGTERM);
- a parameter whose type is a settings dataclass becomes one option for each documented field: its default and its help
  are the field's own, `Annotated[type, Doc("help")]`, and are written nowhere else; `Annotated[Settings, "Title"]`
  puts them under a title of their own in the help;
- figures on standard output, talk and progress bars on standard error, bars only on a terminal.

Help is grouped by `rich_help_panel` and printed without rich, which is imported only where a bar is drawn.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import typer
from annotated_doc import Doc
from typer.core import TyperCommand

from .errors import U2NetError

__all__ = [
    "Application",
    "Changes",
    "Doc",
    "Figures",
    "Progress",
    "deliver",
    "one_line",
    "print_version",
    "progress",
    "quiet",
    "refuse",
    "result",
    "say",
    "table_file",
    "wants_json",
]

DISTRIBUTION = "u2net-remover"
EVERYWHERE = {"--json": "json", "--quiet": "quiet", "-q": "quiet"}

Progress = Callable[[str, int, int], None]  # what is being done, how far it is, and how far it will go

Function = TypeVar("Function", bound=Callable[..., Any])

_spoken = {"json": False, "quiet": False}  # what the command line of this process asked for
_command: list[str] = []  # and its words


def wants_json() -> bool:
    """Whether the command line asked for `--json`."""
    return _spoken["json"]


def quiet() -> bool:
    """Whether the command line asked for `--quiet`."""
    return _spoken["quiet"]


def one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log or move the cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_version() -> int:
    """Print the name and version of what is installed; 0."""
    print(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
    return 0


def say(text: str) -> None:
    """Print a line for people on standard error, unless `--quiet`."""
    if not quiet():
        print(one_line(text), file=sys.stderr, flush=True)


def result(value: object, text: str = "") -> None:
    """Give the command's result: `value` as JSON where asked for, else `text`, which may have several lines."""
    if wants_json():
        print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    elif text and not quiet():
        print("\n".join(one_line(line) for line in text.split("\n")))


def table_file(table: str) -> bytes:
    """A Markdown file of `table`, which says in its first line which command line made it, but for where it went."""
    words = [word for word in _command if word not in EVERYWHERE]
    for place in [index for index, word in enumerate(words) if word == "--out"][::-1]:
        del words[place : place + 2]
    return f"<!-- {one_line(shlex.join(words))} -->\n{table}\n".encode()


def _figures(value: str) -> Path:
    """`value` where `deliver` can write to it: it is refused before the work and not after it."""
    path = Path(value)
    if path.suffix not in (".json", ".md"):
        raise typer.BadParameter(f"{path.name} ends in neither .json nor .md; say --out {path.stem}.md")
    return path


#: The option that `deliver` writes to.
Figures = Annotated[
    Path | None,
    typer.Option(metavar="FILE", parser=_figures, help="write the figures to FILE.json, or the table to FILE.md"),
]


def deliver(value: object, text: str, out: Path | None, table: str | None = None) -> None:
    """Give the command's result, and write it to `out` where that is given: FILE.json as JSON, FILE.md as `table`.

    Where `table` is left out the file shows the text as it is.
    """
    from .files import write_bytes, write_json

    if out is not None and out.suffix == ".json":
        write_json(out, value)
    elif out is not None:
        write_bytes(out, table_file(table if table is not None else f"```text\n{text}\n```"))
    result(value, text)


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on standard error, one for each kind of work, as `report(what, done, total)`; none where nobody looks."""
    if quiet() or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<32}", markup=False), BarColumn(24), MofNCompleteColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known or done < bars.tasks[known[what]].completed:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report


@dataclasses.dataclass(frozen=True)
class Changes:
    """Marks a parameter of type dict: it gets those options that were given, of one for each documented field."""

    settings: type
    panel: str | None = None  # the group of the options in the help


class _Command(TyperCommand):
    """Help in groups, with the examples as they were written, without rich."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        last = groups.pop("Everywhere", [])
        for name, records in [*groups.items(), ("Everywhere", last)]:
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            formatter.write("\n" + self.epilog.rstrip() + "\n")


class Application:
    """The commands of one stage. `run` is what `python -m STAGE` and `u2net STAGE` call.

    `default` is the command that runs where none is named. `summary` is its line in the program's list of stages.
    """

    def __init__(self, name: str, summary: str, default: str | None = None) -> None:
        self.name, self.summary, self.default = name, summary, default
        self.commands: dict[str, typer.Typer] = {}
        self.examples: dict[str, str] = {}

    def command(self, name: str | None = None, examples: str = "") -> Callable[[Function], Function]:
        """Make a function a command. `examples` end its help; its docstring is the help."""

        def add(function: Function) -> Function:
            called = name or function.__name__.strip("_").replace("_", "-")
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
            text = "Examples:\n" + "\n".join(f"  {line}" for line in examples.strip().split("\n")) if examples else ""
            register = app.command(called, cls=_Command, epilog=text or None, context_settings=settings)
            register(_with_everything(function))
            self.commands[called] = app
            self.examples[called] = examples
            return function

        return add

    def run(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Run the command that `argv` (by default the process's) names; the exit status."""
        words = list(sys.argv[1:] if argv is None else argv)
        prog = prog or f"python -m {self.name}"
        _spoken.update(json=False, quiet=False)
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        leading = list(_leading(words))
        rest = words[len(leading) :]
        if rest[:1] == ["--version"]:
            return print_version()
        if rest and rest[0] in self.commands and not (rest[0] == self.default and len(self.commands) == 1):
            called, rest = rest[0], rest[1:]
            prog = prog if called == self.default else f"{prog} {called}"
        elif self.default is not None:
            called = self.default
        elif rest and rest[0] not in ("-h", "--help"):
            names = ", ".join(self.commands)
            return refuse(f"there is no command {rest[0]!r}; there are {names} (see {prog} --help)", 2)
        else:
            print(self.overview(prog))
            return 0 if rest else 2
        _command[:] = [*prog.split(), *leading, *rest]
        return _guarded(lambda: self.commands[called](args=[*leading, *rest], prog_name=prog, standalone_mode=False))

    def overview(self, prog: str) -> str:
        """The list of commands, as `--help` prints it where there is no default command."""
        width = max(len(name) for name in self.commands)
        rows = [f"  {name:<{width}}  {summary_of(app)}" for name, app in self.commands.items()]
        return "\n".join([f"Usage: {prog} COMMAND …", "", f"  {self.summary}", "", "Commands:", *rows])


def summary_of(app: typer.Typer) -> str:
    """The first line of a command's help."""
    function = app.registered_commands[0].callback
    return (inspect.getdoc(function) or "").split("\n")[0]


def _leading(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word not in EVERYWHERE:
            return
        yield word


def refuse(text: str, status: int) -> int:
    """Print the one line that says why, on standard error; `status`, for the caller to return."""
    print(f"error: {one_line(text)}", file=sys.stderr, flush=True)
    return status


def _guarded(work: Callable[[], object]) -> int:
    """The exit status of `work`, whatever happens in it; nothing that a user can cause is a traceback."""
    try:
        with _termination_interrupts():
            status = work()
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
    except U2NetError as error:
        return refuse(str(error), 1)
    except typer.TyperException as error:
        return refuse(f"{error.format_message().rstrip('.')} (see --help)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return refuse("interrupted", 130)
    except OSError as error:
        # What is left in the buffer cannot be written either: keep the interpreter from trying when it ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1
        where = f"{error.filename}: " if error.filename else ""
        return refuse(f"{where}{error.strerror or error}", 1)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Within the block SIGTERM ends the work as Ctrl-C does, with nothing half-written."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where signals are the caller's affair
        yield
        return
    try:
        yield
    finally:
        if before is not None:  # None is a handler that is not of Python
            signal.signal(signal.SIGTERM, before)


def _with_everything(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with one option for each documented field of its settings, and with the options that all have."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    parameters: list[inspect.Parameter] = []
    built: dict[str, tuple[type, list[str]]] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        changes = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Changes)), None)
        if changes is not None:
            options = list(_options_of(changes.settings, changes.panel, given_only=True))
            built[parameter.name] = (dict, [option.name for option in options])
            parameters += options
        elif dataclasses.is_dataclass(settings := get_args(hint)[0] if get_origin(hint) is Annotated else hint):
            assert isinstance(settings, type)
            options = list(_options_of(settings, next((e for e in get_args(hint)[1:] if isinstance(e, str)), None)))
            built[parameter.name] = (settings, [option.name for option in options])
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    everywhere = {"json": (("--json",), "print the result as JSON"), "quiet": (("--quiet", "-q"), "only errors")}
    for name, (flags, text) in everywhere.items():
        option = typer.Option(*flags, help=text, rich_help_panel="Everywhere", show_default=False)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        )

    def run(**values: Any) -> Any:
        _spoken.update(json=values.pop("json"), quiet=values.pop("quiet"))
        for name, (settings, fields) in built.items():
            given = {field: values.pop(field) for field in fields}
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            if settings is dict:
                given = {k: v for k, v in given.items() if v is not None}
            values[name] = settings(**given)
        return function(**values)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options_of(settings: type, panel: str | None = None, given_only: bool = False) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        documents = [extra.documentation for extra in get_args(hint)[1:] if isinstance(extra, Doc)]
        if get_origin(hint) is not Annotated or not documents:
            continue
        others = [extra for extra in get_args(hint)[1:] if not isinstance(extra, Doc)]
        bare: Any = get_args(hint)[0]
        if any(getattr(extra, "parser", None) for extra in others):
            bare = str | None if type(None) in get_args(bare) else str  # what the parser makes of it is its own affair
        default: Any = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if get_origin(bare) is tuple:
            bare, default = list[get_args(bare)[0]], list(default)  # type: ignore[misc]
        option: Any = next(iter(others), None) or typer.Option()
        option.help = documents[0]
        option.rich_help_panel = option.rich_help_panel or panel
        # A switch that is off by default needs no --no-….
        if bare is bool and option.default is ... and not option.param_decls and default is False:
            option.param_decls = (f"--{field.name.replace('_', '-')}",)
        if bare is bool and default is False:
            option.show_default = False
        if given_only:
            if default and not isinstance(default, bool):
                option.help = f"{option.help}  [default: {default}]"
            bare, default = bare | None, None
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[bare, option]
        )
