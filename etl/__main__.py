"""`callflow` and `python -m etl`."""

import signal


def main() -> None:
    """Run the command line. While it is still being imported, Ctrl-C ends the process silently.

    Python's own handler would raise KeyboardInterrupt and print a traceback from inside an import.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else nohup ignores it
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from etl.commands import cli

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
