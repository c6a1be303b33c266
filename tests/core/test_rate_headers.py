"""What response headers tell of rate limits, in both vendors' spellings, and that junk tells nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.rate_headers import Quota, parse_duration, parse_retry_after, read, seconds_until

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
OPENAI = ("requests", "tokens", "project-tokens")
ANTHROPIC = ("requests", "tokens", "input-tokens", "output-tokens")


@pytest.mark.parametrize("counted", OPENAI)
def test_openais_families_are_read(counted: str) -> None:
    headers = {
        f"X-RateLimit-Limit-{counted}": "500",
        f"x-ratelimit-remaining-{counted}": "499",
        f"x-ratelimit-reset-{counted}": "6m0s",
    }
    assert read(headers).quotas == ((counted.replace("-", "_"), Quota(500, 499, 360)),)


@pytest.mark.parametrize("counted", ANTHROPIC)
def test_anthropics_families_are_read_against_the_responses_own_date(counted: str) -> None:
    headers = {
        f"anthropic-ratelimit-{counted}-limit": "4000",
        f"anthropic-ratelimit-{counted}-remaining": "0",
        f"anthropic-ratelimit-{counted}-reset": "2026-10-21T07:28:12Z",
        "Date": DATE,
    }
    assert read(headers).by_name == {counted.removesuffix("-tokens"): Quota(4000, 0, 12)}


def test_headers_may_be_bytes_as_they_came() -> None:
    headers = {b"x-ratelimit-reset-tokens": "20µs".encode(), b"x-ratelimit-limit-tokens": b"9"}
    assert read(headers).by_name == {"tokens": Quota(9, None, pytest.approx(2e-5))}


@pytest.mark.parametrize("junk", ["-1", "", "nan", "1e5", "1_000", "٣", "unlimited", "9" * 400])
def test_a_number_that_is_none_is_none(junk: str) -> None:
    assert not read({"x-ratelimit-limit-tokens": junk, "x-ratelimit-remaining-tokens": junk})


def test_other_headers_tell_nothing() -> None:
    headers = {"x-ratelimit-limit-dogs": "1", "x-ratelimit-limit": "1", "anthropic-ratelimit-requests": "1", "a": "b"}
    assert read(headers).quotas == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1s", 1),
        ("1h2m3.5s", 3723.5),
        ("0s", 0),
        (".5s", 0.5),
        ("2.s", 2),
        ("5ns", 5e-9),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("7", None),
        ("-1s", None),
        ("+1s", None),
        ("1d", None),
        ("", None),
        ("s", None),
        ("1s2", None),
        ("1 s", None),
        ("٣s", None),
        ("1s" * 100, None),
    ],
)
def test_a_reset_is_a_go_duration(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("reset", "date", "seconds"),
    [
        ("2026-10-21T07:28:30Z", DATE, 30),
        ("2026-10-21T09:28:30.25+02:00", DATE, 30.25),
        ("2026-10-21t07:28:30.123456789z", DATE, 30.123456),
        ("2026-10-21T07:27:00Z", DATE, 0),
        ("2026-10-21T07:28:30Z", "", None),
        ("2026-10-21T07:28:30", DATE, None),
        ("2026-13-21T07:28:30Z", DATE, None),
        ("2026-10-21", DATE, None),
        ("12s", DATE, None),
    ],
)
def test_an_rfc_3339_reset_needs_the_date_of_the_response(reset: str, date: str, seconds: float | None) -> None:
    assert seconds_until(reset, date) == seconds


UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS))), min_size=1, max_size=6))
def test_durations_come_back_as_they_were_written(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(number * UNITS[unit] for number, unit in parts))


@given(st.integers(0, 4 * 10**9), st.integers(0, 10**6), st.integers(-14 * 60, 14 * 60))
def test_resets_come_back_from_any_time_zone(unix: int, seconds: int, minutes: int) -> None:
    at = datetime.fromtimestamp(unix, UTC)
    reset = at + timedelta(seconds=seconds)
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    local = (reset + timedelta(minutes=minutes)).replace(tzinfo=None).isoformat()
    date = f"{at:%a, %d %b %Y %H:%M:%S GMT}"
    assert seconds_until(f"{local}{sign}{hours:02}:{rest:02}", date) == seconds


NAMES = [f"x-ratelimit-{kind}-{counted}" for kind in ("limit", "remaining", "reset") for counted in OPENAI]
NAMES += [f"anthropic-ratelimit-{counted}-{kind}" for kind in ("limit", "remaining", "reset") for counted in ANTHROPIC]
NAMES += ["date", "retry-after", "retry-after-ms"]
SHAPES = st.from_regex(r"[0-9.:TZ+hmsnuµ-]{0,40}") | st.datetimes().map(lambda at: f"{at.isoformat()}Z")
TEXTS = st.text(max_size=60) | SHAPES | st.sampled_from([DATE, "Fri, 31 Dec 9999 23:59:59 -2359"])


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), TEXTS), st.booleans())
def test_no_header_whatsoever_raises(headers: dict[str, str], as_bytes: bool) -> None:
    raw = {name.encode("utf-8", "ignore"): value.encode("utf-8", "ignore") for name, value in headers.items()}
    for _, quota in read(raw if as_bytes else headers).quotas:
        for number in (quota.limit, quota.remaining, quota.reset):
            assert number is None or 0 <= number < float("inf")
    hint = parse_retry_after(headers, datetime(2026, 1, 1, tzinfo=UTC))
    assert hint is None or hint > 0


@given(st.dictionaries(st.sampled_from(NAMES).map(str.encode), st.binary(max_size=60)))
def test_no_bytes_whatsoever_raise(headers: dict[bytes, bytes]) -> None:
    read(headers)
