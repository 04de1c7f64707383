"""What all commands share: errors on one line, results on stdout, the rest on stderr."""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from instdisc_core.data.names import printable
from instdisc_core.evaluation import text_table

INTERRUPTED = 130
TRACEBACK = "INSTDISC_TRACEBACK"
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "cykooz": "cykooz-resizer"}  # of modules


class Commands(click.Group):
    """Commands whose errors are one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that a user can make ends the process with the status 1."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except ModuleNotFoundError as error:
                name = str(error.name).partition(".")[0]
                raise click.ClickException(
                    f"{name} is not installed: pip install 'instdisc-core[cli]' "
                    f"{PACKAGES.get(name, name)}."
                ) from error
            except (BrokenPipeError, click.exceptions.Exit, click.Abort, click.ClickException):
                raise  # click's own, and "| head": click ends quietly
            except (ValueError, ImportError, OSError, RuntimeError, MemoryError) as error:
                raise click.ClickException(one_line(error)) from error
            except KeyboardInterrupt:
                continues = ctx.invoked_subcommand == "train"
                more = " The same command continues." if continues else ""
                click.echo(f"Interrupted.{more}", err=True)
                ctx.exit(INTERRUPTED)
            except Exception as error:  # a framework's own, out of memory say, or a mistake of ours
                if os.environ.get(TRACEBACK):
                    raise
                raise click.ClickException(
                    f"{type(error).__name__}: {one_line(error)} With {TRACEBACK}=1 in the "
                    "environment, the same command shows where."
                ) from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = printable(" ".join(filter(None, lines))) or type(error).__name__
    if text.startswith("Received: "):
        text = text.removeprefix("Received: ").replace(". Expected ", "; expected ", 1)
    return text.rstrip(".") + "."


def shown(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print a table on stdout; names become printable."""
    click.echo(text_table(header, [[printable(str(cell)) for cell in row] for row in rows]))


def answer(as_json: bool, found: Any, show: Callable[[], None]) -> None:
    """Print a result: as one JSON document, or by ``show`` for people."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        show()


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Within this block, what libraries print goes to stderr: progress is no result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def shows_bars(quiet: bool) -> bool:
    """Whether to draw progress bars: on a terminal, and if nobody asked for quiet."""
    return not quiet and sys.stderr.isatty()


def json_option(command: Callable) -> Callable:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def found_argument(command: Callable) -> Callable:
    """The folder that ``train`` or ``index`` wrote."""
    return click.argument("found", default="found", type=click.Path())(command)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        click.echo(f"Warning: {one_line(Warning(str(message)))}", err=True)
