"""The command line: `vlmlab COMMAND`, each a thin call of the library."""

import argparse
import io
import os
import sys

from .. import __version__
from . import listing, reproduce, studies, training

EXAMPLES = """examples:
  vlmlab reproduce                          train what is missing, make all figures
  vlmlab studies                            what there is and what is fresh
  vlmlab explain figures/alignednorm/fig3a.svg
  vlmlab fit aligned_norm emoji/animals --shots 16 --set w_proj=0.1
  vlmlab results --where method=aligned_norm

`vlmlab COMMAND --help` explains one command."""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    about = "Look inside vision-language models and reproduce papers about them."
    ap = argparse.ArgumentParser(prog="vlmlab", description=about, epilog=EXAMPLES, **shape)
    ap.add_argument("--version", action="version", version=f"vlmlab {__version__}")
    commands = ap.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, text: str, example: str) -> argparse.ArgumentParser:
        p = commands.add_parser(name, help=text, description=text, epilog=f"example:\n  {example}", **shape)
        p.add_argument("--debug", action="store_true", help="show the traceback of an error")
        p.set_defaults(run=run)
        return p

    for room in (reproduce, studies, training, listing):
        room.commands(command)
    return ap


def is_meant_for_users(error: Exception) -> bool:
    """Errors whose message says what to do; a bare key, say, is a fault of the program."""
    if isinstance(error, KeyError):
        return bool(error.args) and " " in str(error.args[0])
    return isinstance(error, (ValueError, OSError, FloatingPointError))


def speak_utf8() -> None:
    """Files and pipes get UTF-8, whatever the locale; a terminal that lacks a letter shows a `?` for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 done, 1 something in it failed, 2 it cannot be done as asked, 130 stopped."""
    speak_utf8()
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `vlmlab results | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if args.debug or not is_meant_for_users(error):
            raise
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"vlmlab: error: {' '.join(str(text).split())}", file=sys.stderr)
        return 2
