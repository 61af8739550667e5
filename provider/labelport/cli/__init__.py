"""``labelport``: the catalog and its syncs from a command line.

Tables are for people. ``--json`` is for programs: its shapes (`labelport.cli.shapes`) keep their
fields, times are ISO 8601 in UTC, and nothing but the answer is on standard output.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich_argparse import RawDescriptionRichHelpFormatter

from labelport import __version__
from labelport.cli import (
    annotating,
    database,
    ledger,
    problems,
    projects,
    storages,
    syncing,
    tasks,
    tokens,
    users,
)
from labelport.cli.output import complain
from labelport.errors import ConfigurationError, LabelportError

#: In the order that ``--help`` lists them.
_COMMANDS = (
    *(database, projects, users, tokens, storages, tasks, annotating, syncing, ledger, problems),
)

_FAILED = 1
_MISUSED = 2
_INTERRUPTED = 130  # as the shell says of SIGINT
_PIPE_CLOSED = 141  # and of SIGPIPE

_EPILOG = """\
exit status:
  0    done, and nothing failed
  1    something failed: a sync ended failed or completed_with_errors, rows of a file were
       left out, a check did not pass, a store refused, another sync is running
  2    the command, a setting or the catalog is not as it must be; the message says what
       to do
  130  interrupted (a sync that was running is marked failed, and resumes next time)
  141  whoever read the output stopped reading

environment:
  LABELPORT_CATALOG_URL   the catalog, if --catalog does not say
                          (default: sqlite:///labelport.db)
  LABELPORT_LOCAL_ROOT    the folder that holds the buckets of file:// storages
  LABELPORT_PROXY_SECRET  signs the links of tasks show --links-for; the proxy's own
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `labelport --help` says what each means."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        complain(str(error))
        return _MISUSED
    except LabelportError as error:
        complain(str(error))
        return _FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would break the pipe once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelport",
        description="Move labeling data between object stores and labeling projects.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionRichHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"labelport {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_commands(commands)
    return parser
