"""The error of a user's mistake: one line is enough, where a bug needs its traceback."""


class UserError(ValueError):
    """A flag, a file or a model that cannot be used as it is.

    Raised by checks alone, with a message of one line that names what is wrong and says what would be right. Whoever
    has a command line prints that line and exits with code 2; any other exception is a bug, or the machine's fault, and
    keeps its traceback.
    """
