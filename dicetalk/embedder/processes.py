"""What the processes of one training must agree on, so that none waits for others that have stopped or do otherwise."""

import json

from ..errors import InputError


def together(compute):
    """What `compute()` gives here, once it has gone well in every process.

    Raises:
        InputError: in all processes, where `compute` raised one in any.
    """
    from accelerate.utils import gather_object

    value = failure = None
    try:
        value = compute()
    except InputError as error:
        failure = error
    told = [each for each in gather_object([failure and str(failure)]) if each is not None]
    if told:
        raise failure or InputError(told[0])
    return value


def check_same(value, message):
    """InputError that says `message`, in all processes, unless a JSON value is the same in each."""
    from accelerate.utils import gather_object

    if len(set(gather_object([json.dumps(value)]))) > 1:
        raise InputError(message)
