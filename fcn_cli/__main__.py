"""The entry point, and the only place where errors become exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from .cli.app import app
from .cli.command_line import UsageError, usage_message
from .cli.console import close_log, print_message
from .common import signals, swept_directory
from .common.errors import ExitCode, FcnError, NameCollision
from .common.redaction import redacted


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        The arguments after the command's name; None takes them from `sys.argv`.
    """
    signals.raise_on_signals()
    try:
        code = app(args=arguments, prog_name="fcn", standalone_mode=False)
    except UsageError as error:
        print_message(usage_message(error))
        return ExitCode.BAD_REQUEST
    except FcnError as error:
        for line in error.each if isinstance(error, NameCollision) else ():
            print_message(line)
        print_message(str(error))
        return error.exit_code
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Exception as error:  # noqa: BLE001 - whatever is not handled above is a bug
        if {"-v", "--verbose"} & set(arguments or sys.argv):
            with contextlib.suppress(OSError):
                sys.stderr.write(redacted(traceback.format_exc()))
        kind = type(error).__name__
        print_message(f"this is a bug in fcn ({kind}: {error}); please report it with the output of -v")
        return ExitCode.BUG
    finally:
        close_log()
    # Without standalone mode, Typer returns the code of a typer.Exit.
    return code if isinstance(code, int) else ExitCode.OK


def main() -> NoReturn:
    """Run the command line and end the process."""
    for name in ("stdin", "stdout", "stderr"):
        # Under cron any of them can be closed. A file opened later must not get its file descriptor.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    if sys.__stderr__ is not None:
        # The original stream stays referenced there: collected, it would close the file.
        sys.stderr = _unbuffered(sys.__stderr__)
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if "torch" in sys.modules:
        # The regular shutdown of torch takes more than a second, and all results are on disk.
        swept_directory.remove_all()
        os._exit(code)
    sys.exit(code)


def _unbuffered(stream: TextIO) -> TextIO:
    """Return a text stream to the same file that keeps nothing back.

    A buffer would hold what a full disk or a closed pipe did not take, and whatever flushes it later (the
    start of a worker process, for example) would end the run.
    """
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return io.TextIOWrapper(
        raw, encoding=stream.encoding, errors=stream.errors, line_buffering=True, write_through=True
    )


if __name__ == "__main__":
    main()
