"""What all commands share: errors in one sentence, results on stdout, the rest on stderr."""

import contextlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from instdisc_core.data.names import printable
from instdisc_core.evaluation import text_table

INTERRUPTED = 130
PARTS = re.compile(r"Received: (.*?)\. Expected (.*?)\.(?: (.*))?", re.DOTALL)


class Commands(click.Group):
    """Commands whose errors are one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that a user can make ends the process with the status 1."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except ModuleNotFoundError as error:
                name = str(error.name).partition(".")[0]
                raise click.ClickException(
                    f"{name} is not installed: pip install 'instdisc-core[cli]' {name}."
                ) from error
            except BrokenPipeError:  # such as "| head": click ends quietly
                raise
            except (ValueError, ImportError, OSError) as error:
                raise click.ClickException(sentence(error)) from error
            except KeyboardInterrupt:
                click.echo("Interrupted. The same command continues.", err=True)
                ctx.exit(INTERRUPTED)


def sentence(error: BaseException) -> str:
    """What an exception says, as one sentence on one line."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    parts = PARTS.fullmatch(text)
    if parts:
        received, expected, remedy = parts.groups()
        text = f"{received}; expected {expected}"
        text += f"; {remedy[0].lower()}{remedy[1:]}" if remedy else ""
    return text.rstrip(".").replace(". ", "; ") + "."


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
        click.echo(f"Warning: {sentence(Warning(str(message)))}", err=True)
