"""Every error a user can meet: one line of what was found and expected, and the way out.

The command line prints ``message`` and ``hint`` and exits with ``exit_code``; a traceback appears
only with ``--debug``. Library callers catch the class.
"""


class AlignCacheError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        What was found and what was expected, in one line.
    hint : str, optional
        The command or the change that mends it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UsageError(AlignCacheError):
    """A name, flag or combination that cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more settings that are unknown, of the wrong type or out of range."""


class SourceError(AlignCacheError):
    """A dataset that is missing, damaged or not laid out as expected."""


class SampleError(SourceError):
    """One sample that cannot be read; names its id."""


class OfflineError(SourceError):
    """Something has to be fetched first and the hub cannot be reached."""


class EncoderError(AlignCacheError):
    """An encoder that cannot be built from the weights it was given."""


class CacheError(AlignCacheError):
    """A feature set that is missing, damaged or not what was asked for."""


class CorruptError(CacheError):
    """Bytes on disk that are not the bytes that were published."""


class BusyError(CacheError):
    """Another process holds the feature set."""


class PairingError(AlignCacheError):
    """Feature sets that do not belong together."""


class ShapeError(AlignCacheError, ValueError):
    """An array of another shape than the function works on."""


class NonFiniteError(AlignCacheError, ValueError):
    """NaN or infinity where numbers were expected."""


class RunError(AlignCacheError):
    """A run that is missing, unfinished or failed."""


class ExportError(AlignCacheError):
    """An export that cannot be made, or would not hold what it was made of."""
