"""The one kind of error that users see as a single line."""


class RingRLError(Exception):
    """A fault in the user's input: one line that names the file, key or episode and the remedy.

    The command line prints the message alone and exits with code 2; `--debug` shows the traceback.
    """
