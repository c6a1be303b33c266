"""What a command's exit code says, after sysexits.h where it has a word for it.

0    done                                   70   the supervision tree gave up
1    failed                                 75   failed for now, worth another try later
2    the command line is wrong              78   the configuration is wrong
69   nobody could answer: no provider       130  interrupted
"""

from __future__ import annotations

from rubberduck import errors

OK = 0
FAILURE = 1
USAGE = 2
NO_PROVIDER = 69
GAVE_UP = 70
RETRY_LATER = 75
BAD_CONFIG = 78
INTERRUPTED = 130

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.ConfigError, BAD_CONFIG),
    (errors.AuthenticationFailed, BAD_CONFIG),
    (errors.RateLimited, RETRY_LATER),
    (errors.Overloaded, RETRY_LATER),
    (errors.ProviderTimeout, RETRY_LATER),
    (errors.QueueFull, RETRY_LATER),
    (errors.CircuitOpen, RETRY_LATER),
    (errors.DeadlineExceeded, RETRY_LATER),
    (errors.StreamInterrupted, RETRY_LATER),
    (errors.NoAvailableProvider, NO_PROVIDER),
    (errors.ServiceUnavailable, NO_PROVIDER),
    (errors.CallInterrupted, GAVE_UP),
    (errors.Cancelled, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
)


def code_for(error: BaseException) -> int:
    """The exit code for an error; the first class that fits decides."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)
