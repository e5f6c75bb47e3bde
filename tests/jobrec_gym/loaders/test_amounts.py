"""Amounts as people write them: what is read without doubt, and what is not."""

import math

import pytest

from jobrec_gym.loaders.amounts import Amount, amount_in, decimal_signs, number_in_text, period_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45.000 €", Amount(45_000, 45_000, "EUR")),
        ("€ 45.000,50", Amount(45_000.5, 45_000.5, "EUR")),
        ("45.000,- Euro", Amount(45_000, 45_000, "EUR")),
        ("45.000,-- EUR p.a.", Amount(45_000, 45_000, "EUR", "year")),
        ("45\u202f000\xa0€", Amount(45_000, 45_000, "EUR")),
        ("CHF 90'000\u2013110'000", Amount(90_000, 110_000, "CHF")),
        ("45000-52000", Amount(45_000, 52_000)),
        ("45.000 € - 52.000 € / Jahr", Amount(45_000, 52_000, "EUR", "year")),
        ("von 45.000 bis 52.000 eur", Amount(45_000, 52_000, "EUR")),
        ("ab 45.000", Amount(45_000, 45_000)),
        ("bis zu 45.000 €", Amount(45_000, 45_000, "EUR")),
        ("up to 45k", Amount(45_000, 45_000)),
        ("45-52k", Amount(45_000, 52_000)),
        ("45k-52k", Amount(45_000, 52_000)),
        ("45.000-52k", Amount(45_000, 52_000)),
        ("3,5k", Amount(3_500, 3_500)),
        ("45 T€", Amount(45_000, 45_000, "EUR")),
        ("45 TEUR", Amount(45_000, 45_000, "EUR")),
        ("45 Tsd. €", Amount(45_000, 45_000, "EUR")),
        ("3.200 € im Monat", Amount(3_200, 3_200, "EUR", "month")),
        ("3.200 € mtl.", Amount(3_200, 3_200, "EUR", "month")),
        ("45.000 € jährlich", Amount(45_000, 45_000, "EUR", "year")),
        ("15,50 €/Std.", Amount(15.5, 15.5, "EUR", "hour")),
        ("$15 an hour", Amount(15, 15, "$", "hour")),
        ("US$ 15", Amount(15, 15, "USD")),
    ],
)
def test_an_amount_is_read_with_its_currency_and_period(text, expected):
    assert amount_in(text, ",") == expected


def test_an_amount_is_read_by_the_given_decimal_sign():
    assert amount_in("EUR 45,000.00 per year", ".") == Amount(45_000, 45_000, "EUR", "year")
    assert amount_in("EUR 45,000.00 per year", ",") is None
    assert [amount_in("45.000 €", sign).low for sign in ".,"] == [45, 45_000]
    assert amount_in("1.234.567 €", ".") is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "n. V.",
            "€",
            "ab sofort",
            "",
            "45 km",
            "5 Jahre",
            "5 years",
            "35 h/week",
            "45.000 € brutto",
            "45 000 52 000",
        ),
        *("52-45k", "45k-52", "52000-45000", "45 € - 52 $", "45000 EUR XYZ", "2026-11-30", "5 kroner", "ab45", "-5"),
        *("45,000,50", "1,50,000", "9" * 400, "\u0664\u0665"),
    ],
)
def test_what_is_in_doubt_is_no_amount(text):
    assert [amount_in(text, sign) for sign in ".,"] == [None, None]


@pytest.mark.parametrize(
    ("text", "signs", "is_ambiguous"),
    [
        ("45.000 €", set(), True),
        ("45,000", set(), True),
        ("45000", set(), False),
        ("45 000", set(), False),
        ("1.234,5", {","}, False),
        ("1,234.5", {"."}, False),
        ("1.234.567", {","}, False),
        ("1,5", {","}, False),
        ("45.50", {"."}, False),
        ("1234.500", {"."}, False),
        ("0.500", {"."}, False),
        ("45.000,- €", {","}, False),
        ("50.000-60.000,50", {","}, True),
        ("n. V.", set(), False),
    ],
)
def test_a_number_may_show_its_decimal_sign(text, signs, is_ambiguous):
    assert decimal_signs(text) == (signs, is_ambiguous)


def test_a_number_has_its_thousands_in_groups_of_three():
    assert number_in_text(" 1.234.567,5 ", ",") == 1_234_567.5
    assert number_in_text("-2e3", ",") == -2_000
    for text in ("12.34", "1.2345", "45 €", ""):
        assert math.isnan(number_in_text(text, ","))


@pytest.mark.parametrize(
    ("text", "period"),
    [
        *(("HUR", "hour"), ("/Std.", "hour"), ("Per month", "month"), ("MONAT", "month"), ("p.a.", "year")),
        *(("pro Jahr", "year"), ("/yearly", "year"), ("A YEAR", "year"), ("daily", "day"), ("Woche", "week")),
        *(("once", None), ("per", None), ("", None)),
    ],
)
def test_a_period_is_known_in_many_forms(text, period):
    assert period_of(text) == period
