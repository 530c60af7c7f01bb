"""The exception whose text is meant for a user: what was found, what was expected, the line to type."""


class MLIPError(ValueError):
    """The command line prints it without a traceback and exits with 2."""


class UnwritableError(MLIPError):
    """A file cannot be written: a failure of this machine, which says nothing of the model that is judged."""
