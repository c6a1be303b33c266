"""From when on an answer that is held back may go to its reader."""

from __future__ import annotations

from rubberduck.core.release import Release, StreamPolicy


def test_held_to_its_end_nothing_ever_goes_before() -> None:
    release = Release(StreamPolicy("buffer"))
    assert not any(release.allows(100.0, float(now)) for now in range(1000))


def test_held_for_a_number_of_tokens_it_goes_with_the_chunk_that_completes_them() -> None:
    release = Release(StreamPolicy("buffer", tokens=20))
    assert [release.allows(8.0, 0.0) for _ in range(4)] == [False, False, True, True]


def test_held_for_a_time_it_goes_with_the_first_chunk_after_it_counted_from_the_first_of_all() -> None:
    release = Release(StreamPolicy("buffer", seconds=2))
    assert [release.allows(1.0, now) for now in (100.0, 101.0, 101.999, 102.0)] == [False, False, False, True]


def test_a_policy_says_what_it_does() -> None:
    assert [(each.holds_back, each.continues) for each in map(StreamPolicy, ("error", "buffer", "continue"))] == [
        (False, False),
        (True, False),
        (False, True),
    ]
