from hypothesis import given
from hypothesis import strategies as st

from jobrec_gym.pieces import first_sentences, windows


def count_words(texts):
    return [len(text.split()) for text in texts]


def count_letters(texts):
    return [len(text) for text in texts]


def test_a_text_that_fits_is_its_own_window():
    assert windows("  One two.  Three. ", count_words, 3) == ["  One two.  Three. "]


def test_white_space_alone_is_one_empty_window():
    assert windows(" \n" * 9, count_letters, 4) == [""]


def test_windows_end_with_sentences_where_these_fit():
    text = "One two three. Four five! Six\nseven eight nine\nten"
    assert windows(text, count_words, 5) == ["One two three. Four five!", "Six\nseven eight nine\nten"]


def test_windows_are_of_about_equal_length():
    text = " ".join(f"Word{n}." for n in range(9))
    assert [len(window.split()) for window in windows(text, count_words, 8)] == [5, 4], "and not 8 and 1"


def test_a_sentence_that_is_too_long_is_cut_between_words_and_a_word_within():
    assert windows("one two three four five", count_words, 2) == ["one two", "three four", "five"]
    assert windows("x" * 10, count_letters, 4) == ["xx", "xxx", "xx", "xxx"]
    assert windows("一二三。四五六。", count_letters, 4) == ["一二三。", "四五六。"]


@given(st.text(max_size=200), st.integers(1, 20))
def test_windows_fit_and_lose_no_letter(text, limit):
    found = windows(text, count_letters, limit)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(window) <= limit for window in found)


@given(st.text(max_size=100), st.integers(1, 60))
def test_first_sentences_are_a_beginning_of_bounded_length(text, length):
    found = first_sentences(text, length)
    assert len(found) <= length
    assert text.startswith(found)
    assert len(text) > length or found == text


def test_a_long_row_of_blanks_does_not_take_minutes():
    text = "One." + " " * 300_000 + "Two.\nThree."
    assert windows(text, count_words, 2) == ["One." + " " * 300_000 + "Two.", "Three."]
    assert first_sentences("One, two" + " " * 300_000 + "\nThree four", 300_010) == "One, two" + " " * 300_000 + "\nT"


def test_a_text_is_cut_behind_a_sentence_else_behind_a_word():
    assert first_sentences("We bake. We sell what we bake.", 20) == "We bake. We sell"
    assert first_sentences("We bake bread. We sell what we bake.", 20) == "We bake bread."
    assert first_sentences("Tasks:\n- bake\n- sell bread", 14) == "Tasks:\n- bake"
    assert first_sentences("一二三。四五。六", 6) == "一二三。", "and not one letter more"
    for mark in "।॥؟۔։።။។":  # noqa: RUF001
        assert first_sentences(f"ab cd{mark} ef gh", 9) == f"ab cd{mark}", "marks of other scripts end a sentence too"
    assert first_sentences("x" * 30, 20) == "x" * 20
    assert first_sentences("Cost 3.5 and more of it", 12) == "Cost 3.5 and", "a full stop within a number ends nothing"
