"""The exception whose text is meant for a user: what was found, what was expected, the line to type."""


class MLIPError(ValueError):
    """The command line prints it without a traceback and exits with 2."""
