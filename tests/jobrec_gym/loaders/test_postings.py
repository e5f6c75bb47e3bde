"""Jobs as schema.org's JobPosting writes them."""

import json

import pytest

from jobrec_gym.loaders.documents import html_text
from jobrec_gym.loaders.postings import POSTING_COLUMNS, read_postings
from jobrec_gym.market import MarketError, load_market

BAKER = {
    "@context": "https://schema.org/",
    "@type": "JobPosting",
    "title": "Baker &amp; seller",
    "description": "<p>We bake.</p><ul><li>knead</li><li>sell</li></ul>",
    "identifier": {"@type": "PropertyValue", "name": "Bakery", "value": "b-1"},
    "datePosted": "2026-01-18",
    "validThrough": "2026-03-18T00:00",
    "employmentType": ["FULL_TIME", "CONTRACTOR"],
    "hiringOrganization": {"@type": "Organization", "name": "Bakery"},
    "jobLocation": {
        "@type": "Place",
        "address": {
            "@type": "PostalAddress",
            "addressLocality": "Leeds",
            "addressRegion": "Yorkshire",
            "addressCountry": {"@type": "Country", "name": "GB"},
        },
    },
    "baseSalary": {
        "@type": "MonetaryAmount",
        "currency": "GBP",
        "value": {"@type": "QuantitativeValue", "minValue": 10, "maxValue": "12.00", "unitText": "HOUR"},
    },
    "skills": ["kneading", {"@type": "DefinedTerm", "name": "food safety"}],
    "qualifications": "A clean hand.",
    "experienceRequirements": {"@type": "OccupationalExperienceRequirements", "monthsOfExperience": "24"},
    "relevantOccupation": {"@type": "Occupation", "name": "baker"},
    "industry": "Food",
    "url": "https://example.org/jobs/1",
}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def rows(path):
    table = read_postings(path)
    assert table.header == list(POSTING_COLUMNS)
    assert all(list(row) == table.header for _, row in table.rows)
    return [row for _, row in table.rows]


def posting(**changes):
    return {**BAKER, **changes}


def page(*scripts):
    parts = "".join(f'<script type="application/ld+json">{script}</script>' for script in scripts)
    return f"<!doctype html><html><head><script>var a = '<p>';</script>{parts}</head><body><p>Apply!</body></html>"


def test_a_posting_is_read_by_the_documented_rules(tmp_path):
    (baker,) = rows(write(tmp_path / "baker.json", BAKER))
    assert baker == {
        "key": "b-1",
        "title": "Baker & seller",
        "hard": ["kneading", "food safety"],
        "experience": "2 years",
        "occupation": "baker",
        "description": "We bake.\nknead\nsell\nA clean hand.",
        "place": "Leeds",
        "region": "Yorkshire",
        "country": "GB",
        "remote": False,
        "salary": 22_880.0,
        "currency": "GBP",
        "company": "Bakery",
        "employment_type": ["FULL_TIME", "CONTRACTOR"],
        "industry": "Food",
        "posted": "2026-01-18",
        "valid_through": "2026-03-18",
        "expires": "2026-03-18T00:00",
        "url": "https://example.org/jobs/1",
    }


@pytest.mark.parametrize(
    "shape",
    [
        lambda job: [{"@type": "Organization"}, job],
        lambda job: {"@context": "https://schema.org", "@graph": [{"@type": "WebPage"}, job]},
        lambda job: {"@type": "ItemList", "itemListElement": [{"@type": "ListItem", "position": 1, "item": job}]},
        lambda job: {**job, "@type": ["JobPosting", "Thing"]},
        lambda job: {**job, "@type": "https://schema.org/JobPosting"},
        lambda job: {f"schema:{name}" if name[0] != "@" else name: value for name, value in job.items()},
    ],
)
def test_a_posting_is_found_wherever_json_ld_has_it(tmp_path, shape):
    plain = rows(write(tmp_path / "a.json", BAKER))
    assert rows(write(tmp_path / "b.jsonld", shape(BAKER))) == plain


def test_what_is_named_by_its_id_is_looked_up(tmp_path):
    graph = [
        posting(jobLocation={"@id": "#here"}, hiringOrganization={"@id": "#ring"}),
        {"@id": "#here", "@type": "Place", "address": {"addressLocality": "York"}},
        {"@id": "#ring", "name": "Ring", "parentOrganization": {"@id": "#ring"}},
    ]
    (row,) = rows(write(tmp_path / "a.json", {"@graph": graph}))
    assert (row["place"], row["company"]) == ("York", "Ring")


def test_objects_that_all_refer_to_all_are_resolved_in_a_moment(tmp_path):
    everything = [{"@id": f"n{number}"} for number in range(60)]
    graph = [{**one, "name": one["@id"], "about": everything} for one in everything]
    file = write(tmp_path / "a.json", {"@graph": [*graph, posting(about=everything, hiringOrganization=everything[7])]})
    (row,) = rows(file)
    assert row["company"] == "n7"


def test_a_name_that_is_no_text_refers_to_nothing(tmp_path):
    (row,) = rows(write(tmp_path / "a.json", posting(hiringOrganization={"@id": ["n1"]})))
    assert row["company"] == ""


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_brackets_in_brackets_too_deep_to_read_are_refused_by_the_file(tmp_path, opening, closing):
    deep = opening * 700 + "1" + closing * 700
    text = json.dumps(posting(about=0)).replace('"about": 0', f'"about": {deep}')
    with pytest.raises(MarketError, match=r"a\.json.*: holds brackets in brackets too deep to read"):
        rows(write(tmp_path / "a.json", text))


@pytest.mark.parametrize("depth", [700, 100_000])
def test_brackets_in_brackets_too_deep_to_read_are_refused_by_the_page(tmp_path, depth):
    script = f'<script type="application/ld+json">{"[" * depth}{"]" * depth}</script>'
    with pytest.raises(MarketError, match=r"a\.html.*: holds brackets in brackets too deep to read"):
        rows(write(tmp_path / "a.html", script))


def test_postings_of_a_page_are_those_of_its_scripts(tmp_path):
    plain = rows(write(tmp_path / "a.json", BAKER))
    commented = f"<!-- {json.dumps(BAKER)} -->"
    assert rows(write(tmp_path / "b.html", page(json.dumps({"@type": "WebSite"}), commented))) == plain
    broken_lines = json.dumps(BAKER).replace("We bake.", "We\nbake.")
    (row,) = rows(write(tmp_path / "c.html", page(broken_lines)))
    assert row["description"].startswith("We bake.")
    two = rows(write(tmp_path / "d.html", page(json.dumps(BAKER), json.dumps(posting(identifier="b-2")))))
    assert [row["key"] for row in two] == ["b-1", "b-2"]


def test_a_folder_holds_files_and_pages(tmp_path):
    write(tmp_path / "a.json", BAKER)
    write(tmp_path / "b.html", page(json.dumps(posting(identifier="b-2"))))
    write(tmp_path / "c.html", page())
    write(tmp_path / "d.txt", "nothing")
    assert [row["key"] for row in rows(tmp_path)] == ["b-1", "b-2"]


def test_a_key_tells_postings_apart(tmp_path):
    lines = [posting(), posting(url="https://example.org/jobs/2")]
    many = write(tmp_path / "many.jsonl", "\n".join(map(json.dumps, lines)))
    assert [row["key"] for row in rows(many)] == ["https://example.org/jobs/1", "https://example.org/jobs/2"]
    alike = write(tmp_path / "alike.json", [BAKER, BAKER])
    assert [row["key"] for row in rows(alike)] == ["alike-1", "alike-2"]
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.json", BAKER)
    write(folder / "a.jsonld", BAKER)
    assert [row["key"] for row in rows(folder)] == ["a", "a (2)"]
    write(folder / "a.b.json", BAKER)
    assert [row["key"] for row in rows(folder)] == ["a.b", "a", "a (2)"]


@pytest.mark.parametrize(
    ("skills", "read"),
    [
        ("SQL, Python; R", ["SQL, Python", "R"]),
        ("SQL, Python", ["SQL", "Python"]),
        ("<ul><li>SQL</li><li>team, work</li></ul>", ["SQL", "team, work"]),
        ("- SQL\n- Python", ["SQL", "Python"]),
        ("You bake, and you have baked for others in a shop", ["You bake, and you have baked for others in a shop"]),
        ("You bake.", ["You bake."]),
    ],
)
def test_skills_in_a_text_are_separated_where_they_are_short(tmp_path, skills, read):
    (row,) = rows(write(tmp_path / "a.json", posting(skills=skills)))
    assert row["hard"] == read


def test_a_posting_without_skills_has_its_description_as_one_free_text(tmp_path, caplog):
    (row,) = rows(write(tmp_path / "a.json", posting(skills=None)))
    assert row["hard"] == [row["description"]]
    assert "1 of 1 list no skills" in caplog.text


@pytest.mark.parametrize(
    ("salary", "amount"),
    [
        ({"currency": "EUR", "value": {"value": 4_000, "unitText": "MONTH"}}, 48_000),
        ({"currency": "EUR", "minValue": "40,000", "maxValue": 50_000, "unitText": "YEAR"}, 45_000),
        ({"currency": "EUR", "value": 45_000}, 45_000),
        ("30000", 30_000),
        ("by agreement", None),
        ({"value": {"minValue": float("inf")}}, None),
        ("1,50,000.50", 150_000.5),
        ("1.234,50", None),
        ({"currency": "EUR", "value": {"value": "15,50", "unitText": "HOUR"}}, None),
        ({"currency": "EUR", "value": {"value": True}}, None),
        ({"currency": "EUR", "value": {"value": 10**400}}, None),
        (None, None),
    ],
)
def test_a_salary_is_of_a_year(tmp_path, salary, amount):
    assert rows(write(tmp_path / "a.json", posting(baseSalary=salary)))[0]["salary"] == amount


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        *((unit, 2080) for unit in ("HOUR", "hourly", "per hour", "/hr", "an hour", "HUR")),
        *((unit, 260) for unit in ("DAY", "Daily", "days")),
        *((unit, 52) for unit in ("WEEK", "weekly", "WEE")),
        *((unit, 12) for unit in ("MONTH", "Monthly", "PER MONTH", "a month", "MON", " mon. ")),
        *((unit, 1) for unit in ("YEAR", "yearly", "per annum", "p.a.", "Annual", "ANN", "")),
        *((unit, None) for unit in ("fortnight", "biweekly", "EUR", "per")),
    ],
)
@pytest.mark.parametrize("name", ["unitText", "unitCode"])
def test_the_unit_of_a_salary_may_be_a_word_or_a_code_and_an_unknown_one_leaves_it_out(tmp_path, unit, times, name):
    amount = None if times is None else 10 * times
    for salary in (
        {"value": {"value": 10, name: unit}},
        {"value": {"value": 10}, name: unit},
        {"value": 10, name: unit},
    ):
        (row,) = rows(write(tmp_path / "a.json", posting(baseSalary={"currency": "EUR", **salary})))
        assert (row["salary"], row["currency"]) == (amount, "EUR")


def test_a_known_unit_of_a_salary_counts_before_an_unknown_one(tmp_path):
    value = {"value": 10, "unitText": "Monat", "unitCode": "MON"}
    assert rows(write(tmp_path / "a.json", posting(baseSalary={"value": value})))[0]["salary"] == 120


@pytest.mark.parametrize(
    ("location", "kind", "place", "remote"),
    [
        ([{"address": {"addressLocality": "Rome"}}, {"address": {}}], None, "Rome", False),
        ({"address": "Rome, Italy"}, None, "Rome, Italy", False),
        ("Rome", None, "Rome", False),
        (None, "TELECOMMUTE", "", True),
        (None, None, "", None),
    ],
)
def test_a_place_may_be_written_in_many_ways(tmp_path, location, kind, place, remote):
    (row,) = rows(write(tmp_path / "a.json", posting(jobLocation=location, jobLocationType=kind)))
    assert (row["place"], row["remote"]) == (place, remote)


def test_text_of_html():
    assert html_text("plain, a < b") == "plain, a < b"
    assert html_text("&lt;p&gt;We bake&lt;/p&gt;") == "We bake"
    assert html_text("a<br>b<style>p {}</style> <b>c</b>") == "a\nb c"


def test_text_of_html_from_an_xml_feed():
    assert html_text("<![CDATA[We bake. <p>Bread</p>]]>") == "We bake.\nBread"
    assert html_text("<p><![CDATA[5 > 4]]></p><![CDATA[We sell]]>") == "5 > 4\nWe sell"
    assert html_text("&lt;![CDATA[&lt;p&gt;We bake&lt;/p&gt;]]&gt;") == "We bake"
    assert html_text("<script>//<![CDATA[\nif (a < b) {}\n//]]></script>We bake") == "We bake"


def test_text_of_broken_html():
    assert html_text("a <![endif]> b <![of no known name]>c <b>d</b> <!doctype x>e") == "a b c d e"
    assert html_text("<p>3 < 4 <a") == "3 < 4 <a"
    assert html_text("<p>" + "<a " * 100_000) == ("<a " * 100_000).strip(), "and does not take minutes"


def test_text_with_comments():
    assert html_text("a<!-- <p>b</p> -->c <b>d</b><!--e-- >") == "ac d"
    assert html_text("<p>a <!-- <b> c<p>d") == "a <!-- <b> c\nd", "nothing is lost where a comment never ends"
    assert html_text("a<script><!-- b </script>c") == "ac", "and a script ends"
    assert html_text("<b>a</b><!-- b --><!--> c") == "a<!--> c", "two dashes do not begin and end a comment"
    assert html_text("<p>" + "<!-- ->" * 100_000) == "<!-- ->" * 100_000, "and does not take minutes"


def test_postings_and_resumes_are_the_two_sides_of_a_market(tmp_path):
    jobs, people = tmp_path / "jobs", tmp_path / "people"
    for folder in (jobs, people):
        folder.mkdir()
    for n, place in enumerate(("Leeds", "York", "Leeds")):
        address = {"address": {"addressLocality": place}}
        write(jobs / f"{n}.json", posting(identifier=f"b-{n}", jobLocation=address))
        resume = {"basics": {"label": "Baker", "location": {"city": place}}, "skills": [{"name": "kneading"}]}
        write(people / f"p{n}.json", resume)
    options = {"encoder": "hashing", "context": {"place": "category"}}
    market = load_market(f"job-posting:{jobs}", applicants=f"json-resume:{people}", **options)
    assert market.job("b-1").context == {"place": "York"}
    assert market.applicant("p2").context == {"place": "Leeds"}
    assert market.job(0).hard_skills == ("food safety", "kneading")
    assert market.job(0).description.startswith("We bake.")
    turned = load_market(f"json-resume:{people}", jobs=f"job-posting:{jobs}", **options)
    assert turned.fingerprint() == market.fingerprint()
    found = load_market(f"json-resume:{people}", applicants=f"job-posting:{jobs}", encoder="hashing")
    assert found.job("p0").title == "Baker", "people are recommended to jobs"
    with pytest.raises(MarketError, match="with `jobs`, these people are the applicants: leave `applicants` out"):
        load_market(f"json-resume:{people}", jobs=f"job-posting:{jobs}", applicants="x.csv")


def test_people_of_a_table_are_shown_postings(tmp_path):
    write(tmp_path / "a.json", BAKER)
    write(tmp_path / "people.csv", "key,hard\np,kneading\n")
    market = load_market(
        f"job-posting:{tmp_path / 'a.json'}", applicants=str(tmp_path / "people.csv"), encoder="hashing"
    )
    assert market.applicant("p").hard_skills == ("kneading",)
    new = market.with_applicants(f"json-resume:{write(tmp_path / 'q.json', {'skills': ['baking']})}")
    assert new.applicant("q").hard_skills == ("baking",)


def test_what_holds_no_posting_is_refused(tmp_path):
    with pytest.raises(MarketError, match=r"a\.html has no JobPosting of schema\.org: .* Microdata and RDFa are not"):
        read_postings(write(tmp_path / "a.html", page()))
    with pytest.raises(MarketError, match=r"b\.html, script 1 of application/ld\+json: no JSON"):
        read_postings(write(tmp_path / "b.html", page('{"@type": "JobPosting"')))
    with pytest.raises(MarketError, match=r"c\.json has no JobPosting"):
        read_postings(write(tmp_path / "c.json", {"title": "a job"}))
