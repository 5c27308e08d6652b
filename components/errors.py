"""The one exception that a user is meant to read."""


class CotamError(Exception):
    """Something the user can put right: one sentence that says what is wrong and what to do.

    The `cotam` command prints the message without a traceback and exits with 1.
    """
