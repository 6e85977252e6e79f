"""The commands of ``python -m dicetalk``.

Each module has HELP, EXAMPLES (what one does, and its arguments), ``add_arguments(parser)`` and
``run(args) -> exit code``. Its docstring is the description in ``--help``.
"""
