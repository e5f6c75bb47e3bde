import json
import math

import pytest

from jobrec_gym.simulators.answers import parse_decision, parse_probability


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
        json.dumps({"reason": "x" * 201, "decision": "apply"}),
    ],
)
def test_another_shape_is_a_wrong_schema(content):
    assert parse_decision(choice(content)).status == "wrong_schema"


def test_a_refusal_and_a_cut_are_told_apart_from_an_answer():
    whole = '{"reason": "", "decision": "apply"}'
    assert parse_decision(choice(None, refusal="I cannot")).status == "refusal"
    assert parse_decision(choice(whole, finish="content_filter")).status == "refusal"
    assert parse_decision(choice(whole, finish="length")).status == "truncated"


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
