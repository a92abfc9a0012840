"""The entry point, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from .cli.app import app
from .cli.command_line import UsageError, usage_message
from .cli.console import close_log, print_message
from .common import signals
from .common.errors import ExitCode, FcnError, NameCollision


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A traceback is printed for a bug only, when ``-v`` asks for it.
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
    except Exception as error:  # noqa: BLE001 - the last resort
        if {"-v", "--verbose"} & set(arguments or sys.argv):
            with contextlib.suppress(OSError):
                traceback.print_exc()
        kind = type(error).__name__
        print_message(f"this is a bug in fcn ({kind}: {error}); please report it with what -v prints")
        return ExitCode.BUG
    finally:
        close_log()
    # A command that ends by typer.Exit returns its code here.
    return code if isinstance(code, int) else ExitCode.OK


def main() -> NoReturn:
    """Run the command line and end the process."""
    for name in ("stdin", "stdout", "stderr"):
        # Under cron any of them can be closed; what is opened next must not take its number.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if "torch" in sys.modules:
        # Taking torch apart module by module takes more than a second, and what counts is on disk.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
