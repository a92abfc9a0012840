"""The entry point, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import NoReturn

from . import display, interrupts
from .cli import app
from .errors import ExitCode, FcnError


def main() -> NoReturn:
    """Run the command line and exit; no traceback reaches a user unless it is a bug and ``-v`` asks for it."""
    interrupts.raise_on_signals()
    try:
        app(prog_name="fcn")
    except FcnError as error:
        display.say(str(error))
        code: int = error.exit_code
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Exception as error:  # noqa: BLE001 - the last resort
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        kind = type(error).__name__
        display.say(f"this is a bug in fcn ({kind}: {error}); please report it with the traceback that -v prints")
        code = ExitCode.BUG
    else:
        code = ExitCode.OK
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
