"""The commands of ``python -m dicetalk``.

Each module has HELP, ``add_arguments(parser)`` and ``run(args) -> exit code``.
"""
