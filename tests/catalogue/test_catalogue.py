"""Which tests hold which fault of the catalogue; each of them looks at conduct, too (see `tests_upstreams_rig`)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ALL = [f"F{number:02}" for number in range(1, 40)]

TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "test_refused.py": {
        "test_a_429_with_a_hint_is_repeated_when_the_hint_says_and_not_before": ("F01",),
        "test_a_hint_of_two_seconds_is_waited_for_in_full": ("F01",),
        "test_what_is_refused_once_is_answered_by_a_repeat": ("F03", "F30"),
        "test_what_goes_on_being_refused_is_answered_by_the_fallback": ("F02", "F04", "F12", "F31", "F32"),
        "test_a_429_without_a_hint_is_repeated_once_and_not_at_once": ("F02",),
        "test_with_nobody_else_to_ask_the_error_is_the_providers_own": ("F02", "F04", "F12", "F31", "F32"),
        "test_a_used_up_account_is_left_for_the_account_of_another_key_and_not_asked_again": ("F31", "F32"),
        "test_with_all_accounts_used_up_each_key_is_tried_once_and_then_the_route_left_alone": ("F31", "F32"),
        "test_what_is_too_long_for_one_model_goes_on_to_larger_and_unknown_ones_only": ("F12",),
        "test_a_question_that_a_policy_refuses_is_asked_once_and_nobody_else": ("F13",),
        "test_an_answer_that_a_policy_ended_says_so_and_is_not_asked_for_again": ("F13",),
        "test_refusals_that_are_no_failures_count_for_no_breaker": ("F12",),
    },
    "test_silent.py": {
        "test_who_does_not_begin_in_time_is_asked_once_cut_and_replaced_by_the_fallback": ("F06", "F07"),
        "test_the_first_token_is_waited_for_ten_seconds_by_default": ("F06", "F07"),
        "test_silence_of_the_only_provider_ends_with_its_error_within_the_deadline": ("F06",),
        "test_a_stall_is_seen_in_the_idle_time_and_the_reader_told_what_came": ("F09",),
        "test_a_stall_of_an_answer_that_is_wanted_whole_is_made_good_by_the_fallback": ("F09",),
        "test_drops_that_are_no_content_do_not_keep_an_answer_waiting": ("F39",),
        "test_pings_after_some_output_are_no_progress_and_fifteen_seconds_of_them_end_the_stream": ("F09", "F39"),
        "test_a_trickle_of_less_than_a_token_a_second_is_cut_after_twenty_seconds": ("F39",),
        "test_a_trickle_of_two_words_a_second_is_left_to_come_to_its_end": ("F39",),
        "test_a_cancelled_call_closes_its_socket_at_once": ("F17",),
        "test_closing_a_stream_closes_its_socket_and_asks_nobody_else": ("F17",),
        "test_a_forgotten_stream_closes_its_socket": ("F17",),
        "test_a_deadline_that_comes_in_the_queue_is_told_on_time_and_nothing_is_sent": ("F18",),
        "test_a_deadline_that_comes_on_the_wire_is_told_on_time_and_the_money_is_uncertain": ("F18",),
    },
    "test_broken.py": {
        "test_a_line_that_drops_before_the_headers_is_answered_by_a_repeat": ("F05",),
        "test_what_is_no_http_is_left_for_the_fallback": ("F10",),
        "test_a_whole_answer_that_breaks_off_is_made_good_by_the_fallback": ("F08", "F10", "F28"),
        "test_a_stream_that_breaks_off_after_output_raises_with_what_came": ("F08", "F10", "F28"),
        "test_a_stream_that_breaks_off_before_any_output_is_answered_by_the_fallback": ("F08", "F10"),
        "test_a_fallback_that_refuses_prefill_is_asked_afresh": ("F14",),
        "test_a_stream_of_openai_without_done_is_whole_once_it_gave_its_reason": ("F11",),
        "test_a_stream_of_anthropic_without_message_stop_was_cut": ("F11",),
        "test_an_end_mark_that_does_not_come_is_awaited_for_two_seconds_at_most": ("F11",),
        "test_usage_that_does_not_come_is_estimated_and_the_answer_is_whole": ("F11",),
        "test_repeated_usage_counts_once_and_the_last_word_is_taken": ("F29",),
        "test_an_error_under_status_200_is_classified_by_its_type": ("F27", "F28"),
        "test_an_error_page_of_a_proxy_is_an_outage_told_in_a_short_excerpt": ("F30",),
        "test_characters_that_come_in_halves_are_put_together": ("F33",),
        "test_half_a_character_is_no_text": ("F33",),
        "test_a_compressed_answer_is_decoded": ("F34",),
        "test_a_compressed_answer_that_is_cut_or_none_is_made_good_by_the_fallback": ("F34",),
        "test_a_body_that_never_ends_is_stopped_at_16_mib": ("F38",),
        "test_text_that_never_ends_is_stopped_at_16_mib": ("F38",),
        "test_a_bomb_is_stopped_at_the_bound_of_decoded_bytes": ("F38",),
    },
    "test_policies.py": {
        "test_a_stream_that_is_held_back_to_its_end_is_made_good_by_the_fallback": ("F08", "F09", "F10", "F28"),
        "test_a_break_before_what_is_held_back_was_let_go_is_nobodys_but_ours": ("F08",),
        "test_a_break_after_what_was_held_back_was_let_go_is_raised_with_what_came": ("F08",),
        "test_a_broken_stream_is_continued_by_a_route_that_takes_it_up": ("F08", "F09", "F10", "F14"),
        "test_a_refused_prefill_never_reaches_the_caller": ("F14",),
    },
    "test_elsewhere.py": {
        "test_a_redirect_is_never_followed_and_the_fallback_answers": ("F35",),
        "test_a_server_that_speaks_no_tls_is_never_spoken_to_without": ("F36",),
        "test_a_certificate_that_nobody_vouches_for_gets_no_byte_of_the_request": ("F36",),
        "test_a_name_that_nobody_knows_is_left_for_the_fallback": ("F37",),
        "test_with_nobody_else_to_ask_the_error_says_that_nothing_was_sent": ("F37",),
    },
    "test_under_load.py": {
        "test_while_the_primary_is_down_only_probes_reach_it_and_afterwards_it_is_back_with_the_first_probe": ("F15",),
        "test_a_storm_of_calls_at_a_provider_that_fails_makes_few_repeats": ("F21",),
        "test_a_storm_of_calls_spares_each_of_two_providers_that_fail": ("F21",),
        "test_a_provider_that_fails_at_once_does_not_draw_the_traffic": ("F23",),
        "test_with_four_in_ten_requests_failing_nineteen_calls_in_twenty_are_answered": ("F24",),
        "test_a_provider_that_is_eight_times_slower_gets_little_and_delays_few": ("F25",),
        "test_a_provider_that_hangs_costs_few_calls_and_no_slots": ("F26",),
    },
    "test_books.py": {
        "test_an_answer_of_the_fallback_has_its_model_its_usage_and_its_price": ("F16",),
        "test_books_agree_where_both_are_flaky_and_some_calls_fail": ("F16", "F24"),
        "test_a_hundred_calls_at_once_never_spend_a_micro_dollar_more_than_there_is": ("F19",),
        "test_a_call_goes_on_while_an_actor_of_its_way_is_lost_and_nothing_is_sent_again": ("F20",),
        "test_a_call_whose_own_task_is_lost_is_told_so_and_its_money_shown_as_uncertain": ("F20",),
        "test_a_jump_of_the_clock_by_an_hour_changes_nothing": ("F22",),
        "test_a_hint_that_is_a_date_is_read_by_the_providers_clock": ("F22",),
        "test_the_clock_of_the_test_does_jump": ("F22",),
    },
    "test_failoverbench.py": {
        "test_the_caller_is_rescued_and_the_conduct_clean": (*ALL[:12], "F14", "F16"),
        "test_s13_a_refusal_by_content_policy_is_a_clean_error_after_one_request": ("F13",),
        "test_s15_a_flapping_primary_is_probed_left_alone_and_taken_back": ("F15",),
    },
}


@pytest.mark.parametrize("fault", ALL)
def test_no_fault_is_missing(fault: str) -> None:
    assert [name for tests in TABLE.values() for name, faults in tests.items() if fault in faults]


def test_the_table_names_every_test_there_is_and_no_other() -> None:
    files = {path.name: path for path in FOLDER.glob("test_*.py") if path != Path(__file__)}
    assert {name: set(names_in(path)) for name, path in files.items()} == {
        name: set(tests) for name, tests in TABLE.items()
    }
    assert {fault for tests in TABLE.values() for faults in tests.values() for fault in faults} <= set(ALL)


def names_in(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
