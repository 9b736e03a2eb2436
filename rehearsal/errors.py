"""One kind of error for what a user can put right, and one way to end a command with it.

A command ends with one line on standard error that says what is wrong, the bad value, the valid choices and what
to do; its exit status is not 0. A bug keeps its traceback.
"""

import sys
from collections.abc import Callable, Iterable


class RehearsalError(Exception):
    """Something that the user can put right; the message is a whole sentence that says how."""


def unknown_choice(what: str, value: object, choices: Iterable[object]) -> RehearsalError:
    """Returns the error for a value outside a closed list of names."""
    listed = ", ".join(str(choice) for choice in choices)
    return RehearsalError(f"unknown {what} {value!r}; valid: {listed}")


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command's `main` and leaves the process: 0 or main's own status, 1 on a user's error, 130 on Ctrl-C."""
    try:
        status = main() or 0
    except RehearsalError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, run the same command again to go on", file=sys.stderr)
        status = 130
    sys.exit(status)
