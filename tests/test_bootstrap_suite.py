"""The rules that tests/conftest.py holds every test to, each shown by a test that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty suite under the same rules, run in a process of its own: an audit hook cannot be taken back."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text() + "\nGRACE = 0.05\n")
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    return pytester


def test_a_test_that_reaches_beyond_this_machine_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import socket, pytest

        def connect(family, address, kind=socket.SOCK_STREAM):
            with socket.socket(family, kind) as sock:
                sock.connect(address)

        def test_ipv4(): connect(socket.AF_INET, ("192.0.2.1", 80))
        def test_ipv6(): connect(socket.AF_INET6, ("2001:db8::1", 80))
        def test_datagram_connected(): connect(socket.AF_INET, ("192.0.2.1", 80), socket.SOCK_DGRAM)
        def test_datagram():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("192.0.2.1", 80))
        def test_name(): socket.getaddrinfo("example.com", 80)
        def test_old_name(): socket.gethostbyname("example.com")
        def test_disguised(): connect(socket.AF_INET6, ("::ffff:192.0.2.1", 80))
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=7, errors=7)
    result.stdout.fnmatch_lines(["*NetworkBlocked: connect to 192.0.2.1:80: tests may use loopback*"])


def test_a_swallowed_refusal_still_fails_the_test(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import socket

        def test_swallows():
            try:
                socket.create_connection(("example.com", 80))
            except Exception:
                pass

        def test_next(): pass
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["network outside this machine: look-up of example.com"])


def test_loopback_and_unix_sockets_are_free(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import asyncio, contextlib, socket

        def test_loopback_by_address_and_name():
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                for host in ("127.0.0.1", "localhost", "0.0.0.0"):
                    socket.create_connection((host, port)).close()

        def test_asyncio():
            async def story():
                server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
                async with server:
                    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                    writer.close()
                    await writer.wait_closed()
            asyncio.run(story())

        def test_unix(tmp_path):
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind(str(tmp_path / "s"))
                server.listen()
                client.connect(str(tmp_path / "s"))

        def test_datagram():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
                a.bind(("127.0.0.1", 0))
                a.sendto(b"x", a.getsockname())

        def test_numbers_need_no_look_up():
            socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=5)


def test_a_thread_or_actor_left_behind_fails_the_test_that_left_it(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import threading, pykka

        class Forgotten(pykka.ThreadingActor):
            use_daemon_thread = True

        stop = threading.Event()

        def leave(name, daemon):
            threading.Thread(target=stop.wait, name=name, daemon=daemon).start()

        def test_actor(): Forgotten.start()
        def test_clean_after_actor(): pass
        def test_thread(): leave("anyone", False)
        def test_ours(): leave("supervision-loop", True)
        def test_duck(): leave("duck-ledger", True)
        def test_foreign_daemon_is_none_of_ours(): leave("anyone", True)
        def test_last(): stop.set()
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=7, errors=4)
    result.stdout.fnmatch_lines(["left running: *Forgotten*", "left running: *supervision-loop*"])


def test_what_is_about_to_stop_gets_a_moment(suite: pytest.Pytester) -> None:
    suite.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    suite.makepyfile(
        """
        import threading, time

        def test_stopping():
            looked, sleep = threading.Event(), time.sleep

            def sleeps(seconds):
                looked.set()
                sleep(seconds)

            time.sleep = sleeps  # what is done between two looks, and by nobody else
            threading.Thread(target=looked.wait).start()
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=1)


def test_eventually_gives_what_the_condition_gave_or_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_comes_true(eventually):
            found = iter([None, 0, "there"])
            assert eventually(lambda: next(found)) == "there"

        def test_never(eventually):
            eventually(lambda: 0, timeout=0.01)
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*not within 0.01 s: * last gave 0"])


SKIPS = """
    import pytest

    def test_skips(): pytest.skip("no redis here")
    @pytest.mark.skipif(True, reason="no chromium here")
    def test_marked(): pass
    def test_recorded(): pytest.skip("cassettes: no folder")
    @pytest.mark.xfail
    def test_known_fault(): assert False
"""


def test_skips_are_skips(suite: pytest.Pytester) -> None:
    suite.makepyfile(SKIPS)
    suite.runpytest_subprocess().assert_outcomes(skipped=3, xfailed=1)


def test_strict_skips_fail_but_for_the_cassettes(suite: pytest.Pytester) -> None:
    suite.makepyfile(SKIPS)
    result = suite.runpytest_subprocess("--strict-skips")
    result.assert_outcomes(skipped=1, failed=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines(["*which --strict-skips forbids: no redis here*"])


def test_strict_skips_pass_over_what_a_machine_is_known_to_lack(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.makepyfile("import pytest\ndef test_skips(): pytest.skip('redis-server: no such program')")
    suite.runpytest_subprocess("--strict-skips").assert_outcomes(errors=0, failed=1)
    monkeypatch.setenv("RUBBERDUCK_MAY_LACK", "redis-server:")
    suite.runpytest_subprocess("--strict-skips").assert_outcomes(skipped=1)


def test_a_whole_module_that_skips_fails_too(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest; pytest.skip('no docker', allow_module_level=True)")
    result = suite.runpytest_subprocess("--strict-skips")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*which --strict-skips forbids: no docker*"])


def test_cassettes_are_found_by_the_variable_or_skipped_with_a_reason(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.makepyfile("def test_reads(cassettes): assert cassettes.is_dir()")
    monkeypatch.setenv("RUBBERDUCK_CASSETTES", str(suite.path))
    suite.runpytest_subprocess("--strict-skips").assert_outcomes(passed=1)
    monkeypatch.setenv("RUBBERDUCK_CASSETTES", "/nowhere")
    result = suite.runpytest_subprocess("--strict-skips", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*cassettes: no folder /nowhere*"])


def test_nothing_of_the_user_reaches_a_test(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "real")
    monkeypatch.setenv("RUBBERDUCK_CONFIG", "real.yaml")
    monkeypatch.setenv("XDG_STATE_HOME", "/real")
    suite.makepyfile(
        """
        import os

        def test_sees_nothing():
            assert not {"OPENAI_API_KEY", "RUBBERDUCK_CONFIG"} & os.environ.keys()
            assert os.environ["XDG_STATE_HOME"] != "/real"
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=1)
