"""The root of every error that btruntime raises on purpose."""


class BtruntimeError(Exception):
    """Something a person can act on; its text is the whole message they see.

    Say what was wrong, where (file, dataset, field), what was expected, what was found, and what to do.
    Each kind of failure has its own subclass, next to the code that raises it.
    """
