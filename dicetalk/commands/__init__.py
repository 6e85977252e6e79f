"""The commands of ``python -m dicetalk``: each module has HELP, ``add_arguments(parser)`` and ``run(args) -> exit code``."""
