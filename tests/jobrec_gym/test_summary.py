"""What a market says was understood of its source."""

import pickle

from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.loaders.assembly import Record, assemble_market
from jobrec_gym.market import load_market


class Reading(HashingEncoder):
    """Reads the first four words of a text."""

    max_tokens = 4

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


JOBS = [
    Record(
        "j1", "Analyst", ("SQL", "Python", "R", "Excel", "Go", "Rust", "C"), ("patience",), 4, description="x" * 1200
    ),
    Record("j2", "Cook", ("grilling",)),
]
PEOPLE = [Record(f"p{n}", hard=("SQL", "Python"), soft=("calm",)) for n in range(10)]


def made(jobs=JOBS, **options):
    return assemble_market("own", PEOPLE, jobs, **{"encoder": "hashing", **options})


def test_five_lines_say_what_was_understood():
    assert made(left_out=["3 jobs without skills"]).summary().split("\n") == [
        "own: 2 jobs (1 train, 1 test); 10 applicants (7 train, 3 test)",
        "skills a row: jobs 4.0 hard (1 to 7) and 0.5 soft (0 to 1); applicants 2.0 hard (2 to 2) "
        "and 1.0 soft (1 to 1)",
        "left out: 3 jobs without skills",
        "cut: nothing",
        "first of the jobs: 'j1'; Analyst; senior; hard: C, Excel, Go, Python, R and 2 more; soft: patience; "
        "described in 1,200 characters",
    ]


def test_texts_that_are_encoded_in_pieces_are_counted():
    text = "This is a text of some nine words, not four. " * 20
    market = made([Record("j1", hard=text)], encoder=Reading())
    assert market.summary().split("\n")[1].startswith("skills a row: jobs hard one free text of about 899 characters")
    assert market.cut == ("1 of 4 texts, which are encoded in pieces",)
    assert "cut: 1 of 4 texts, which are encoded in pieces" in market.summary()


def test_a_saved_and_a_pickled_market_say_the_same(tmp_path):
    market = made(left_out=["3 jobs without skills"], encoder=Reading())
    assert market.save(tmp_path / "market").summary() == market.summary()
    assert load_market(tmp_path / "market").left_out == ("3 jobs without skills",)
    assert pickle.loads(pickle.dumps(market)).summary() == market.summary()
    assert market.fingerprint() == made(encoder=Reading()).fingerprint()


def test_no_line_holds_what_a_terminal_would_obey():
    market = made([Record("j\x1b[31m1", "Cook\r\n\u202eforged" + "x" * 500, ("gri\nlling",))])
    lines = market.summary().split("\n")
    assert len(lines) == 5
    assert all(line.isprintable() and len(line) < 250 for line in lines)
