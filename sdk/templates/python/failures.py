"""Turns a failed host call that the hook does not catch into a failure with its message."""

from functools import wraps

from componentize_py_types import Err
from wit_world.imports.types import AccessError


def with_messages(function):
    """Makes the hook fail with the message of the host call.

    Without this decorator, the error would be taken for the function's own error type, and its message would be lost.
    """

    @wraps(function)
    def call(*arguments):
        try:
            return function(*arguments)
        except Err as error:
            if not isinstance(error.value, AccessError):
                raise
            message = f"{error.value.code}: {error.value.message}"
            # In `check`, an `Err` would be a rejection of the change.
            raise (Err(message) if function.__name__ == "react" else RuntimeError(message)) from None

    return call
