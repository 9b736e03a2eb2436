"""How a command ends: its exit status, and one line on standard error."""

from collections.abc import Callable

import pytest

from rehearsal.errors import RehearsalError, run_command, unknown_choice

INTERRUPTED = "interrupted; finished work is kept, run the same command again to go on\n"


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raising(RehearsalError("no such file: x")), 1, "error: no such file: x\n"),
        (raising(KeyboardInterrupt()), 130, INTERRUPTED),
    ],
)
def test_exit_status_and_message(
    main: Callable[[], int | None], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == status
    assert capsys.readouterr() == ("", message)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_choices_are_listed() -> None:
    assert str(unknown_choice("task", "bel", ["bell", "cup"])) == "unknown task 'bel'; valid: bell, cup"
