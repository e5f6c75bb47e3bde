"""Amounts as people write them: what is read without doubt, and what is not."""

import math

import pytest

from jobrec_gym.loaders.amounts import (
    Amount,
    RangeInDoubt,
    amount_in,
    is_net,
    number_in_text,
    period_of,
    signs_of,
    unit_differs,
)


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
        ("45.000 € p. a.", Amount(45_000, 45_000, "EUR", "year")),
        ("3.200 brutto", Amount(3_200, 3_200)),
        ("3.200 € brutto/Monat", Amount(3_200, 3_200, "EUR", "month")),
        ("3.200 € mtl. brutto", Amount(3_200, 3_200, "EUR", "month")),
        ("45 kEUR", Amount(45_000, 45_000, "EUR")),
        *((f"45.000{dash}52.000 €", Amount(45_000, 52_000, "EUR")) for dash in "-\u2011\u2012\u2013\u2014\u2212"),
        ("45.000.-", Amount(45_000, 45_000)),
        ("Fr. 5'000.\u2013/Monat", Amount(5_000, 5_000, "CHF", "month")),
        ("800 - 1.200 €/Monat", Amount(800, 1_200, "EUR", "month")),
        ("36-40 €/h", Amount(36, 40, "EUR", "hour")),
        ("12,50-14,00", Amount(12.5, 14)),
        ("0-2.000", Amount(0, 2_000)),
        ("0-45k", Amount(0, 45_000)),
        ("15,50 €/Std.", Amount(15.5, 15.5, "EUR", "hour")),
        ("$15 an hour", Amount(15, 15, "$", "hour")),
        ("45.000 gross p.a.", Amount(45_000, 45_000, "", "year")),
        ("45.000 \u20ac (brutto)", Amount(45_000, 45_000, "EUR")),
        ("45k\u20ac brut annuel", Amount(45_000, 45_000, "EUR", "year")),
        ("45.000 \u20ac brutos al a\u00f1o", Amount(45_000, 45_000, "EUR", "year")),
        ("45.000 \u20ac al an\u0303o", Amount(45_000, 45_000, "EUR", "year")),
        ("2.000 \u20ac lordi al mese", Amount(2_000, 2_000, "EUR", "month")),
        ("3.000 \u20ac p.m.", Amount(3_000, 3_000, "EUR", "month")),
        ("35 000 \u00e0 40 000 \u20ac", Amount(35_000, 40_000, "EUR")),
        ("de 35 000 a\u0300 40 000 \u20ac", Amount(35_000, 40_000, "EUR")),
        ("30.000 a 40.000 \u20ac", Amount(30_000, 40_000, "EUR")),
        ("between 30k and 40k", Amount(30_000, 40_000)),
        ("$ 120.000+", Amount(120_000, 120_000, "$")),
        ("120k + per year", Amount(120_000, 120_000, "", "year")),
        ("US$ 15", Amount(15, 15, "USD")),
    ],
)
def test_an_amount_is_read_with_its_currency_and_period(text, expected):
    assert amount_in(text, ",") == expected


@pytest.mark.parametrize(("text", "says_so"), [("45k net", True), ("2.500 netto/Monat", True), ("45k .Network", False)])
def test_net_pay_is_known_by_its_word(text, says_so):
    assert is_net(text) is says_so


def test_an_amount_is_read_by_the_given_decimal_sign():
    assert amount_in("EUR 45,000.00 per year", ".") == Amount(45_000, 45_000, "EUR", "year")
    assert amount_in("EUR 45,000.00 per year", ",") is None
    assert [amount_in("45.000 €", sign).low for sign in ".,"] == [45, 45_000]
    assert amount_in("1.234.567 €", ".") is None
    assert amount_in("45,000,-", ".") == Amount(45_000, 45_000)


@pytest.mark.parametrize("text", ["45.000.-", "Fr. 45.000.-", "45.000,-", "40.000-45.000,-"])
def test_a_number_with_a_dash_for_its_decimals_has_no_others(text):
    assert amount_in(text, ",") is not None
    assert amount_in(text, ".") is None


@pytest.mark.parametrize(
    "text", ["45-52.000 €", "40 - 45.000€", "3-4.500 €", "45-52000", "50-45.000 €", "45 bis 52.000"]
)
def test_a_range_that_is_short_for_thousands_is_refused_with_both_spellings(text):
    with pytest.raises(RangeInDoubt, match=r"short for thousands: .* `45\.000-52\.000`, .* `45-52k`"):
        amount_in(text, ",")


@pytest.mark.parametrize("text", ["10-2026", "01-12", "36-40", "36 bis 40", "100 \u2013 120"])
def test_a_range_of_small_whole_numbers_says_what_it_is_in(text):
    with pytest.raises(
        RangeInDoubt, match="may be a range, a date or short .* or say what they are in, such as `12-15 €/h`"
    ):
        amount_in(text, ",")


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
            "45.000 € netto",
            "45 000 52 000",
            "45-52k+",
            "45k + bonus",
        ),
        *("52-45k", "45k-52", "52000-45000", "45 € - 52 $", "45000 EUR XYZ", "2026-11-30", "5 kroner", "ab45", "-5"),
        *("45,000,50", "1,50,000", "9" * 400, "\u0664\u0665"),
    ],
)
def test_what_is_in_doubt_is_no_amount(text):
    assert [amount_in(text, sign) for sign in ".,"] == [None, None]


@pytest.mark.parametrize(
    ("text", "decimal", "in_doubt"),
    [
        *(("45.000 €", "", "."), ("45,000", "", ","), ("45000", "", ""), ("45 000", "", "")),
        *(("1.234,5", ",", ""), ("1,234.5", ".", ""), ("1.234.567", ",", ""), ("1,5", ",", ""), ("45.50", ".", "")),
        *(("1234.500", ".", ""), ("0.500", ".", ""), ("50.000-60.000,50", ",", "."), ("45,000-52.000", "", ".,")),
        *(("45.000,- €", ",", ""), ("45.000.-", ",", ""), ("45,000,-", ".", ""), ("45,000.-", ".", "")),
        *(("5000,-", ",", ""), ("5000.-", "", ""), ("n. V.", "", "")),
    ],
)
def test_a_number_may_show_its_decimal_sign(text, decimal, in_doubt):
    assert signs_of(text) == (set(decimal), set(in_doubt), False)


@pytest.mark.parametrize("text", ["3,5k", "3,5 T€", "3,5 Tsd. €", "3,5 TEUR", "3,5 kEUR", "3-3,5k", "3,5k-4.000"])
def test_a_number_says_that_it_is_in_thousands(text):
    assert signs_of(text).is_in_thousands


@pytest.mark.parametrize(
    ("what", "one", "other", "differs"),
    [
        *(("currency", "EUR", "CHF", True), ("currency", "EUR", "", False), ("currency", "", "", False)),
        *(("period", "hour", "", True), ("period", "", "year", False), ("period", "hour", "hour", False)),
    ],
)
def test_a_unit_that_is_not_named_may_be_compared(what, one, other, differs):
    assert unit_differs(what, one, other) is unit_differs(what, other, one) is differs


def test_a_number_has_its_thousands_in_groups_of_three():
    assert number_in_text(" 1.234.567,5 ", ",") == 1_234_567.5
    assert number_in_text("-2e3", ",") == -2_000
    for text in ("12.34", "1.2345", "45 €", "", "45.000 345", "1 234.567", "1.234'567"):
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
