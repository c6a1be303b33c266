from __future__ import annotations

import gc
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

import pytest

from rubberduck.core.sse import SSEDecoder
from rubberduck.testing import Behaviour, Call, FaultServer, Reply, faults

OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"


def ask(
    server: FaultServer,
    path: str = OPENAI,
    *,
    stream: bool = False,
    headers: Mapping[str, str] = MappingProxyType({}),
    **fields: object,
) -> tuple[int, dict[str, str], bytes]:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        body = json.dumps({"model": "m-1", "stream": stream, **fields})
        client.request("POST", path, body, {"Content-Type": "application/json", **headers})
        response = client.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        client.close()


def events(body: bytes) -> list[str]:
    decoder = SSEDecoder()
    return [event.data for event in decoder.feed(body) + decoder.end()]


@pytest.mark.parametrize(
    ("path", "text_of"),
    [
        (OPENAI, lambda answer: answer["choices"][0]["message"]["content"]),
        (ANTHROPIC, lambda answer: answer["content"][0]["text"]),
    ],
)
def test_speaks_the_dialect_of_the_path(path: str, text_of: Callable[[dict[str, object]], str]) -> None:
    with FaultServer(faults.Ok("Quack quack.")) as server:
        status, _, body = ask(server, path)
    assert status == 200
    assert text_of(json.loads(body)) == "Quack quack."
    assert json.loads(body)["model"] == "m-1"


def test_streams_where_the_request_asks_for_it() -> None:
    with FaultServer(faults.Ok("Quack quack.")) as server:
        *chunks, done = events(ask(server, stream=True)[2])
        anthropic = [json.loads(data) for data in events(ask(server, ANTHROPIC, stream=True)[2])]
    assert done == "[DONE]"
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert "".join(deltas) == "Quack quack."
    assert anthropic[-1] == {"type": "message_stop"}
    assert "".join(event.get("delta", {}).get("text", "") for event in anthropic) == "Quack quack."


def test_script_is_played_in_order_and_its_last_line_repeats() -> None:
    with FaultServer(faults.Status(429, retry_after=2), faults.Status(500), faults.Html(502)) as server:
        answers = [ask(server) for _ in range(4)]
        server.play(faults.Ok())
        assert ask(server)[0] == 200
    assert [status for status, _, _ in answers] == [429, 500, 502, 502]
    assert answers[0][1]["retry-after"] == "2"
    assert json.loads(answers[1][2])["error"]["type"] == "server_error"
    assert b"<html>" in answers[2][2]


def test_log_tells_what_was_asked_and_what_was_sent() -> None:
    with FaultServer() as server:
        _, _, body = ask(server, stream=True)
        [call] = server.calls
    assert (call.method, call.path, call.json) == ("POST", OPENAI, {"model": "m-1", "stream": True})
    assert call.headers["content-type"] == "application/json"
    assert call.bytes_sent > len(body)
    assert call.finished_at is not None
    assert call.finished_at >= call.arrived_at
    assert call.disconnected_at is None


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("stream", [False, True])
def test_log_tells_what_answered_and_the_usage_that_was_told(path: str, stream: bool) -> None:
    script = [faults.Ok(), faults.Gzip(), faults.RepeatedUsage(), faults.Cut(after=2), faults.Status(500)]
    with FaultServer(*script) as server:
        for _ in script:
            with suppress(http.client.HTTPException):
                ask(server, path, stream=stream)
    assert [call.behaviour for call in server.calls] == script
    *whole, cut, refused = [call.usage for call in server.calls]
    assert whole == [(12, 6)] * 3
    assert cut == ((12, 1) if stream and path == ANTHROPIC else None)
    assert refused is None


def test_log_tells_the_key_of_each_request() -> None:
    headers = [{"Authorization": "Bearer one"}, {"x-api-key": "two"}, {}]
    with FaultServer(faults.ByKey({"one": faults.OutOfQuota()})) as server:
        statuses = [ask(server, headers=each)[0] for each in headers]
    assert statuses == [429, 200, 200]
    assert [call.key for call in server.calls] == ["one", "two", ""]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_prefill_is_refused_where_the_last_word_is_the_assistants(path: str) -> None:
    question, begun = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}
    with FaultServer(faults.NoPrefill()) as server:
        assert ask(server, path, messages=[question])[0] == 200
        status, _, body = ask(server, path, messages=[question, begun])
    assert (status, b"prefill" in body) == (400, True)


@pytest.mark.parametrize("has_usage", [True, False])
def test_stream_without_end_mark_can_leave_the_line_open(has_usage: bool) -> None:
    with FaultServer(faults.NoDone(lingers=True, has_usage=has_usage)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        client.request("POST", OPENAI, '{"stream": true}', {"Content-Type": "application/json"})
        server.wait_for(lambda calls: calls and b'"stop"' in calls[0].said and (calls[0].usage or not has_usage))
        client.close()
        server.wait_for(lambda calls: calls[0].disconnected_at)
    assert b"[DONE]" not in server.calls[0].said
    assert (server.calls[0].usage is not None) is has_usage


def test_log_tells_when_the_client_left_early() -> None:
    with FaultServer(faults.Silence()) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        server.wait_for(lambda calls: len(calls) == 1)
        client.close()
        server.wait_for(lambda calls: calls[0].disconnected_at)
        assert server.calls[0].finished_at is None


@pytest.mark.parametrize("fault", [faults.HangUp(), faults.HangUp(reset=False), faults.Cut(), faults.Cut(reset=True)])
def test_line_that_the_server_drops_is_not_blamed_on_the_client(fault: Behaviour) -> None:
    with FaultServer(fault) as server:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(server, stream=True)
        server.wait_for(lambda _: server.open_connections == 0)
        assert server.calls[0].disconnected_at is None
        assert server.calls[0].finished_at is None


def test_held_request_waits_for_the_test() -> None:
    with FaultServer(faults.Hold(faults.Ok())) as server:
        asking = threading.Thread(target=ask, args=(server,))
        asking.start()
        server.wait_for(lambda calls: calls)
        assert server.calls[0].status is None
        server.release()
        asking.join(60)
        assert server.calls[0].status == 200


def test_flaky_fails_the_same_way_for_the_same_seed() -> None:
    def run() -> list[int]:
        with FaultServer(faults.Flaky(0.4, seed=3)) as server:
            return [ask(server)[0] for _ in range(12)]

    first = run()
    assert first == run()
    assert set(first) == {200, 500}


def test_recorded_bytes_come_back_in_pieces() -> None:
    body = 'data: {"a":"é"}\r\n\r\n'.encode()
    with FaultServer(faults.Raw(206, {"x-a": "b"}, body, chunk_size=1)) as server:
        status, headers, got = ask(server)
    assert (status, headers["x-a"], got) == (206, "b", body)


def test_own_behaviour_can_stand_in_a_script_and_its_mistake_is_not_lost() -> None:
    class Wrong:
        async def answer(self, call: Call, reply: Reply) -> None:
            await reply.head(200, {}, length=3)
            raise LookupError("my mistake")

    server = FaultServer(Wrong())
    with pytest.raises(RuntimeError) as caught, server, suppress(http.client.HTTPException, ConnectionError):
        ask(server)
    assert isinstance(caught.value.__cause__, LookupError)


ENDLESS = [faults.Endless(), faults.Drip(0), faults.Silence(), faults.Stall()]


@pytest.mark.parametrize("fault", ENDLESS, ids=repr)
def test_nothing_is_left_when_the_block_ends_in_the_middle_of_an_answer(fault: Behaviour) -> None:
    with FaultServer(fault) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        server.wait_for(lambda calls: calls)
    client.close()
    assert "fault-server" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_who_connects_just_when_the_block_ends_is_let_go_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop closed the listener between accepting and making a transport, and left a socket to the garbage."""
    busy, ending = threading.Event(), threading.Event()

    class Busy:
        async def answer(self, call: Call, reply: Reply) -> None:
            busy.set()
            ending.wait()  # the loop stands still, and finds a connection and the end of the block at once

    with FaultServer(Busy()) as server:
        join = server._thread.join
        monkeypatch.setattr(server._thread, "join", lambda *patience: (ending.set(), join(*patience)))
        with socket.create_connection(("127.0.0.1", server.port)) as first:
            first.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            assert busy.wait(30)
            late = socket.create_connection(("127.0.0.1", server.port))
    with late:
        late.settimeout(30)
        with suppress(ConnectionResetError):
            assert late.recv(1) == b""
    gc.collect()


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_special_answers_say_what_they_should(path: str) -> None:
    marks = {OPENAI: ("insufficient_quota", "content_filter"), ANTHROPIC: ("billing_error", "refusal")}[path]
    script: list[Behaviour] = [
        faults.OutOfQuota(),
        faults.Filtered(),
        faults.Filtered(),
        faults.ContextExceeded(),
        faults.ErrorInside(),
        faults.SpendLimit(),
        faults.PolicyRefusal(),
    ]
    with FaultServer(*script) as server:
        quota, filtered, streamed, context, inside, spent, policy = (ask(server, path, stream=i == 2) for i in range(7))
    assert marks[0].encode() in quota[2]
    assert marks[1].encode() in filtered[2]
    assert marks[1].encode() in streamed[2]
    assert context[0] == 400
    assert inside[0] == 200
    assert "error" in json.loads(inside[2])
    assert spent[0] == (429 if path == OPENAI else 400)
    assert policy[0] == 400


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_damaged_streams_are_damaged_as_named(path: str) -> None:
    script: list[Behaviour] = [
        faults.BadChunk(),
        faults.NoDone(),
        faults.ErrorInside(after=2),
        faults.RepeatedUsage(),
        faults.Cut(clean=True),
    ]
    with FaultServer(*script) as server:
        whole, bad, no_done, error, repeated, cut = (
            events(body) for body in ([b"".join(_whole(path))] + [ask(server, path, stream=True)[2] for _ in script])
        )
    assert [event for event in bad if not _is_json(event)] == ['{"choices": [{"delta": ', *_markers(path)]
    assert no_done == whole[:-1]
    assert "error" in json.loads(error[2])
    assert len(repeated) == len(whole) + 2
    assert repeated[-2:] == whole[-2:]
    assert cut == whole[:3]


def _whole(path: str) -> list[bytes]:
    from rubberduck.testing import dialects

    return dialects.events(path, "m-1", faults.TEXT)


def _markers(path: str) -> list[str]:
    return ["[DONE]"] if path == OPENAI else []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
