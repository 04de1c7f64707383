"""The command ``instdisc``: from a folder of images to similar ones, without writing Python."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; the process ends with its exit code.

    0 is success, 1 an error, which is one line on stderr, 2 wrong arguments, and 130 an
    interruption.
    """
    try:
        import click as click
    except ImportError:
        sys.exit("Error: the command line needs click: pip install 'instdisc-core[cli]'.")
    try:
        from instdisc_core.command_line.commands import instdisc

        instdisc(prog_name="instdisc")
    except KeyboardInterrupt:  # while a framework was imported
        sys.exit(130)
