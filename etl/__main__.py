"""`callflow` and `python -m etl`."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line. Until a command has what it needs, Ctrl-C ends it silently.

    Python's own handler, which `etl.commands.signals.importing` sets again, would raise
    KeyboardInterrupt and print a traceback from inside an import. A daemon exits with 0 then.
    """
    if sys.argv[1:2] == ["daemon"]:  # before the imports that take most of its start
        from etl.commands.starting import end_well_while_starting

        end_well_while_starting()
    # Rows are made by the ten thousands and live until they are copied: it is no use to look for
    # garbage after each 700 of them.
    gc.set_threshold(10_000)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else nohup ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from etl.commands import cli

    try:
        cli.main()
    finally:
        # Else Python looks for garbage in all that was imported once more, which takes a fifth of
        # the time of a short command.
        gc.freeze()


if __name__ == "__main__":
    main()
