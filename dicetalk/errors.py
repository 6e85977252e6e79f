"""The one exception that a user can act on."""


class InputError(ValueError):
    """Input that cannot be used. The message names the file, field or socket, and the remedy."""


def reason(error) -> str:
    """What an exception of a library says, in one line of at most 200 characters, to be quoted in an error."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
