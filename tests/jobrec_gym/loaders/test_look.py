"""What a person is told of a file, and the call that is printed."""

import json
import re
import shlex

import pytest

from jobrec_gym import recommend
from jobrec_gym.__main__ import main
from jobrec_gym.loaders.look import find_columns, look
from jobrec_gym.market import MarketError, load_market


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def told(*paths):
    """What is told, and the call at its end."""
    text = look(*paths)
    return text, text[text.index("load_market(") :]


def run(call):
    """The market of a printed call, without an encoder to load."""
    return eval(f"{call.rstrip()[:-1].rstrip().rstrip(',')}, encoder='hashing')", {"load_market": load_market})


@pytest.fixture
def jobs(tmp_path):
    return write(
        tmp_path / "jobs.csv",
        "Job ID,JobTitle,Required Skills,Location,Salary,Posted",
        '1,Analyst,"SQL, Python, Excel",Leeds,40000,x',
        '2,Nurse,"wound care, first aid",York,35000,y',
        '3,Cook,"grilling, hygiene",Leeds,,z',
    )


@pytest.fixture
def people(tmp_path):
    return write(
        tmp_path / "people.csv",
        "candidate_id,headline,skills,city,expected_salary",
        'p1,Data person,"SQL, Python",Leeds,41000',
        'p2,Chef,"grilling, baking",York,30000',
    )


def test_columns_are_found_by_their_usual_names():
    header = ["JobTitle", "job-id", "Tech Skills", "Soft_Skills", "job description", "Something"]
    assert find_columns(header) == {
        "key": "job-id",
        "title": "JobTitle",
        "hard": "Tech Skills",
        "soft": "Soft_Skills",
        "description": "job description",
    }
    assert find_columns(["skills", "hard_skills"]) == {"hard": "hard_skills"}, "the likeliest name wins"


def test_a_table_is_told_column_by_column_with_the_summary_of_its_rows(jobs):
    text, call = told(jobs)
    assert f"{jobs}: csv, 3 rows, 6 columns" in text
    assert [" ".join(line.split()) for line in text.split("\n")[1:7]] == [
        "Job ID key 1",
        "JobTitle title Analyst",
        "Required Skills hard SQL, Python, Excel",
        "Location context: place Leeds",
        "Salary context: salary 40000",
        "Posted x",
    ]
    assert "skills a row: jobs 2.3 hard (2 to 3) and no soft" in text
    assert "first of the jobs: '1'; Analyst; hard: Excel, Python, SQL" in text
    assert 'skill_separator=","' in call and 'applicants="..."' in call


def test_the_printed_call_of_two_files_loads_them(jobs, people):
    text, call = told(jobs, people)
    market = run(call)
    assert market.job("1").hard_skills == ("Excel", "Python", "SQL")
    assert market.applicant("p1").hard_skills == ("Python", "SQL")
    assert market.applicant("p2").context == {"place": "York", "salary": 30_000.0}
    assert market.job("3").context == {"place": "Leeds"}
    assert "2 applicants (1 train, 1 test)" in text


def test_the_call_of_one_file_is_whole_but_for_the_applicants(jobs, people):
    call = told(jobs)[1].replace('"..."', repr(str(people)))
    with pytest.raises(MarketError, match="people.csv has no column 'Job ID'"):
        run(call)
    assert run(told(jobs, people)[1]).jobs.keys.tolist() == ["1", "2", "3"]


def test_a_text_that_is_no_list_is_read_as_free_text(tmp_path):
    long = "You plan, bake, and sell what we make for people who come by in the morning"
    file = write(tmp_path / "jobs.csv", "id,title,skills", *(f'{n},Baker,"{long}, {n}"' for n in range(4)))
    assert 'text_columns=["hard"]' in told(file)[1]
    listed = write(tmp_path / "listed.csv", "id,title,skills", *(f'{n},Baker,"bake|sell"' for n in range(4)))
    assert 'skill_separator="|"' in told(listed)[1]
    plain = write(tmp_path / "plain.csv", "id,title,skills", *(f"{n},Baker,bake;sell" for n in range(4)))
    assert "skill_separator" not in told(plain)[1] and "text_columns" not in told(plain)[1]


def test_a_printed_array_is_a_list_without_a_separator(tmp_path):
    lines = (f"{n},Baker,\"array(['bake', 'sell'], dtype=object)\"" for n in range(4))
    call = told(write(tmp_path / "jobs.csv", "id,title,skills", *lines))[1]
    assert "skill_separator" not in call and "text_columns" not in call


def test_sides_that_separate_skills_differently_are_told_and_no_separator_is_imposed(tmp_path):
    jobs = write(tmp_path / "jobs.csv", "key,skills", 'j1,"SQL,Python"', 'j2,"hygiene,baking"')
    people = write(tmp_path / "people.csv", "key,skills", "p1,SQL;Python", "p2,hygiene;baking")
    text, call = told(jobs, people)
    assert (
        f"! not all skills are separated alike (',' in 'skills' of {jobs}, ';' in 'skills' of {people}), and a call "
        "takes one separator for all: write these columns with ';' before you load them by the call below\n"
    ) in text
    assert "skill_separator" not in call
    with pytest.warns(UserWarning, match=r"jobs\.csv: 2 of 2 cells in column 'skills' have ','"):
        assert run(call).applicant("p1").hard_skills == ("Python", "SQL")
    text, call = told(write(jobs, "key,skills", "j1,SQL;Python", "j2,hygiene;baking"), people)
    assert "  !" not in text
    assert run(call).job("j1").hard_skills == ("Python", "SQL")


@pytest.mark.parametrize(
    ("hard", "soft", "said", "differ"),
    [
        ("SQL;R", "tact,calm", None, True),
        ("SQL,R", "tact;calm", None, True),
        ("SQL|R", "tact,calm", None, True),
        ("SQL,R", "tact,calm", ",", False),
        ("SQL,R", "tact", ",", False),
        ("SQL", "tact,calm", ",", False),
        ("You bake and sell what we make for people who come by", "tact|calm", "|", False),
        ("SQL;R", "tact", None, False),
        ("SQL", "tact;calm", None, False),
    ],
)
def test_the_separator_is_that_of_each_column_of_skills_that_has_one(tmp_path, hard, soft, said, differ):
    file = write(tmp_path / "jobs.csv", "key,skills,soft_skills", *(f'{n},"{hard}","{soft}"' for n in range(3)))
    text, call = told(file)
    assert re.findall('skill_separator="(.)"', call) == ([said] if said else [])
    assert ("! not all skills are separated alike" in text) == differ


def test_a_description_stands_in_for_skills_that_few_rows_list(tmp_path):
    rows = [
        json.dumps({"title": "Cook", "skills": ["grilling"] if n == 0 else [], "summary": "We grill."})
        for n in range(5)
    ]
    text, call = told(write(tmp_path / "jobs.jsonl", *rows))
    assert "! 'skills': empty in 4 of 5 rows; the free text 'summary' is taken" in text
    assert 'columns={"hard": "summary", "description": "summary"}' in call


def test_rows_without_skills_are_counted_and_left_out_by_the_call(tmp_path):
    file = write(tmp_path / "jobs.csv", "id,skills", "1,SQL", "2,", "3,R")
    text, call = told(file)
    assert "! 1 of 3 rows have no skills" in text
    assert "left out: 1 of 3 jobs, which have no skills" in text
    assert 'on_empty="skip"' in call


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        # The file is loaded twice: the first time shows that `level` is no seniority.
        ("jobs.csv", ("id,level,skills", "1,blue,SQL", "2,,"), "left out 1 of 2 jobs, which have no skills"),
        # A document is read once to look at it, and once to load it.
        ("job.json", ('{"@type": "JobPosting", "description": "We bake."}',), "their description is used instead"),
    ],
)
def test_the_loaders_say_each_thing_once(tmp_path, caplog, name, lines, said):
    people = write(tmp_path / "people.csv", "id,level,skills", "1,red,SQL")
    look(write(tmp_path / name, *lines), people)
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_the_loaders_are_heard_after_a_look_that_failed(tmp_path, caplog):
    with pytest.raises(MarketError, match="no column looks like skills"):
        look(write(tmp_path / "strange.csv", "id,x", "1,2"))
    file = write(tmp_path / "jobs.csv", "key,hard", "1,SQL", "2,")
    load_market(file, applicants=file, encoder="hashing", cache_dir=False, on_empty="skip")
    assert caplog.text.count("left out 1 of 2 jobs, which have no skills") == 1


def test_what_the_loaders_say_of_a_call_that_failed_is_not_told(tmp_path, caplog):
    caplog.set_level("INFO")
    look(write(tmp_path / "jobs.csv", "id,level,skills", "1,blue,SQL"))
    assert caplog.text.count("read from id, skills; columns not used: level") == 1
    assert "read from id, level, skills" not in caplog.text


def test_a_column_that_is_not_what_its_name_says_is_let_go(tmp_path):
    file = write(tmp_path / "jobs.csv", "id,level,skills", "1,blue,SQL", "1,red,R")
    text, call = told(file)
    assert "! 'level' is not taken as seniority:" in text
    assert "! 'id' is not taken as key:" in text
    assert '"level"' not in call and '"id"' not in call


def test_pay_for_hours_and_for_years_in_one_column_is_doubted(tmp_path):
    rows = ["1,SQL,60000,Annual,60000", "2,R,35,Hourly,70000", "3,R,,,"]
    text, _ = told(write(tmp_path / "jobs.csv", "id,skills,salary_from,Salary Frequency,x", *rows))
    said = "! 'salary_from' is not paid for the same time in all rows, 'Salary Frequency' says 'Annual', 'Hourly':"
    assert said in text
    text, _ = told(write(tmp_path / "jobs.csv", "id,skills,salary_from,Salary Frequency,annual_salary", *rows))
    assert "not paid for the same time" not in text
    for others in (rows[2:], ["2,R,70000,ANNUAL,"]):
        text, _ = told(write(tmp_path / "jobs.csv", "id,skills,salary_from,Salary Frequency,x", rows[0], *others))
        assert "not paid for the same time" not in text


def test_only_the_side_whose_column_is_wrong_lets_it_go(tmp_path):
    jobs = write(tmp_path / "jobs.csv", "id,level,skills", "1,2,SQL", "2,3,R")
    people = write(tmp_path / "people.csv", "id,level,skills", "1,guru,SQL", "1,wizard,R")
    text, call = told(jobs, people)
    assert text.count("! 'level' is not taken as seniority:") == text.count("! 'id' is not taken as key:") == 1
    market = run(call)
    assert market.jobs.keys.tolist() == ["1", "2"] and market.jobs.seniority.tolist() == [2, 3]
    assert not market.applicants.seniority.any()


def test_a_context_that_cannot_be_read_is_let_go(tmp_path):
    jobs = write(tmp_path / "jobs.csv", "id,salary,city,skills", "1,40000,Leeds,SQL", "2,50000,York,R")
    people = write(tmp_path / "people.csv", "id,salary,city,skills", "1,$40k or so,Leeds,SQL")
    text, call = told(jobs, people)
    assert "! 'salary' is not compared as salary:" in text.partition("people.csv: csv")[2]
    assert '"salary"' not in call and set(run(call).context) == {"place"}


def test_families_that_do_not_fit_their_occupations_are_let_go(tmp_path):
    file = write(tmp_path / "jobs.csv", "id,occupation,job_family,skills", "1,cook,food,SQL", "2,cook,hotel,R")
    text, call = told(file)
    assert "! 'job_family' is not taken as family: occupation 'cook' is of family 'food'" in text
    assert '"job_family"' not in call


@pytest.mark.parametrize("name", ["split", "Split", "SPLIT "])
def test_one_file_may_say_the_split_of_its_rows(tmp_path, name):
    rows = ["1,SQL,cook,train", "2,R,cook,test", "3,Go,cook,train"]
    text, call = told(write(tmp_path / "jobs.csv", f"id,skills,occupation,{name}", *rows))
    assert "3 jobs (2 train, 1 test)" in text
    assert run(call).jobs.held_out.tolist() == [False, True, False], "the call has `n_applicants`"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("id,skills,Seniority", "1,SQL,Profi", r"column 'Seniority': .*got 'Profi'.*`seniority_values={'Profi': 3}`"),
        ("id,skills,seniority", "1,SQL,Profi", r"column 'seniority': .*got 'Profi'.*`seniority_values={'Profi': 3}`"),
        ("id,skills,Split", "1,SQL,A", r"column 'Split': must be 'train' or 'test', got 'A'.*needs another name"),
        ("Key,skills", "1,SQL", "key '1' of jobs appears twice: in .*, row 1 and in .*, row 2"),
    ],
)
def test_a_column_that_cannot_be_let_go_is_told_with_what_is_wrong_in_it(tmp_path, header, row, message):
    """The loader reads a column with the name of a field, or refuses one with nearly this name."""
    file = write(tmp_path / "jobs.csv", header, row, row)
    with pytest.raises(MarketError, match=message):
        look(file)


def test_a_column_soft_that_is_empty_stays_beside_the_description(tmp_path):
    rows = [f"{row},,,We bake bread of rye" for row in range(3)]
    text, call = told(write(tmp_path / "jobs.csv", "id,skills,Soft,summary", *rows))
    assert "the free text 'summary' is taken" in text and '"soft": "Soft"' in call


def test_a_data_frame_is_no_file():
    with pytest.raises(MarketError, match=r"must be given by its path, got \[\]"):
        look([])


@pytest.fixture
def both(tmp_path):
    """A file of JSON with a list of jobs and a list of people."""
    jobs = [{"id": "j1", "job_title": "Cook", "skills": ["grilling"]}]
    people = [{"id": "p1", "skills": ["grilling", "baking"], "level": "guru"}]
    (tmp_path / "both.json").write_text(json.dumps({"jobs": jobs, "applicants": people}))
    return tmp_path / "both.json"


def test_both_lists_of_a_file_are_told(both, jobs):
    text, call = told(both)
    assert "json, 1 jobs, 3 columns" in text and "json, 1 applicants, 3 columns" in text
    assert "applicants=" not in call
    assert run(call).applicant("p1").hard_skills == run(told(jobs, both)[1]).applicant("p1").hard_skills
    assert '"jobs": {"hard": "job_title", "key": "id"}' in look(both, columns={"jobs": {"hard": "job_title"}})


def test_a_column_that_says_job_or_applicant_is_the_role(tmp_path):
    rows = ["job,1,Cook,grilling,2,30000,", "job,2,Baker,baking,3,40000,"]
    rows += ["applicant,p,,baking,guru,,35000", "applicant,q,,grilling,2,,"]
    header = "role,id,Title,skills,Level,Salary,Wanted Salary"
    text, call = told(write(tmp_path / "all.csv", header, *rows))

    assert "csv, 2 jobs, 7 columns" in text and "csv, 2 applicants, 7 columns" in text
    assert re.search(r"role +role_column +job", text) and re.search(r"role +role_column +applicant", text)
    assert text.count("! 'Level' is not taken as seniority:") == 1, "that of the people, who have another word"
    market = run(call)
    assert (market.jobs.keys.tolist(), market.applicants.keys.tolist()) == (["1", "2"], ["p", "q"])
    assert [market.job("2").seniority, market.job("2").title, market.job("2").context] == [3, "Baker", {"salary": 4e4}]
    assert (market.applicant("p").seniority, market.applicant("p").context) == (0, {"salary": 35_000})


def test_a_role_is_a_title_if_not_all_rows_have_one_of_the_two_words(tmp_path):
    text, call = told(write(tmp_path / "jobs.csv", "role,skills", "job,SQL", "applicant,R", "cook,baking"))
    assert "3 rows" in text and '"title": "role"' in call and "role_column" not in call


def test_a_table_without_anything_like_skills_says_how_to_name_them(tmp_path):
    with pytest.raises(
        MarketError, match=r"no column looks like skills .* It has 'a', 'b'\. Say which column it is: `load_m"
    ):
        look(write(tmp_path / "x.csv", "a,b", "1,2"))


def test_documents_are_known_by_what_they_hold(tmp_path):
    people, jobs = tmp_path / "people", tmp_path / "jobs"
    for folder in (people, jobs):
        folder.mkdir()
    write(people / "anna.json", json.dumps({"basics": {"label": "Cook"}, "skills": [{"name": "grilling"}]}))
    write(jobs / "a.json", json.dumps({"@type": "JobPosting", "title": "Cook", "skills": "grilling, baking"}))
    text, call = told(jobs, people)
    assert "job-posting, 1 jobs" in text and "json-resume, 1 applicants" in text
    assert run(call).applicant("anna").title == "Cook"
    text, call = told(people / "anna.json")
    assert f'"json-resume:{people / "anna.json"}"' in call and 'jobs="..."' in call
    assert "\njson-resume:anna.json: 1 applicants" in text
    assert "skills a row: applicants 1.0 hard" in text and "first of the applicants: 'anna'; Cook" in text


def test_a_saved_market_tells_its_summary(jobs, people, tmp_path):
    market = run(told(jobs, people)[1]).save(tmp_path / "market")
    assert look(tmp_path / "market") == f'{market.summary()}\n\nload_market("{tmp_path / "market"}")'


def test_a_file_of_applicants_is_no_market(jobs, tmp_path):
    with pytest.raises(MarketError, match="is a folder and holds neither a release"):
        (tmp_path / "empty").mkdir()
        look(tmp_path / "empty")
    with pytest.raises(MarketError, match="is a market of its own, not a file of applicants"):
        look(jobs, "onet:db.zip")


def test_the_command_prints_it_and_names_what_is_wrong_in_a_line(jobs, capsys):
    main(["look", str(jobs)])
    assert capsys.readouterr().out == f"{look(jobs)}\n"
    with pytest.raises(SystemExit, match="error: .*nothing.csv does not exist"):
        main(["look", "nothing.csv"])


# ----------------------------------------------------------------------------------------------- files as they are told


@pytest.fixture
def stellen(tmp_path):
    """Jobs with names of columns that no list of usual names has, in the encoding of a German spreadsheet."""
    file = tmp_path / "stellen.csv"
    rows = ["Nr;Stelle;Kenntnisse;Stufe", "1;Köchin;Soßen, Hygiene;Fachkraft", "2;Bäcker;Teig, Öfen;Meister"]
    file.write_bytes("\n".join(rows).encode("cp1252"))
    return file


@pytest.fixture
def leute(tmp_path):
    return write(tmp_path / "leute.csv", "Nr,Können,Wunsch", 'p1,"Soßen, Teig",Köchin', 'p2,"Öfen, Hygiene",Bäcker')


COLUMNS = ["hard=Kenntnisse", "title=Stelle", "key=Nr"]


def test_columns_and_encoding_that_are_said_are_those_of_the_printed_call(stellen, capsys):
    main(["look", str(stellen), "--columns", *COLUMNS, "--encoding", "cp1252"])
    text = capsys.readouterr().out

    assert [" ".join(line.split()) for line in text.splitlines()[1:5]] == [
        "Nr key 1",
        "Stelle title Köchin",
        "Kenntnisse hard Soßen, Hygiene",
        "Stufe Fachkraft",
    ]
    assert "first of the jobs: '1'; Köchin; hard: Hygiene, Soßen" in text
    call = text[text.index("load_market(") :]
    assert '{"hard": "Kenntnisse", "title": "Stelle", "key": "Nr"}' in call
    assert 'encoding="cp1252"' in call


def test_two_files_may_differ_in_columns_and_encoding(stellen, leute, capsys):
    told = [*(f"jobs.{entry}" for entry in COLUMNS), "applicants.hard=Können", "applicants.key=Nr"]
    main(["look", str(stellen), str(leute), "--columns", *told, "--encoding", "jobs=cp1252"])
    text = capsys.readouterr().out
    market = run(text[text.index("load_market(") :])

    assert (market.job("1").hard_skills, market.applicant("p1").hard_skills) == (
        ("Hygiene", "Soßen"),
        ("Soßen", "Teig"),
    )
    assert 'encoding={"jobs": "cp1252"}' in text


def test_one_column_may_be_said_for_both_files(stellen, tmp_path):
    people = write(tmp_path / "people.csv", "Kenntnisse", '"Teig, Öfen"')
    text = look(stellen, people, columns={"hard": "Kenntnisse"}, encoding={"jobs": "cp1252"})
    market = run(text[text.index("load_market(") :])
    assert market.applicant(0).hard_skills == ("Teig", "Öfen")


def test_a_field_of_skills_may_have_several_columns_and_entries(tmp_path):
    file = write(tmp_path / "jobs.csv", "a,b,skills", "SQL;R,Python,x", "Go,,y")
    text = look(file, columns={"hard": ["a", "b"], "key": "skills"})
    assert '"hard": ["a", "b"]' in text and "skills a row: jobs 2.0 hard (1 to 3)" in text
    entries = write(
        tmp_path / "jobs.json", '[{"wants": [{"name": "SQL"}]}, {"wants": [{"name": "R"}, {"name": "Go"}]}]'
    )
    text = look(entries, columns={"hard": "wants.name"})
    assert "skills a row: jobs 1.5 hard (1 to 2)" in text and "no skills" not in text
    assert re.search(r"wants +hard", text)


def test_a_text_that_is_said_to_be_skills_is_also_the_description(tmp_path):
    file = write(tmp_path / "jobs.csv", "title,About,skills", f"cook,{'We cook every day for many guests. ' * 3},")
    text = look(file, columns={"hard": "About"})
    assert '{"hard": "About", "description": "About"}' in text and 'text_columns=["hard"]' in text


def test_what_is_said_stands_against_what_names_and_cells_suggest(tmp_path):
    rows = [f"{row},cook,{'baking' if row == 1 else ''},We cook every day for many guests." for row in range(4)]
    file = write(tmp_path / "jobs.csv", "title,headline,skills,description", *rows)
    text = look(file, columns={"hard": "skills", "key": "title"})
    assert '"hard": "skills"' in text and "text_columns" not in text, "although few rows have skills"
    assert '"title": "headline"' in text, "the next likely name, as the likeliest is the key"


def test_columns_of_resumes_can_be_said_too(tmp_path):
    resume = {"basics": {"label": "cook", "summary": "grilling"}, "skills": [{"name": "kitchen"}]}
    (tmp_path / "anna.json").write_text(json.dumps(resume), encoding="utf-16-le")
    text = look(tmp_path / "anna.json", columns={"hard": "title"}, encoding="utf-16-le")
    assert "hard: cook" in text and 'columns={"hard": "title"}' in text


def test_dates_of_jobs_are_found_by_their_usual_names_if_they_are_dates(tmp_path):
    people = write(tmp_path / "people.csv", "id,skills,expires", "ann,SQL,never")
    header = "id,skills,Date Posted,Apply By"
    jobs = write(tmp_path / "jobs.csv", header, "1,SQL,2026-11-01,2026-11-29", "2,SQL,2026-11-01,")
    text, call = told(jobs, people)
    assert re.search(r"Date Posted +posted +2026-11-01", text) and re.search(r"Apply By +expires +2026-11-29", text)
    assert [one.key for one in recommend(None, run(call), "ann", open_at="2026-11-01")] == ["1", "2"]
    assert [one.key for one in recommend(None, run(call), "ann", open_at="2026-11-30")] == ["2"]

    write(jobs, header, "1,SQL,3 days ago,2026-11-29", "2,SQL,today,")
    text, call = told(jobs, people)
    assert "! 'Date Posted' is not taken as posted: " in text and "must be a date" in text and '"posted"' not in call
    assert [one.key for one in recommend(None, run(call), "ann", open_at="2026-11-30")] == ["2"]


def test_a_date_of_jobs_is_not_looked_for_among_people(tmp_path, capsys):
    jobs = write(tmp_path / "jobs.csv", "Nr,skills,Ende", "1,SQL,2026-05-04")
    people = write(tmp_path / "people.csv", "Nr,skills", "p,SQL")
    assert '"jobs": {"key": "Nr", "expires": "Ende", "hard": "skills"}, "applicants": {"key": "Nr", "hard"' in look(
        jobs, people, columns={"key": "Nr", "expires": "Ende"}
    )
    main(["look", str(jobs), str(people), "--columns", "key=Nr", "expires=Ende", "applicants.hard=skills"])
    assert '"jobs": {"key": "Nr", "expires": "Ende", "hard": "skills"}, "applicants": {' in capsys.readouterr().out


def test_a_word_that_is_no_level_is_told_with_its_way_out(stellen):
    text = look(stellen, columns={"hard": "Kenntnisse", "seniority": "Stufe"}, encoding="cp1252")
    assert "'Stufe' is not taken as seniority" in text and "`seniority_values={'Fachkraft': 3}`" in text


def test_files_of_json_and_other_alphabets_are_looked_at_in_their_encoding(tmp_path):
    (tmp_path / "jobs.json").write_text('[{"навыки": ["кухня"], "id": "1"}]', encoding="utf-16-le")
    text = look(tmp_path / "jobs.json", columns={"hard": "навыки"}, encoding="utf-16-le")
    assert "hard: кухня" in text and 'encoding="utf-16-le"' in text
    jobs = write(tmp_path / "jobs.csv", "навыки", "кухня")
    text = look(jobs, tmp_path / "jobs.json", columns={"hard": "навыки"}, encoding={"applicants": "utf-16-le"})
    assert run(text[text.index("load_market(") :]).applicant(0).hard_skills == ("кухня",)


GERMAN_JOBS = (
    "Nr;Titel;Fähigkeiten;Ort;Gehalt;Senioritaet;Gültig bis",
    "1;Köchin;Soßen, Hygiene;Bonn;ab 32.000 €;Fachkraft;31.12.2026",
    "2;Bäcker;Teig, Öfen;Ulm;31.500,50 €;Leitung;",
    "3;Wirt;Hygiene, Wein;Ulm;VB;Leitung;30.11.2026",
)
GERMAN_PEOPLE = ("Nr;Kenntnisse;Wohnort;Wunschgehalt", "p1;Hygiene, Wein;Ulm;30.000,- €")


@pytest.fixture
def german(tmp_path):
    """Files of jobs and of people with German headings, dates, amounts and encodings."""
    (tmp_path / "stellen.csv").write_bytes("\r\n".join(GERMAN_JOBS).encode("cp1252"))
    (tmp_path / "bewerber.csv").write_bytes("\r\n".join(GERMAN_PEOPLE).encode("utf-8-sig"))
    return str(tmp_path / "stellen.csv"), str(tmp_path / "bewerber.csv")


def typed_in(text):
    """The arguments after ``--columns`` that a text proposes."""
    return shlex.split(re.search(r"`--columns (.*?)` reads them", text)[1])


def test_german_headings_are_proposed_and_lead_to_the_whole_call(german, capsys):
    jobs, people = german
    with pytest.raises(SystemExit, match="no column looks like skills") as stopped:
        main(["look", jobs, people, "--encoding", "jobs=cp1252"])
    columns = typed_in(str(stopped.value))
    assert columns[:3] == ["jobs.key=Nr", "jobs.title=Titel", "jobs.hard=Fähigkeiten"]
    with pytest.raises(SystemExit, match="no column looks like skills") as stopped:
        main(["look", jobs, people, "--encoding", "jobs=cp1252", "--columns", *columns])
    columns += typed_in(str(stopped.value))
    files = ["look", jobs, people, "--encoding", "jobs=cp1252", "--columns", *columns]
    main(files)
    doubted = capsys.readouterr().out
    assert "must be a number" in doubted and "Say `date_format='%d.%m.%Y'`, which fits all dates" in doubted
    assert "`seniority_values={'Fachkraft': 3}`" in doubted and "another language" not in doubted

    said = ["--date-format", "%d.%m.%Y", "--null-values", "VB", "--seniority-values", "Fachkraft=3", "Leitung=5"]
    main([*files, *said, "--decimal", ","])
    text = capsys.readouterr().out
    assert "  ! " not in text
    call = text[text.index("load_market(") :]
    assert 'decimal=","' in call and 'date_format="%d.%m.%Y"' in call and 'null_values=["VB"]' in call
    market = run(call)
    assert [market.job(row).context for row in range(3)] == [
        {"place": "Bonn", "salary": 32_000},
        {"place": "Ulm", "salary": 31_500.5},
        {"place": "Ulm"},
    ]
    assert [market.job(row).seniority for row in range(3)] == [3, 5, 5]
    assert market.applicant("p1").context == {"place": "Ulm", "salary": 30_000}
    assert [one.key for one in recommend(None, market, "p1", open_at="2026-12-01")] == ["1", "2"]


def test_german_headings_of_one_file_are_proposed_beside_what_is_known(german):
    text = look(german[0], columns={"hard": "Fähigkeiten", "place": "Ort"}, encoding="cp1252")
    assert typed_in(text) == [
        "key=Nr",
        "title=Titel",
        "seniority=Senioritaet",
        "expires=Gültig bis",
        "salary=Gehalt",
    ]
    assert re.search(r"Ort +context: place", text)
    people = look(german[1], columns={"hard": "Kenntnisse"})
    assert typed_in(people) == ["key=Nr", "place=Wohnort", "salary=Wunschgehalt"]


def test_pay_in_other_units_is_let_go(tmp_path):
    jobs = write(tmp_path / "jobs.csv", "id,salary,city,skills", "1,40k EUR,Leeds,SQL")
    people = write(tmp_path / "people.csv", "id,salary,city,skills", "1,15 EUR/h,Leeds,SQL")
    text, call = told(jobs, people)
    assert "! salary is not compared: the context field 'salary' compares numbers in EUR for one hour in " in text
    assert '"salary"' not in call and '"place"' in call


def test_several_formats_of_dates_may_be_typed(tmp_path, capsys):
    file = write(tmp_path / "jobs.csv", "skills,expires", "SQL,31.12.2026", "R,2026-12-31")
    main(["look", str(file), "--date-format", "%d.%m.%Y", "ISO8601"])
    assert 'date_format=["%d.%m.%Y", "ISO8601"]' in capsys.readouterr().out
    with pytest.raises(MarketError, match="row 2, column 'expires': must fit `date_format='%d.%m.%Y'`"):
        look(file, date_format="%d.%m.%Y")


@pytest.mark.parametrize("entry", ["Fachkraft", "Fachkraft=6", "=3", "Fachkraft=12", "Fachkraft="])
def test_a_level_that_is_typed_wrong_is_told(jobs, entry):
    with pytest.raises(SystemExit, match=f"`--seniority-values` must be WORD=LEVEL, .*got '{entry}'"):
        main(["look", str(jobs), "--seniority-values", entry])


def test_a_column_of_the_context_that_is_said_must_exist(jobs, people):
    with pytest.raises(MarketError, match=r"people.csv has no column 'Location'.* `--columns jobs.place=..."):
        look(jobs, people, columns={"place": "Location"})
    text = look(jobs, people, columns={"jobs": {"place": "JobTitle"}})
    assert '"place": ("category", "city", "JobTitle")' in text and re.search("JobTitle +context: place", text)
    with pytest.raises(MarketError, match=r"`columns\['place'\]` must be the name of a column, got \['a', 'b'\]"):
        look(jobs, columns={"place": ["a", "b"]})


def test_a_delimiter_that_is_in_doubt_can_be_said(tmp_path):
    file = write(tmp_path / "jobs.csv", "id;title,or so;skills", "1;a,b;SQL", "2;c,d;R")
    with pytest.raises(MarketError, match="`delimiter="):
        look(file)
    assert 'delimiter=";"' in look(file, delimiter=";")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--columns", "hrd=Kenntnisse"], "`columns` may name .*, got 'hrd'. Did you mean 'hard'?"),
        (["--columns", "hard=Kentnisse"], "has no column 'Kentnisse'. Did you mean 'Kenntnisse'?"),
        (["--columns", "title=Stelle", "title=Nr"], "`columns.'title'.` must be the name of a column, got ."),
        (["--columns", "Kenntnisse"], "`--columns` must be FIELD=COLUMN, such as hard=Kenntnisse, got 'Kenntnisse'"),
        (["--columns", "job.hard=Kenntnisse"], "`--columns` may name a field of jobs or applicants, got 'job.hard'"),
        (["--columns", "jobs.hard=Kenntnisse"], "`columns` names `jobs` or `applicants`, and .* is one file"),
        (["--encoding", "jobs=cp1252"], "`encoding` names `jobs` or `applicants`, and .* is one file"),
        (["--encoding", "cp125"], "`encoding` must be the name of an encoding such as 'cp1252', got 'cp125'"),
        (["--encoding", "job=cp1252"], "`--encoding` must be one encoding, or jobs=... and applicants=..., got 'job=c"),
        (["--encoding", "cp1252", "more.csv"], "got 'cp1252'; write the files first"),
        ([], "encoding='cp1252'"),
        (["--encoding", "cp1252", "--columns", "key=Nr"], "`jobrec look .*stellen.csv --columns hard=...` looks "),
        (["--colums", "hard=Kenntnisse"], "there is no option '--colums'. Did you mean --columns?"),
    ],
)
def test_what_is_typed_wrong_ends_in_one_line(stellen, typed, message):
    is_read = "--encoding" not in typed and typed
    with pytest.raises(SystemExit, match=message.replace("?", r"\?")) as stopped:
        main(["look", str(stellen), *typed, *(["--encoding", "cp1252"] if is_read else [])])
    assert str(stopped.value).startswith("error: ") and "\n" not in str(stopped.value)


def test_a_column_that_only_one_of_two_files_has_is_said_with_its_side(stellen, people):
    with pytest.raises(
        SystemExit, match=r"Give your other files and options again; for one of two files say `jobs.hard=..."
    ):
        main(["look", str(stellen), str(people), "--encoding", "jobs=cp1252"])
    files = ["look", str(stellen), str(people), "--encoding", "jobs=cp1252", "--columns"]
    with pytest.raises(SystemExit, match=r"people.csv has no column 'Nr'.*`--columns jobs.key=... applicants.key=...`"):
        main([*files, "key=Nr", "hard=Kenntnisse"])
    main([*files, "jobs.key=Nr", "jobs.hard=Kenntnisse"])
    with pytest.raises(SystemExit, match=r"has no column 'Nummer'\. It has [^.]*\.$"):
        main([*files, "jobs.key=Nummer"])


@pytest.mark.parametrize("columns", ["hard", ["hard"]])
def test_columns_that_are_no_mapping_are_refused(stellen, columns):
    with pytest.raises(MarketError, match=r"`columns` must map fields to columns, `\{'hard': 'skills'\}`, got "):
        look(stellen, columns=columns, encoding="cp1252")


def test_a_market_of_its_own_has_no_columns_to_say():
    with pytest.raises(MarketError, match="`columns` and `encoding` cannot be given for default, which is not a table"):
        look("default", columns={"hard": "x"}, encoding="cp1252")


def test_a_folder_of_one_file_is_that_file(tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "jobs.csv"
    file.write_text("id,skills\n1,SQL\n2,R\n")
    assert look(tmp_path / "in") == look(file)
