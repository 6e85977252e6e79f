"""The front of ``python -m dicetalk``: finds the command, hands over, turns errors into one line and an exit code."""

import argparse
import importlib
import os
import shutil
import sys
import textwrap

from . import __version__
from .errors import InputError

COMMANDS = (
    *("generate", "batch", "dialogue", "verify", "download", "convert", "tiny", "warm-up", "bench", "emotion"),
    *("drawn", "prepare", "train", "distill", "train-embedder", "miniature", "evaluate", "ablate"),
)


def _module(name):
    return importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)


def parser():
    """The argparse parser of all commands, each with a description and examples in its help."""
    top = argparse.ArgumentParser(prog="dicetalk", description="DICE-Talk: emotional talking portraits.")
    top.add_argument("--version", action="version", version=f"dicetalk {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=_wrapped(module.__doc__),
            epilog=_examples(name, module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return top


def _wrapped(text):
    """Paragraphs at the width of the terminal, as argparse would print one."""
    width = min(shutil.get_terminal_size().columns - 2, 100)
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.strip().split("\n\n"))


def _examples(name, examples):
    """Lines to copy: the examples are not wrapped, whatever the width."""
    lines = (f"  # {what}\n  python -m dicetalk {name} {arguments}".rstrip() for what, arguments in examples)
    return "\n".join(["examples:", *lines])


def main(argv=None):
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process when None.

    Returns:
        The exit code: 0 done, 2 bad input (one line on standard error says what), 130 interrupted; `verify`
        returns 1 for a failed case, `batch` for a failed row.
    """
    for stream in (sys.stdout, sys.stderr):  # not to fail by the name of a file, where Windows has an old code page
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        return _module(args.command).run(args)
    except InputError as error:
        print(f"dicetalk {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"dicetalk {args.command}: interrupted. {interrupt}".rstrip(". "), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")
        return 141
