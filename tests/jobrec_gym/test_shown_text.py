import unicodedata

import pytest

from jobrec_gym.shown_text import MOST_LETTERS, as_text, without_commands


def test_what_a_screen_would_obey_is_spelt_and_breaks_are_spaces():
    assert as_text("Clerk\r\n\t\x1b[2J\u202eforged\x00") == "Clerk \\x1b[2J\\u202eforged\\x00"
    assert as_text("half \ud800") == "half \\ud800"
    assert as_text(" a \u2028\u2029\x85 b ") == "a b"


@pytest.mark.parametrize("text", ["Krankenschwester für Łódź", "看護師", "می‌خواهم", "👩‍🔬", "e\u0301", ""])
def test_what_people_write_stays_as_it_is(text):
    assert as_text(text) == text == without_commands(text)


def test_a_long_text_ends_in_an_ellipsis_however_it_is_made():
    assert as_text("x" * MOST_LETTERS) == "x" * MOST_LETTERS
    assert as_text("x" * (MOST_LETTERS + 1)) == "x" * MOST_LETTERS + "..."
    heaped = as_text(("a" + "\u0301" * 500) * 200)
    assert heaped.endswith("...") and len(heaped) < 30
    assert as_text("a\u0301\u0302\u0303\u0304b") == "a\u0301\u0302\u0303b"
    assert as_text("a b c", most=3) == "a b..."


def test_lines_stay_lines_where_a_text_has_several():
    assert without_commands("a\nb\x1b[0m\r\u202e") == "a\nb\\x1b[0m\\r\\u202e"


def test_no_letter_of_unicode_gets_through_that_commands():
    commands = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs")]
    through = [letter for letter in commands if letter in as_text(f"a{letter}b")]
    assert through == ["\u200c", "\u200d"]
