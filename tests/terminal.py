"""Run a command on a terminal, and answer what it asks."""

import os
import pty
import select
import sys
from collections.abc import Sequence
from pathlib import Path


def at_terminal(
    words: Sequence[str], cwd: Path, answers: Sequence[tuple[str, str]], **env: str
) -> tuple[str, int]:
    """Run `callflow WORDS…` on a terminal; type each answer when its prompt is there.

    Return all that the terminal showed, and the exit code.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "etl", *words],
            {**kept, "PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "dumb", **env},
        )
    shown, start = "", 0

    def more() -> bool:
        nonlocal shown
        assert select.select([terminal], [], [], 60)[0], shown
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side has closed
            return False
        shown += part.decode()
        return bool(part)

    try:
        for prompt, answer in answers:
            # What is typed before echo is off would be shown; getpass empties the queue as well.
            while not waits_at(shown[start:], prompt):
                assert more(), shown
            start = len(shown)
            os.write(terminal, os.fsencode(answer))
        while more():
            pass
    finally:
        os.close(terminal)
    return shown, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def waits_at(text: str, prompt: str) -> bool:
    """Return whether a line that starts with `prompt` waits for an answer."""
    last = text.rpartition("\n")[2]
    return last.startswith(prompt) and last.endswith(": ")
