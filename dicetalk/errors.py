"""The one exception that a user can act on."""


class InputError(ValueError):
    """Input that cannot be used. The message names the file, field or socket, and the remedy."""
