"""What can be wrong with a network, in words for its user."""


class ModelError(Exception):
    """A network is missing, damaged, of the wrong kind, or cannot run as asked; the text says which and what to do."""


class ProviderError(ModelError):
    """The execution provider that was asked for (a GPU, say) cannot be had on this machine."""


class OutOfMemory(ModelError):
    """A GPU's memory does not do for a single input; the text says which, and which settings to change."""
