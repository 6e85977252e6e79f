"""The front of ``python -m dicetalk``: finds the command, hands over, turns errors into one line and an exit code."""

import argparse
import importlib
import os
import sys

from .errors import InputError

COMMANDS = ("generate", "verify", "download", "convert", "tiny", "bench", "emotion", "train-embedder")


def _module(name):
    return importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)


def main(argv=None):
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process when None.

    Returns:
        The exit code: 0 done, 2 bad input (one line on standard error says what), 130 interrupted; `verify`
        returns 1 for a failed case.
    """
    for stream in (sys.stdout, sys.stderr):  # not to fail by the name of a file, where Windows has an old code page
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="dicetalk", description="DICE-Talk: emotional talking portraits.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {name: _module(name) for name in COMMANDS}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    args = parser.parse_args(argv)
    try:
        return modules[args.command].run(args)
    except InputError as error:
        print(f"dicetalk {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"dicetalk {args.command}: interrupted. {interrupt}".rstrip(". "), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")
        return 141
