"""Files of rows: found, unpacked, decoded and cut, whatever they are called."""

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrec_gym.loaders import reading
from jobrec_gym.loaders.reading import Reading, csv_blocks, json_rows, kind_of, read_sides, read_table
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market import MarketError

ROWS = [{"key": "1", "hard": "a;b"}, {"key": "2", "hard": "c, d"}]
CSV = b'key,hard\n1,a;b\n2,"c, d"\n'


def zipped(data, *names):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("jobs.csv",):
            archive.writestr(name, data)
    return made.getvalue()


def zstd(data):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    return pyarrow.compress(data, codec="zstd", asbytes=True)


PACKERS = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped, "zstd": zstd}


@pytest.fixture
def rows_of(tmp_path):
    """Writes a file and reads its rows."""

    def rows_of(data, name="jobs.csv", **options):
        file = tmp_path / name
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        return [row for _, row in read_table(file, Reading(**options)).rows]

    return rows_of


# ---- packed files


@pytest.mark.parametrize("pack", PACKERS)
def test_a_packed_file_is_known_by_its_content_whatever_it_is_called(rows_of, pack):
    assert rows_of(PACKERS[pack](CSV)) == ROWS
    assert rows_of(PACKERS[pack](json.dumps(ROWS).encode()), "jobs.json") == ROWS
    assert rows_of(CSV, "jobs.csv.gz") == ROWS, "an ending alone makes no archive"


@pytest.mark.parametrize("pack", PACKERS)
def test_what_unpacks_to_more_than_allowed_is_refused_with_the_way_out(rows_of, pack):
    data = PACKERS[pack](b"key,hard\n" + b"1,aaaa\n" * 100_000)
    with pytest.raises(MarketError, match=r"jobs\.csv unpacks to more than 97\.7 KiB: say `max_bytes=400000` or more"):
        rows_of(data, max_bytes=100_000)
    assert len(rows_of(data, max_bytes=800_000)) == 100_000


def test_a_file_that_is_not_packed_has_no_bound(rows_of):
    assert rows_of(CSV, max_bytes=5) == ROWS


def test_zstd_without_pyarrow_says_what_to_install(rows_of, monkeypatch):
    data = zstd(CSV)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'jobs\.csv is packed by zstd.*pip install -e ".+\[data\]"'):
        rows_of(data)


def broken_zip(place, value):
    data = bytearray(zipped(CSV))
    directory = data.rindex(b"PK\x01\x02")
    data[place], data[directory + place + 2] = value, value
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(CSV)[:-9],
        gzip.compress(CSV)[:12] + b"\xff" * 20,
        bz2.compress(CSV)[:-9],
        lzma.compress(CSV)[:-9],
        broken_zip(6, 1),  # encrypted
        broken_zip(8, 99),  # packed by nobody knows what
        zipped(CSV)[:40] + b"\xff" * 4 + zipped(CSV)[44:],
        zipped(CSV)[:60],
    ],
    # gzip writes the time: data as names would make other tests in each process.
    ids=[
        "gzip cut",
        "gzip changed",
        "bz2 cut",
        "xz cut",
        "zip encrypted",
        "zip by no method",
        "zip changed",
        "zip cut",
    ],
)
def test_a_broken_or_encrypted_archive_is_named(rows_of, data):
    with pytest.raises(MarketError, match=r"jobs\.csv cannot be read: "):
        rows_of(data)


def test_an_archive_of_several_files_names_them(rows_of):
    with pytest.raises(MarketError, match=r"holds 2 files \('a\.csv', 'b\.csv'\), expected one: unpack the archive"):
        rows_of(zipped(CSV, "a.csv", "b.csv"), "jobs.csv.zip")
    assert rows_of(zipped(CSV, "in/a.csv", "__MACOSX/in/._a.csv"), "jobs.csv.zip") == ROWS
    assert rows_of(zipped(CSV, "in/a.csv", "in/.DS_Store"), "jobs.csv.zip") == ROWS


def test_a_packed_file_in_a_packed_file_is_named(rows_of):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("jobs.csv"))
    for data, kind in (
        (gzip.compress(gzip.compress(CSV)), "gzip"),
        (zipped(zipped(CSV)), "zip"),
        (archive.getvalue(), "tar"),
    ):
        with pytest.raises(MarketError, match=rf"jobs\.csv holds another packed file \({kind}\): unpack it"):
            rows_of(data)
    with pytest.raises(MarketError, match=r"jobs\.csv holds a PDF"):
        rows_of(gzip.compress(b"%PDF-1.7\n"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(b"x", "xl/workbook.xml", "b"), "is a document of Office: save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "is a workbook of Excel: save the sheet as CSV"),
        (b"PAR1....PAR1", r"is a Parquet file: name it 'parquet:.*jobs\.csv'"),
        (b"%PDF-1.7\n", "is a PDF"),
    ],
)
def test_what_is_no_text_is_named(rows_of, data, message):
    with pytest.raises(MarketError, match=message):
        rows_of(data)


# ---- encodings

GERMAN = "key,hard\n1,Schweißen\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["jobs.csv", "jobs.json"])
def test_a_byte_order_mark_says_the_encoding(rows_of, encoding, name):
    text = GERMAN if name == "jobs.csv" else '[{"key": "1", "hard": "Schweißen"}]'
    assert rows_of(text.encode(encoding), name) == [{"key": "1", "hard": "Schweißen"}]
    assert rows_of(text.encode(encoding), name, encoding="utf-8") == [{"key": "1", "hard": "Schweißen"}]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "utf_8"])
def test_another_encoding_is_an_argument(rows_of, encoding):
    assert rows_of(GERMAN.encode(encoding), encoding=encoding)[0]["hard"] == "Schweißen"


@pytest.mark.parametrize(
    ("word", "encoding", "guess"),
    [
        ("Schweißen", "cp1252", r"cp1252 \('Schweißen'\)"),
        ("сварка", "cp1251", r"cp1251 \('сварка'\)"),
        ("溶接", "shift_jis", r"shift_jis \('溶接'\)"),
    ],
)
def test_what_is_not_utf_8_names_the_line_and_how_it_would_read_in_likely_encodings(rows_of, word, encoding, guess):
    lines = "key,hard\n" + "1,a\n" * 50_000 + f"2,{word}\n"
    with pytest.raises(MarketError, match=rf"jobs\.csv, near line 50002: not UTF-8.*{guess}.*say e\.g\. `encoding="):
        rows_of(lines.encode(encoding))


def test_utf_16_without_a_mark_is_recognised(rows_of):
    with pytest.raises(MarketError, match="looks like UTF-16 without a byte order mark: say `encoding='utf-16-le'`"):
        rows_of(GERMAN.encode("utf-16-le"))
    with pytest.raises(MarketError, match="say `encoding='utf-16-be'`"):
        rows_of(GERMAN.encode("utf-16-be"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "latin-17"}, "`encoding` must be the name of an encoding such as 'cp1252', got 'latin-17'"),
        ({"encoding": "base64"}, "`encoding` must be the name of an encoding"),
        ({"encoding": 1252}, "`encoding` must be the name of an encoding such as 'cp1252', got 1252"),
        ({"delimiter": ";;"}, "`delimiter` must be one character.*got ';;'"),
        ({"max_bytes": 0}, "`max_bytes` must be a whole number of at least 1, got 0"),
        ({"max_bytes": "1 GB"}, "`max_bytes` must be a whole number of at least 1, got '1 GB'"),
    ],
)
def test_options_are_checked_where_they_enter(options, message):
    with pytest.raises(MarketError, match=message):
        Reading(**options)


# ---- delimiters


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_found_whatever_ends_a_line(rows_of, delimiter, end):
    text = end.join([f"key{delimiter}hard", f"1{delimiter}a", "", f'2{delimiter}"b{delimiter}c{end}d"', ""])
    expected = [{"key": "1", "hard": "a"}, {"key": "2", "hard": f"b{delimiter}c{end}d"}]
    assert rows_of(text) == rows_of(text, delimiter=delimiter) == expected


def test_the_delimiter_is_that_which_cuts_every_row_like_the_header(rows_of):
    assert rows_of("key;hard (all, or some)\n1;a\n2;b,c\n")[1] == {"key": "2", "hard (all, or some)": "b,c"}


def test_an_ambiguous_delimiter_is_asked_for(rows_of):
    with pytest.raises(MarketError, match=r"may be separated by ',' or by ';'.*'key;hard,or'.*`delimiter=','`"):
        rows_of("key;hard,or\n1;2,3\n")
    assert rows_of("key;hard,or\n1;2,3\n", delimiter=";") == [{"key": "1", "hard,or": "2,3"}]


def test_a_line_that_says_the_delimiter_is_obeyed_and_no_row(rows_of):
    for first in ("sep=;", '"sep=;"'):
        for end in ("\n", "\r\n"):
            assert rows_of(f"{first}{end}key;hard,x{end}1;a,b{end}") == [{"key": "1", "hard,x": "a,b"}]


def test_one_column_is_a_table_too(rows_of):
    assert rows_of("hard\na;b\n\nc\n") == [{"hard": "a;b"}, {"hard": "c"}]


def test_a_header_below_blank_lines_is_found(rows_of):
    assert rows_of("\n\nkey,hard\n1,a\n") == [{"key": "1", "hard": "a"}]


def test_the_csv_limit_of_the_process_is_put_back_between_blocks(tmp_path):
    before = csv.field_size_limit()
    file = tmp_path / "jobs.csv"
    file.write_text("hard\n" + "x" * 200_000 + "\n" + "y\n" * 5000)
    for block in csv_blocks(file, Reading(), with_pyarrow=False):
        assert csv.field_size_limit() == before
        assert block.n_rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('key,hard\n1, "SQL; R"\n2,R\n', [("1", "SQL; R"), ("2", "R")]),
        ('"key", "hard"\n"1", "SQL, ""R"""\n"2",  "R"\n', [("1", 'SQL, "R"'), ("2", "R")]),
        ('key,hard\n1, "SQL\nR"\n2, R\n', [("1", "SQL\nR"), ("2", "R")]),
        ('key;hard\n1; "SQL, R"\n2; R\n', [("1", "SQL, R"), ("2", "R")]),
        # These are no cells in quotation marks.
        ('key,hard\n1, "Big" Data\n2,R\n', [("1", ' "Big" Data'), ("2", "R")]),
        ('key,hard\n1," ""SQL"" "\n2, R\n', [("1", ' "SQL" '), ("2", " R")]),
    ],
)
@pytest.mark.parametrize("with_pyarrow", [False, True])
def test_a_blank_may_stand_before_a_quotation_mark(tmp_path, text, rows, with_pyarrow):
    if with_pyarrow:
        pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / "jobs.csv"
    file.write_text(text)
    found = reading.Rows(["key", "hard"], list(csv_blocks(file, Reading(), with_pyarrow)))
    assert [tuple(row.values()) for _, row in found] == rows
    assert read_table(file).header == ["key", "hard"]


def test_a_quotation_that_is_no_cell_says_how_cells_are_quoted(rows_of):
    with pytest.raises(
        MarketError, match=r"line 3: .* If a quotation mark begins a cell, another one must end the cell"
    ):
        rows_of('key,hard\n1, "SQL"\n2, "Big" Data\n')


# ---- two readers of CSV, equal results

PARTS = st.sampled_from(['"', '""', ",", ";", "\n", "\r\n", "\r", "a", "b c", "é", " ", "1", "\0", "\u2028", "\t"])
few = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(file, with_pyarrow):
    try:
        blocks = list(csv_blocks(file, Reading(delimiter=","), with_pyarrow))
    except MarketError as error:
        return str(error)
    return [row for _, row in reading.Rows(["a", "b"], blocks)]


@few
@given(st.lists(PARTS, max_size=30).map("".join))
def test_pyarrow_and_the_standard_library_read_any_text_alike(tmp_path, text):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / "any.csv"
    file.write_bytes(f"a,b\n{text}".encode())
    assert outcome(file, True) == outcome(file, False)


cell = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@few
@given(st.lists(st.tuples(cell, cell), max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_pyarrow_and_the_standard_library_read_what_is_written_alike(tmp_path, rows, end, quoted):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / "written.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerows([("a", "b"), *rows])
    assert outcome(file, True) == outcome(file, False)
    if quoted or not any("\r" in one + other for one, other in rows):  # which csv.writer leaves without quotes
        assert outcome(file, True) == [{"a": one, "b": other} for one, other in rows]


def test_a_large_file_is_read_by_pyarrow_and_what_it_would_read_otherwise_by_the_standard_library(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / "large.csv"
    n = 300_000
    with file.open("w") as opened:
        opened.write("a,b\n")
        opened.writelines(f'{i},"x, {i}"\n' for i in range(n))
    blocks = list(csv_blocks(file, Reading()))
    assert not isinstance(blocks[0].columns[0], list), "columns of pyarrow"
    assert list(reading.Rows(["a", "b"], blocks))[-1] == (n, {"a": str(n - 1), "b": f"x, {n - 1}"})
    with file.open("a") as opened:
        opened.write('5" pipe,odd\n')
    blocks = list(csv_blocks(file, Reading()))
    rows = reading.Rows(["a", "b"], blocks)
    assert isinstance(blocks[-1].columns[0], list), "a list of the standard library"
    assert (len(rows), rows[-1], rows[n - 1][1]["a"]) == (n + 1, (n + 1, {"a": '5" pipe', "b": "odd"}), str(n - 1))
    with file.open("a") as opened:
        opened.write("1,2,3\n")
    with pytest.raises(MarketError, match=rf"large\.csv, row {n + 2}: 3 cells, expected 2 as in the header"):
        list(csv_blocks(file, Reading()))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_break_of_a_cell_is_whole_wherever_pyarrow_cuts_the_file(tmp_path, monkeypatch, end):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / "cut.csv"
    rows = "".join(f'{n},"SQL{end}Python"{end}' for n in range(20))
    file.write_bytes(f"a,b{end}{rows}".encode())
    for piece in range(100, 130):
        monkeypatch.setattr(reading, "_PIECE", piece)
        assert outcome(file, True) == [{"a": str(n), "b": f"SQL{end}Python"} for n in range(20)]


def test_without_pyarrow_a_large_file_is_read_by_the_standard_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(reading, "_LARGE", 1)
    file = tmp_path / "jobs.csv"
    file.write_bytes(CSV)
    assert [row for _, row in read_table(file).rows] == ROWS


# ---- JSON

LINES = "\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        f"\ufeff\n\n{LINES}\n\n",
        LINES.replace("\n", " "),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        f"\n {json.dumps(ROWS)} \n",
        "\n".join(json.dumps(row, indent=4) for row in ROWS),
        f"{json.dumps(ROWS[0])}\n{json.dumps(ROWS[1], indent=4)}\n",
        f"{json.dumps(ROWS[0], indent=4)}\n{json.dumps(ROWS[1])}\n",
        json.dumps({"jobs": ROWS}),
        json.dumps({"jobs": ROWS, "version": 3}, indent=2),
        json.dumps({"results": ROWS}),
    ],
)
@pytest.mark.parametrize("name", ["jobs.json", "jobs.jsonl"])
def test_every_shape_of_json_is_read(rows_of, text, name):
    assert rows_of(text, name) == ROWS


@pytest.mark.parametrize("size", [7, 1 << 20])
def test_objects_may_stand_on_one_line_or_spread_over_lines_in_any_order(rows_of, monkeypatch, size):
    monkeypatch.setattr(reading, "_LINES", size)
    monkeypatch.setattr(reading, "_PIECE", size)
    rows = [{"key": str(n), "skills": [{"name": "a"}, {"name": "{"}]} for n in range(8)]
    one, spread = json.dumps, lambda row: json.dumps(row, indent=2)
    for shapes in ([one, one, spread, one] * 2, [one, spread] * 4, [one] * 7 + [spread]):
        text = "\n".join(shape(row) for shape, row in zip(shapes, rows, strict=True))
        assert rows_of(text, "jobs.json") == rows
        assert rows_of(text.replace("\n", "\r\n"), "jobs.json") == rows
    two_at_last = "\n".join([*map(one, rows[:6]), f"{one(rows[6])} {one(rows[7])}"])
    assert rows_of(two_at_last, "jobs.json") == rows


def test_objects_that_spread_over_lines_are_numbered_on_from_the_lines_before_them(tmp_path):
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"a": 1}\n\n{\n"a": 2\n}\n{"a": 3}\n')
    assert list(json_rows(file, Reading())) == [(1, {"a": 1}), (3, {"a": 2}), (4, {"a": 3})]


def test_one_object_may_hold_both_sides(tmp_path):
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"jobs": ROWS, "applicants": ROWS[:1]}))
    assert {name: len(table.rows) for name, table in read_sides(file).items()} == {"jobs": 2, "applicants": 1}
    assert read_table(file, side="applicants").file == f"{file}, 'applicants'"
    with pytest.raises(MarketError, match=r"all\.json is one JSON object with the lists 'jobs' and 'applicants'"):
        read_table(file)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"data": {"jobs": ROWS}}, "in 'data', in 'jobs'"),
        ({"count": 2, "next": None, "results": ROWS}, "in 'results'"),
        ({"j1": ROWS[0], "j2": ROWS[1]}, "its 2 entries, which are objects"),
        ({"data": {"j1": ROWS[0], "j2": ROWS[1]}}, "in 'data', its 2 entries, which are objects"),
        ({"0": ROWS[0], "1": ROWS[1]}, "its 2 entries, which are objects"),
    ],
)
def test_an_object_that_is_no_row_says_where_its_rows_seem_to_be(rows_of, content, place):
    told = f"one JSON object, and not a row, since none of its entries is a text. Its rows seem to be {place}: write"
    with pytest.raises(MarketError, match=told):
        rows_of(json.dumps(content), "jobs.json")
    one = {**content, "title": "a text makes it a row"}
    assert rows_of(json.dumps(one), "jobs.json") == [one]


def test_a_row_of_lines_that_has_jobs_is_a_row(rows_of):
    rows = [{"key": "p1", "jobs": [{"title": "cook"}]}, {"key": "p2", "jobs": []}]
    assert rows_of("\n".join(map(json.dumps, rows)), "people.jsonl") == rows


def test_a_value_may_be_longer_than_what_is_read_at_once(rows_of, monkeypatch):
    monkeypatch.setattr(reading, "_PIECE", 7)
    monkeypatch.setattr(reading, "_LINES", 7)
    for text in (LINES, json.dumps(ROWS, indent=2), "\n".join(json.dumps(row, indent=4) for row in ROWS)):
        assert rows_of(text, "jobs.json") == ROWS
    assert rows_of('[{"a": 123456789012, "b": true}, {"a": -1.5e10}]', "jobs.json")[1] == {"a": -1.5e10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 1, "a": 2}', r"row 2: 'a' appears twice in one JSON object"),
        ('{"a": 1}\n{"b": {"a": 1, "a": 2}}', r"row 2: 'a' appears twice"),
        ('{"a": 1}\n{"a" : 1, "a": 2, "b": "\\":"}', r"row 2: 'a' appears twice"),
        ('{"a": 1}\n{"a"\t:1,"a":2}', r"row 2: 'a' appears twice"),
        ('{"a": 1}\n{\n"a": 1, "a": 2}', r"row 2: 'a' appears twice"),
        ('{"a": 1}\n{\n"a": 1\n}\n{\n"a" 2\n}', r"row 3: no JSON: Expecting ':' delimiter"),
        ('{"a": 1}\n{"a": [1, 2', r"row 2: no JSON: Expecting ',' delimiter"),
        ('{"a": 1}\n{"a": [1, 2\n{"a": 3}', r"row 2: no JSON: Expecting ',' delimiter"),
        ('{"a": 1}\n{"a": "x\n{"a": 3}', r"row 2: no JSON: Unterminated string.*: line 1 column 7"),
        ('{"a": 1}\n{"a": [1, 2}\n{"a": 3}', r"row 2: no JSON: Expecting ',' delimiter: line 1 column 12"),
        ('[{"a": 1}, {"a": 1, "a": 2}]', r"row 2: 'a' appears twice"),
        ('{\n"a": 1, "a": 2}', r"row 1: 'a' appears twice"),
        ('{"a": 1}\n\n{"a": }', r"row 3: no JSON: "),
        ('{"a": 1}\n{"a": 1} 2', r"row 2: no JSON: Extra data"),
        ('[{"a": 1} {"a": 2}]', r"row 2: no JSON: expected ',' or the end of the array"),
        ('[{"a": 1},', r"row 2: no JSON: Expecting value"),
        ('[{"a": 1}', r"row 2: no JSON: expected ',' or the end"),
        ('[{"a": 1}] {}', r"holds more behind the end of its array, after row 1"),
        ('[{"a": "x}]', r"row 1: no JSON: Unterminated string"),
        ('{"a": [1, 2}', r"row 1: no JSON: Expecting ',' delimiter"),
        ('{\n"a": 1\n}\n{\n"a" 2\n}', r"row 2: no JSON: Expecting ':' delimiter"),
        ("[1]", r"row 1: must be a JSON object, got int"),
        ('"a"', r"row 1: must be a JSON object, got str"),
        ("nothing", r"row 1: no JSON: "),
    ],
)
def test_what_is_wrong_in_json_names_the_row(rows_of, text, message):
    with pytest.raises(MarketError, match=rf"jobs\.json(, |: ){message}"):
        rows_of(text, "jobs.json")


def test_an_error_early_in_a_long_array_is_told_before_its_end_is_read(tmp_path, monkeypatch):
    file = tmp_path / "long.json"
    file.write_text('[{"a": 1}, {"a" 2}, ' + '{"a": 1}, ' * 100_000 + "{}]")
    read = []
    real = reading.open_text

    def watched(*args, **options):
        text = real(*args, **options)
        once = text.read
        text.read = lambda size=-1: read.append(size) or once(size)
        return text

    monkeypatch.setattr(reading, "_PIECE", 1000)
    monkeypatch.setattr(reading, "open_text", watched)
    rows = json_rows(file, Reading())
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(MarketError, match="row 2: no JSON"):
        next(rows)
    assert sum(read) < 10_000


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@few
@given(st.lists(st.dictionaries(st.text(max_size=3), plain, max_size=4), max_size=5), st.booleans())
def test_lines_are_read_as_json_says(tmp_path, rows, ascii_only):
    file = tmp_path / "any.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    try:
        file.write_text(text, encoding="utf-8")
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return
    assert [row for _, row in json_rows(file, Reading())] == [json.loads(line) for line in text.split("\n") if line]


# ---- which file


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.ndjson.zst", "jsonl"),
        ("a.json.xz", "json"),
        ("a.parquet", "parquet"),
        ("csv:a.txt", "csv"),
        ("json:a.csv", "json"),
    ],
)
def test_a_file_is_what_its_scheme_or_ending_says(source, kind):
    assert kind_of(source)[0] == kind_of(source, "parquet")[0] == kind


def test_a_file_that_says_not_what_it_is_is_asked_for_or_is_like_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MarketError, match=r"a\.dat does not exist"):
        kind_of("a.dat")
    (tmp_path / "a.dat").touch()
    with pytest.raises(
        MarketError, match=r"a\.dat must end in \.csv, .*or have its kind before its path, e\.g\. 'csv:a\.dat'"
    ):
        kind_of("a.dat")
    assert kind_of("a.dat", "jsonl")[0] == "jsonl"


def test_an_unknown_kind_is_refused_and_not_read_as_json(tmp_path):
    (tmp_path / "jobs.tsv").write_text("key\thard\n1\tSQL\n")
    with pytest.raises(MarketError, match=r"`kind` must be one of csv, json, jsonl, parquet, .* got 'tsv'"):
        read_table(tmp_path / "jobs.tsv", kind="tsv")
    with pytest.raises(MarketError, match="`kind` must be one of"):
        load_table(tmp_path / "jobs.tsv", kind="CSV", n_applicants=3)


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "jobs.csv").write_bytes(CSV)
    assert len(read_table("csv:~/jobs.csv").rows) == len(read_table("~/jobs.csv").rows) == 2


def test_a_missing_file_says_where_it_was_looked_for_and_what_is_near(tmp_path, monkeypatch):
    (tmp_path / "jobs.csv").write_bytes(CSV)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MarketError, match=rf"job\.csv does not exist \(looked in {tmp_path}\)\. Did you mean 'jobs\.csv'"
    ):
        read_table("job.csv")
    with pytest.raises(MarketError, match="is a folder, not a file"):
        read_table(f"csv:{tmp_path}")


@pytest.mark.parametrize("skills", [{"3": "SQL", "7": "R"}, {"3": [{"name": "SQL"}], "7": []}])
def test_a_json_object_of_columns_says_how_to_write_rows(tmp_path, skills):
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({"key": {"3": "a", "7": "b"}, "hard": skills}))
    with pytest.raises(MarketError, match=r"holds columns, 'key', 'hard', .*`to_json\(.*orient='records'\)`"):
        read_table(file)


@pytest.mark.parametrize("name", ["jobs.parquet", "jobs.parquet.gz"])
def test_packed_parquet_is_named_with_the_way_out(tmp_path, name):
    pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    file = tmp_path / name
    file.write_bytes(gzip.compress(b"PAR1....PAR1"))
    with pytest.raises(
        MarketError, match=rf"{name} is packed by gzip, but Parquet is read only unpacked: unpack the file"
    ):
        read_table(file)


def test_values_of_parquet_have_a_bound_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'data'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'data'")
    file = tmp_path / "jobs.parquet"
    parquet.write_table(pyarrow.table({"hard": ["a" * 1000] * 10_000}), file)
    assert file.stat().st_size < 100_000
    with pytest.raises(MarketError, match=r"jobs\.parquet unpacks to more than .*say `max_bytes="):
        read_table(file, Reading(max_bytes=1_000_000))
    assert len(read_table(file).rows) == 10_000


@pytest.fixture
def parquet_of(tmp_path):
    """The rows of a Parquet file with a column `x`; it is given pyarrow and returns the column."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def read(column):
        parquet.write_table(pyarrow.table({"key": ["a", "b"], "x": column(pyarrow)}), tmp_path / "rows.parquet")
        return [row["x"] for _, row in read_table(tmp_path / "rows.parquet").rows]

    return read


def test_nanoseconds_of_parquet_are_cut_off_with_pandas_and_without(parquet_of):
    found = parquet_of(lambda pyarrow: pyarrow.array([1, 1_700_000_000_000_001_999], pyarrow.timestamp("ns")))
    assert found[1] == datetime.datetime(2023, 11, 14, 22, 13, 20, 1)
    assert {type(value) for value in found} == {datetime.datetime}


def test_dates_of_parquet_beyond_those_of_python_are_read_as_texts(parquet_of):
    found = parquet_of(lambda pyarrow: pyarrow.array([2**62, 0], pyarrow.timestamp("us")))
    assert isinstance(found[0], str) and found[1] == datetime.datetime(1970, 1, 1)
    with pytest.raises(MarketError, match=r"rows\.parquet: column 'x' has dates or times that Python cannot read"):
        parquet_of(lambda pyarrow: pyarrow.array([0, 0], pyarrow.timestamp("us", "Nowhere/Else")))
    with pytest.raises(MarketError, match=r"rows\.parquet: column 'x' has dates or times that Python cannot read"):
        parquet_of(lambda pyarrow: pyarrow.array([[2**62], []], pyarrow.list_(pyarrow.timestamp("us"))))


def test_bytes_in_large_lists_of_parquet_are_texts(parquet_of):
    found = parquet_of(lambda pyarrow: pyarrow.array([["a"], []], pyarrow.large_list(pyarrow.binary())))
    assert found == [["a"], []]
