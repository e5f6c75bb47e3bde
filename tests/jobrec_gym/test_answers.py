import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrec_gym.simulators.answers import parse_decision, parse_probability
from jobrec_gym.simulators.cache import KEPT_STATUSES


def choice(content, finish="stop", tokens=None, **message):
    logprobs = None
    if tokens is not None:
        logprobs = {
            "content": [
                {"token": token, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()]}
                for token, top in tokens
            ]
        }
    return {"message": {"content": content, **message}, "finish_reason": finish, "logprobs": logprobs}


def decision(word, reason="fits"):
    return choice(json.dumps({"reason": reason, "decision": word}))


@pytest.mark.parametrize("word", ["apply", "save", "click", "ignore"])
def test_each_word_of_the_set_is_a_decision(word):
    answer = parse_decision(decision(word))
    assert (answer.status, answer.decision, answer.reason) == ("ok", word, "fits")


@pytest.mark.parametrize(
    "word", ["Not APPLY", "IGNORE, not APPLY", "SAVE - worth a second look", "APPLY", "apply ", "", "not apply"]
)
def test_a_word_outside_of_the_set_is_never_read_as_one_within(word):
    answer = parse_decision(decision(word))
    assert (answer.status, answer.decision) == ("foreign_word", "")


@pytest.mark.parametrize("text", ["Not APPLY", "IGNORE, not APPLY", "SAVE - worth a second look", "", None, "{"])
def test_free_text_is_bad_json(text):
    for parse in (parse_decision, parse_probability):
        assert parse(choice(text)).status == "bad_json"


@pytest.mark.parametrize(
    "content",
    [
        '"apply"',
        "[]",
        '{"decision": "apply"}',
        '{"reason": "", "decision": "apply", "score": "1"}',
        '{"reason": "", "decision": 1}',
    ],
)
def test_another_shape_is_a_wrong_schema(content):
    assert parse_decision(choice(content)).status == "wrong_schema"


def test_a_reason_that_is_too_long_is_cut():
    answer = parse_decision(decision("save", reason="x" * 2_000))
    assert (answer.status, answer.decision, answer.reason) == ("ok", "save", "x" * 200)


@pytest.mark.parametrize(
    "fence",
    [
        "```json\n{}\n```",
        "```\n{}\n```",
        "\n ``` JSON \n{}\n ``` \n",
        "```json {}```",
        "```json{}```",
        "```{}```",
        "~~~json\n{}\n~~~",
        "~~~{}~~~",
        "````json\n{}\n````",
        "Here it is:\n```json\n{}\n```",
        "Here it is: ```{}```",
    ],
)
def test_json_in_a_fence_is_read(fence):
    for text, parse in (
        ('{"reason": "fits", "decision": "save"}', parse_decision),
        ('{"apply": "Yes"}', parse_probability),
    ):
        assert parse(choice(fence.replace("{}", text))).status in ("ok", "no_logprobs")
    assert parse_decision(choice(fence.replace("{}", "save"))).status == "bad_json"


@pytest.mark.parametrize(
    "around",
    [
        "```json\n{}\n``` Hope it helps!",
        "```json\n{}\n~~~",
        "```json\n{}\n```\n```json\n{}\n```",
        "I would never say this.\n```json\n{}\n```",
        "One line.\nHere it is:\n```json\n{}\n```",
        "Here it is: {}",
    ],
)
def test_a_fence_with_other_words_around_it_is_not_read(around):
    answer = parse_decision(choice(around.replace("{}", '{"reason": "", "decision": "save"}')))
    assert (answer.status, answer.decision) == ("bad_json", "")


def test_the_reading_of_a_long_answer_takes_no_longer_than_its_length():
    for letter in (" ", "`", "~", "a", ":", "``` ", "a:\n"):
        assert parse_decision(choice("```" + letter * 300_000 + "x")).status == "bad_json"


@pytest.mark.parametrize(
    "page", ["<html>502 Bad gateway</html>", "\n<!DOCTYPE html>\n<title>502</title>", "<HEAD><title>", "<body class=x>"]
)
def test_a_web_page_in_place_of_an_answer_is_not_kept(page):
    answer = parse_decision(choice(page))
    assert (answer.status, answer.kept) == ("bad_json", False)
    assert parse_decision(choice("<heading> " + page)).kept


def test_the_reason_of_a_cut_answer_names_the_limit_that_was_given():
    for parse in (parse_decision, parse_probability):
        cut = parse(choice("{", finish="length"), "max_completion_tokens")
        assert "raise `sampling.max_completion_tokens`" in cut.reason


@pytest.mark.parametrize(
    ("broken", "status", "reason", "kept"),
    [
        (
            choice('{"reason": "", "decision": "save"} Hope it helps!'),
            "bad_json",
            r"what came: \{.*Hope it helps!",
            False,
        ),
        (choice('Sure: {"reason": "", "decision": "save"}'), "bad_json", "what came: Sure", False),
        (choice("I would save it " * 50), "bad_json", r"^what came: I would save it .{100,120}\.\.\.$", True),
        (choice(None, reasoning_content="Let me think."), "bad_json", "only 13 characters of reasoning", False),
        (choice("", reasoning="Let me think."), "bad_json", "only 13 characters of reasoning", False),
        (choice("  "), "bad_json", "no content came|what came", False),
        (
            choice(None, finish="length", reasoning_content="Let"),
            "truncated",
            r"`sampling\.max_tokens`.* 3 char",
            False,
        ),
        (choice('{"reason": "it', finish="length"), "truncated", r"`sampling\.max_tokens`.*what came: \{", True),
        (choice('{"reason": "", "decision": "buy"}'), "foreign_word", "what came: .*buy", True),
        (choice('{"decision": 1}'), "wrong_schema", "what came", True),
        (choice([1]), "bad_json", "what came", False),
    ],
)
def test_a_failure_says_what_came_and_is_kept_unless_a_change_of_the_server_mends_it(broken, status, reason, kept):
    answer = parse_decision(broken)
    assert (answer.status, answer.kept) == (status, kept)
    assert re.search(reason, answer.reason) and len(answer.reason) < 300


def test_an_answer_without_token_probabilities_is_not_kept_and_one_with_others_is():
    assert not parse_probability(choice('{"apply": "Yes"}')).kept
    other = parse_probability(choice('{"apply": "Yes"}', tokens=[('{"apply":"', {}), ("Yes", {"Maybe": 1.0})]))
    assert (other.status, other.kept) == ("no_logprobs", True)
    assert re.search("neither Yes nor No .* what came: .*Yes", other.reason)


@pytest.mark.parametrize(
    ("logprobs", "reason"),
    [
        ({"content": []}, "no alternatives"),
        ({"content": None}, "no alternatives"),
        ({"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": [{"Yes": -0.1}]}, "no alternatives"),
        ({"content": [{"token": '{"apply": "'}, {"token": "Yes", "top_logprobs": []}, {"token": '"}'}]}, "no alternat"),
        ({"content": [{"token": '{"apply": "'}, {"token": "Yes", "top_logprobs": [{"token": "Yes"}]}]}, "another form"),
        ([0.1], "another form"),
    ],
)
def test_a_server_that_leaves_out_the_alternatives_is_named_and_may_be_asked_again(logprobs, reason):
    answer = parse_probability(choice('{"apply": "Yes"}') | {"logprobs": logprobs})
    assert (answer.status, answer.kept) == ("no_logprobs", False)
    assert re.search(f"the server sent .*{reason}.*; what came: .*Yes", answer.reason)


def test_what_a_model_says_comes_without_keys():
    key = "sk-proj-AbCdEf0123456789abcdef"
    for said in (decision("save", key), choice(key), choice(None, refusal=key), choice(key, finish="length")):
        assert key not in parse_decision(said).reason and "***" in parse_decision(said).reason


def test_half_a_character_can_be_written_down():
    for said in (choice('{"reason": "\ud800", "decision": "save"}'), choice("\ud800"), choice(None, refusal="\ud800")):
        parse_decision(said).reason.encode()


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    content=json_like | st.text().map(lambda text: f'{{"apply": "Yes"}} {text}'), finish=json_like, logprobs=json_like
)
def test_no_content_breaks_the_reading(content, finish, logprobs):
    for parse in (parse_decision, parse_probability):
        answer = parse({"message": {"content": content}, "finish_reason": finish, "logprobs": logprobs})
        assert answer.status in KEPT_STATUSES and len(answer.reason) < 300


def test_a_refusal_and_a_cut_are_told_apart_from_an_answer():
    whole = '{"reason": "", "decision": "apply"}'
    assert parse_decision(choice(None, refusal="I cannot")).status == "refusal"
    assert parse_decision(choice(whole, finish="content_filter")).status == "refusal"
    assert parse_decision(choice(whole[:-1], finish="length")).status == "truncated"
    assert parse_decision(choice('{"decision": "apply"}', finish="length")).status == "truncated"


def test_a_whole_answer_counts_though_blanks_after_it_used_up_the_limit():
    answer = parse_decision(choice('{"reason": "fits", "decision": "apply"}\n\n\n', finish="length"))
    assert (answer.status, answer.decision) == ("ok", "apply")
    tokens = [('{"apply":"', {}), ("Yes", YES_NO), ('"}', {}), ("\n\n\n", {})]
    answer = parse_probability(choice('{"apply":"Yes"}\n\n\n', finish="length", tokens=tokens))
    assert (answer.status, answer.probability) == ("ok", pytest.approx(0.75))


YES_NO = {"Yes": 0.6, "No": 0.2, "Maybe": 0.2}


@pytest.mark.parametrize(
    "tokens",
    [
        [('{"', {}), ("apply", {}), ('":"', {}), ("Yes", YES_NO), ('"}', {})],
        [('{"apply', {}), ('": "', {}), ("Yes", YES_NO), ('"}', {})],
        [('{"apply":', {}), (' "Yes', {f' "{word}': p for word, p in YES_NO.items()}), ('"}', {})],
        [("{", {}), ('"apply"', {}), (" :", {}), ('"', {'"': 1.0}), ("Yes", YES_NO), ('"', {}), ("}", {})],
    ],
)
def test_the_probability_is_read_where_the_value_begins_however_it_is_cut(tokens):
    content = "".join(token for token, _ in tokens)
    answer = parse_probability(choice(content, tokens=tokens))
    assert answer.status == "ok"
    assert answer.probability == pytest.approx(0.75)


def test_spellings_of_one_word_count_together():
    top = {"Yes": 0.3, " Yes": 0.3, "No": 0.2, "YES": 0.1, "Not": 0.1}
    tokens = [('{"apply":"', {}), ("Yes", top), ('"}', {})]
    assert parse_probability(choice('{"apply":"Yes"}', tokens=tokens)).probability == pytest.approx(0.75)


@pytest.mark.parametrize("tokens", [None, [], [('{"apply":"', {}), ("Yes", {}), ('"}', {})]])
def test_without_token_probabilities_there_is_no_probability(tokens):
    answer = parse_probability(choice('{"apply":"Yes"}', tokens=tokens))
    assert answer.status == "no_logprobs" and math.isnan(answer.probability)


@pytest.mark.parametrize("word", ["Yes!", "yes", "Maybe", "No, not Yes"])
def test_an_answer_that_is_neither_yes_nor_no_is_a_foreign_word(word):
    assert parse_probability(choice(json.dumps({"apply": word}))).status == "foreign_word"
