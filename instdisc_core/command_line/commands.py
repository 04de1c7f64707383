"""The group of all commands."""

import click

from instdisc_core.command_line.exporting import export_found
from instdisc_core.command_line.group import Commands
from instdisc_core.command_line.indexing import embed, index
from instdisc_core.command_line.questions import clusters, duplicates, outliers, search
from instdisc_core.command_line.results import report
from instdisc_core.command_line.serving import serve
from instdisc_core.command_line.training import recipe_list, train


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(package_name="instdisc-core")
def instdisc() -> None:
    """Find similar images, near-duplicates and odd ones in a folder, without labels.

    \b
    Examples:
      instdisc train photos/ --output found      learn an embedding of your photos
      instdisc search new.jpg --index found      the photos most like this one
      instdisc duplicates found                  which are nearly the same
      instdisc outliers found                    which are like no other
      instdisc serve found                       look at all of it in a browser
      instdisc report found                      the same as files, and lists

    Results go to stdout, progress and warnings to stderr. Exit codes: 0 success, 1 an error,
    2 wrong arguments, 130 interrupted.
    """


QUESTIONS = (search, duplicates, outliers, clusters)
for command in (train, index, embed, *QUESTIONS, serve, report, export_found):
    instdisc.add_command(command)
instdisc.add_command(recipe_list)
