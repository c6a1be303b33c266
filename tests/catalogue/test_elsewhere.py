"""The way to the provider is wrong: it points elsewhere, is not to be trusted, or leads nowhere."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, BOTH_VERBS, Upstreams, attempts

from rubberduck.errors import ServiceUnavailable
from rubberduck.testing import FaultServer
from rubberduck.testing.faults import Redirect


@BOTH_VERBS
@pytest.mark.parametrize("status", [302, 307])
@BOTH_DIALECTS
def test_a_redirect_is_never_followed_and_the_fallback_answers(
    upstreams: Upstreams, module: str, status: int, verb: str
) -> None:
    with FaultServer() as elsewhere:
        pair = upstreams(Redirect(f"{elsewhere.base_url}/v1", status), dialects=(module, "openai"))
        response = pair.ask(verb)
        assert attempts(response) == [("primary", "ProtocolError"), ("fallback", "success")]
        assert elsewhere.calls == []
        assert elsewhere.open_connections == 0


@BOTH_VERBS
@BOTH_DIALECTS
def test_a_server_that_speaks_no_tls_is_never_spoken_to_without(upstreams: Upstreams, module: str, verb: str) -> None:
    with FaultServer() as plain:
        pair = upstreams(
            primary={"base_url": f"https://127.0.0.1:{plain.port}/v1"}, unsent=2, dialects=(module, "openai")
        )
        response = pair.ask(verb)
        assert attempts(response) == [("primary", "ServiceUnavailable")] * 2 + [("fallback", "success")]
        assert [attempt.cost for attempt in response.attempts[:2]] == [0, 0]
        assert plain.calls == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program to make a certificate")
@BOTH_VERBS
def test_a_certificate_that_nobody_vouches_for_gets_no_byte_of_the_request(
    upstreams: Upstreams, tmp_path: Path, verb: str
) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with FaultServer(certificate=certificate) as stranger:
        pair = upstreams(primary={"base_url": f"{stranger.base_url}/v1"}, unsent=2)
        response = pair.ask(verb)
        assert attempts(response) == [("primary", "ServiceUnavailable")] * 2 + [("fallback", "success")]
        assert stranger.calls == []


@pytest.fixture
def no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names under .invalid are looked up in vain, and without asking anybody."""
    look_up = socket.getaddrinfo

    def refuse(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@BOTH_VERBS
@BOTH_DIALECTS
def test_a_name_that_nobody_knows_is_left_for_the_fallback(
    upstreams: Upstreams, module: str, verb: str, no_such_name: None
) -> None:
    pair = upstreams(primary={"base_url": "https://api.nowhere.invalid/v1"}, unsent=2, dialects=(module, "openai"))
    response = pair.ask(verb)
    assert attempts(response) == [("primary", "ServiceUnavailable")] * 2 + [("fallback", "success")]
    assert [attempt.cost for attempt in response.attempts[:2]] == [0, 0]


def test_with_nobody_else_to_ask_the_error_says_that_nothing_was_sent(upstreams: Upstreams, no_such_name: None) -> None:
    pair = upstreams(primary={"base_url": "https://api.nowhere.invalid/v1"}, unsent=3, alone=True)
    error = pair.failure("complete", ServiceUnavailable)
    assert (error.phase, error.spent) == ("not_sent", 0)
    assert "dns" in str(error)
