"""No image costs nothing, and none more than its rule's most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.image_tokens import _RULES, rule_for

sides = st.integers(1, 2**32)


@pytest.mark.parametrize("rule", dict.fromkeys(_RULES.values()), ids=str)
@given(st.tuples(sides, sides), st.sampled_from([None, "auto", "low", "high", "original"]))
def test_whatever_its_shape_an_image_costs_between_one_token_and_the_most(rule, size, detail):
    assert 1 <= rule.tokens(size, detail) <= rule.most
    assert rule.tokens(size, detail) == rule.tokens(size[::-1], detail)


def test_the_longest_known_name_decides():
    assert rule_for("gpt-4o-mini-2024-07-18") == rule_for("openai/gpt-4o-mini") != rule_for("gpt-4o")
    assert rule_for("ft:gpt-4o:acme") == rule_for("unheard-of") == rule_for("gpt-4o")
    assert rule_for("claude-opus-4-8") != rule_for("claude-opus-4-5")
