"""The entry point, and the only place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# All else that takes time to import comes when `signals.handle` has been called.
from .common import signals


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        The arguments after the command's name; None takes them from `sys.argv`.
    """
    from .cli.console import close_log, guarded, print_message
    from .common.errors import ExitCode

    with guarded() as stdout:
        code = _outcome(arguments)
        sys.stdout.flush()
        lost = stdout.error is not None
        if lost:
            print_message(f"stdout: cannot be written ({stdout.error}); part of the output is lost")
        if (gap := close_log()) is not None:
            print_message(gap)
    # Every other code says more than that output is lost.
    if (lost or gap) and code in (ExitCode.OK, ExitCode.SOME_FAILED):
        return ExitCode.STOPPED
    return code


def _outcome(arguments: Sequence[str] | None) -> int:
    from .common import resources

    with resources.objects_that_stay():
        from .cli.app import app
        from .cli.command_line import UsageError, usage_message
        from .cli.console import print_message, write_line
        from .common.errors import ExitCode, FcnError, NameCollision

    try:
        with signals.raised():
            code = app(args=arguments, prog_name="fcn", standalone_mode=False)
    except UsageError as error:
        print_message(usage_message(error))
        return ExitCode.BAD_REQUEST
    except (FcnError, signals.Interrupted) as error:
        for line in error.each if isinstance(error, NameCollision) else ():
            print_message(line)
        print_message(str(error))
        return error.exit_code
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Exception as error:  # noqa: BLE001 - whatever is not handled above is a bug
        if {"-v", "--verbose"} & set(arguments or sys.argv):
            import traceback

            for line in traceback.format_exc().splitlines():
                write_line(line, sys.stderr)
        kind = type(error).__name__
        print_message(f"this is a bug in fcn ({kind}: {error}); please report it with the output of -v")
        return ExitCode.BUG
    # Without standalone mode, Typer returns the code of a typer.Exit.
    return code if isinstance(code, int) else ExitCode.OK


def main() -> NoReturn:
    """Run the command line and end the process."""
    signals.handle()
    from .cli.console import occupy_closed
    from .common import resources

    occupy_closed()
    resources.let_waiting_threads_sleep()
    code = run()
    if "torch" in sys.modules:
        # The regular shutdown of torch takes more than a second, and all results are on disk.
        from .common import swept_directory

        swept_directory.remove_all()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
