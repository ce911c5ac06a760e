"""The error of a network that cannot be packed."""


class CannotPack(Exception):
    """The network cannot be packed; the message says why and what to do."""
