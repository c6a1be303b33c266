"""What went wrong below a request, told from the exceptions of three libraries in terms of what it leaves open.

By name, not by class: so nothing of theirs is imported here, and one table serves every carrier.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping


class TransportError(Exception):
    """No whole answer came.

    `phase` says what that leaves open: "not_sent" (the request never left), "uncertain" (it may have been
    executed) or "after_output" (part of the body arrived). `kind` says what happened: "connect", "tls",
    "dns", "timeout", "reset" (gone before the headers), "cut" (gone inside the body), "too_large" or
    "malformed" (not HTTP, or not the encoding it claims).
    """

    def __init__(self, message: str, *, phase: str, kind: str) -> None:
        super().__init__(message)
        self.phase = phase
        self.kind = kind


# What an exception of the libraries means, by the name of its class or of its nearest listed base. httpx-aiohttp
# 0.2.0 turns a server that hangs up after the request into httpx.ConnectTimeout, so the cause below it goes first.
_AIOHTTP_FAILURES = {
    "ClientConnectorDNSError": ("not_sent", "dns"),
    "ClientConnectorSSLError": ("not_sent", "tls"),
    "ClientConnectorCertificateError": ("not_sent", "tls"),
    "ServerFingerprintMismatch": ("not_sent", "tls"),
    "ClientConnectorError": ("not_sent", "connect"),
    "ClientHttpProxyError": ("not_sent", "connect"),
    "InvalidURL": ("not_sent", "malformed"),
    "ConnectionTimeoutError": ("not_sent", "timeout"),
    "ServerTimeoutError": ("uncertain", "timeout"),
    "ClientConnectionError": ("uncertain", "reset"),
    "ClientPayloadError": ("uncertain", "cut"),
    "ClientResponseError": ("uncertain", "malformed"),
}
_HTTPX_FAILURES = {
    "ConnectTimeout": ("not_sent", "timeout"),
    "PoolTimeout": ("not_sent", "timeout"),
    "ConnectError": ("not_sent", "connect"),
    "ProxyError": ("not_sent", "connect"),
    "UnsupportedProtocol": ("not_sent", "malformed"),
    "LocalProtocolError": ("not_sent", "malformed"),
    "TimeoutException": ("uncertain", "timeout"),
    "NetworkError": ("uncertain", "reset"),
    "RemoteProtocolError": ("uncertain", "reset"),
    "DecodingError": ("uncertain", "malformed"),
    "TransportError": ("uncertain", "reset"),
}
TEXTS = {
    "connect": "cannot connect",
    "tls": "no trusted TLS connection",
    "dns": "the name cannot be resolved",
    "timeout": "no connection in time",
    "reset": "the connection was lost before an answer came",
    "cut": "the connection was lost inside the answer",
    "malformed": "the answer is not HTTP",
}


def meaning(failure: Exception) -> tuple[str, str] | None:
    """Phase and kind of an exception of the libraries, None for one that is not theirs."""
    chain = _chain(failure)
    found = _first(_AIOHTTP_FAILURES, *chain) or _first(_HTTPX_FAILURES, failure)
    if found and found[1] == "reset" and any(_is_no_http(error) for error in chain):
        return "uncertain", "malformed"
    if found and found[1] == "connect":
        if any(isinstance(error, socket.gaierror) for error in chain):
            return "not_sent", "dns"
        if any(isinstance(error, ssl.SSLError) for error in chain):
            return "not_sent", "tls"
    return found


def _is_no_http(error: BaseException) -> bool:
    """httpx has one name for a peer that hung up and for one that does not speak HTTP; h11 below it knows."""
    return type(error).__module__.partition(".")[0] == "h11" and "peer closed" not in str(error)


def _chain(failure: BaseException) -> list[BaseException]:
    chain = [failure]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    return chain


def _first(failures: Mapping[str, tuple[str, str]], *chain: BaseException) -> tuple[str, str] | None:
    names = (base.__name__ for error in chain for base in type(error).__mro__)
    return next((failures[name] for name in names if name in failures), None)


def detail(failure: Exception) -> str:
    """The operating system's words, if it was that; the libraries' own may hold URLs and headers."""
    reason = next((error.strerror for error in _chain(failure) if isinstance(error, OSError) and error.strerror), None)
    return f" ({reason})" if reason else ""
