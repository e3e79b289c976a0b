"""The command line: `vlmlab COMMAND`, each a thin call of the library."""

import io
import os
import sys

from .. import __version__
from .stopping import signals

EXAMPLES = """examples:
  vlmlab reproduce                          train what is missing, make all figures
  vlmlab studies                            what there is and what is fresh
  vlmlab explain figures/alignednorm/fig3a.svg
  vlmlab fit aligned_norm emoji/animals --shots 16 --set w_proj=0.1
  vlmlab results --where method=aligned_norm

`vlmlab COMMAND --help` explains one command."""


def parser():
    """All commands and their options."""
    import argparse

    from . import decoding, listing, reproduce, studies, training

    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    about = "Look inside vision-language models and reproduce papers about them."
    ap = argparse.ArgumentParser(prog="vlmlab", description=about, epilog=EXAMPLES, **shape)
    ap.add_argument("--version", action="version", version=f"vlmlab {__version__}")
    commands = ap.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, text: str, example: str):
        p = commands.add_parser(name, help=text, description=text, epilog=f"example:\n  {example}", **shape)
        p.add_argument("--debug", action="store_true", help="show the traceback of an error")
        p.set_defaults(run=run)
        return p

    for room in (reproduce, studies, training, decoding, listing):
        room.commands(command)
    return ap


def is_meant_for_users(error: Exception) -> bool:
    """Errors whose message says what to do; a bare key, say, is a fault of the program."""
    if isinstance(error, KeyError):
        return bool(error.args) and " " in str(error.args[0])
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, of a GPU
    return memory or isinstance(error, (ValueError, OSError, FloatingPointError))


def speak_utf8() -> None:
    """Files and pipes get UTF-8, whatever the locale; a terminal that lacks a letter shows a `?` for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 done, 1 something in it failed, 2 it cannot be done as asked, 130 or 143 stopped."""
    speak_utf8()
    with signals(leaving=argv is None) as got:
        try:
            return run(argv)
        except BaseException as error:
            if got or isinstance(error, KeyboardInterrupt):  # it may come out of a library as another error
                return 128 + (got[0] if got else 2)
            raise


def run(argv: list[str] | None) -> int:
    """A command; errors meant for users, and warnings, are one line each."""
    import warnings

    args = parser().parse_args(argv)
    before, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        status = args.run(args)
        sys.stdout.flush()  # a full disk behind it is an error of this command
        return status
    except BrokenPipeError:  # `vlmlab results | head`
        forget_output()
        return 0
    except Exception as error:
        if args.debug or not is_meant_for_users(error):
            raise
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"vlmlab: error: {' '.join(str(text).split())}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            forget_output()
        return 2
    finally:
        warnings.formatwarning = before


def one_line(message, category, *where) -> str:
    return f"vlmlab: warning: {' '.join(str(message).split())}\n"


def forget_output() -> None:
    """What is still to be written cannot be: Python would say so once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
