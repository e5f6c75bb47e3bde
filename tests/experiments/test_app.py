"""The page on which one is the applicant: what it keeps, what it says, and whom it refuses."""

import asyncio
import contextlib
import csv
import errno
import html
import itertools
import json
import math
import os
import re
import shutil
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor, wait
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("starlette", reason="needs the extra 'app'")
pytest.importorskip("python_multipart", reason="needs the extra 'app'")

from app_world import ENCODER, options, small_market
from commands import run_command
from starlette.testclient import TestClient

from experiments.runs.folders import RunError, write_text
from experiments.web import careers
from experiments.web.application import application
from experiments.web.careers import BANDIT, BEST, COSINE, planner
from experiments.web.charts import belief_bar, lines
from experiments.web.load import measured
from experiments.web.protection import LOOPBACK, MOST_BYTES, Protection
from experiments.web.serving import bound, locked, pages_of, serve, session_table
from experiments.web.visitors import Answer, Person, VisitError, VisitorFiles, person_of_resume, skills_in_text
from jobrec_gym import load_interactions, load_market

ORIGIN = {"origin": "http://localhost"}

RESUME = {
    "basics": {
        "name": "Ada Byron",
        "label": "programmer",
        "email": "ada@byron.example",
        "phone": "+44 20 7946 0958",
        "url": "https://byron.example",
        "location": {"address": "12 St James Square", "city": "London", "postalCode": "SW1Y 4JH"},
        "profiles": [{"network": "mail", "username": "countess"}],
        "summary": "I wrote the first program.",
    },
    "work": [{"name": "Analytical Engines", "position": "mathematician", "summary": "Notes on a machine"}],
    "skills": [{"name": "Python", "keywords": ["SQL", "ada@byron.example", "Byron's notes"]}],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    small_market(folder)
    return folder


@pytest.fixture(scope="module")
def pages(world):
    return pages_of(options(world))


def client_of(pages, hosts=LOOPBACK):
    return TestClient(application(*pages, hosts=hosts), base_url="http://localhost", headers=ORIGIN)


@pytest.fixture
def client(pages):
    return client_of(pages)


def begin(client, skills=("first aid", "decision making", "SQL")):
    page = client.post("/start", data={"occupation": "police officer", "skill": list(skills), "level": "2"})
    assert page.status_code == 200, page.text
    return page.text


def asked(page):
    return html.unescape(re.search(r'name="job" value="([^"]+)"', page)[1])


def secret_of(client):
    (secret,) = client.cookies.values()
    return secret


def visit_of(client, pages):
    return pages[0].find(secret_of(client))


def test_a_visit_moves_the_list_and_says_why(client, pages):
    page = begin(client)
    assert "What your last answer changed" in page and "Nothing yet" in page
    first = asked(page)
    before = visit_of(client, pages).recommender.mean.copy()

    page = client.post("/answer", data={"job": first, "decision": "apply"}).text

    visit = visit_of(client, pages)
    assert asked(page) != first
    change = visit.change
    assert change.decision == "apply" and pages[0].market.job(change.job_id).key == first
    moves = [one.after - one.before for one in change.moved]
    assert abs(moves[0]) == max(map(abs, moves)) and moves[0] != 0
    left = visit.recommender.left
    assert abs(moves[0]) == pytest.approx(np.abs(visit.recommender.mean - before)[left].max())
    moved = change.moved[0]
    job, other = pages[0].market.job(change.job_id), pages[0].market.job(moved.job_id)
    assert set(moved.shared) == {*job.hard_skills, *job.soft_skills} & {*other.hard_skills, *other.soft_skills}
    assert "You said <strong>apply</strong>" in page and f"{moves[0]:+.3f}" in page


def test_a_job_moves_by_how_many_others_it_passed(client, pages):
    page = begin(client)
    client.post("/answer", data={"job": asked(page), "decision": "ignore"})
    visit = visit_of(client, pages)
    recommender = visit.recommender
    others = [place for place in recommender.left if place != visit.asked]

    def rank(values, place):
        return 1 + sum(values[other] > values[place] for other in others)

    assert [rank(recommender.mean, place) for place in visit.listed] == list(range(1, 11))
    before = [rank(recommender.mean_before, place) for place in visit.listed]
    assert visit.before == [one if one <= 10 else None for one in before]


def test_the_page_shows_what_is_shared_and_missing_and_the_facts_of_a_job(client, pages):
    page = html.unescape(begin(client))
    visit = visit_of(client, pages)
    found = visit.recommender.near[visit.asked]
    job = pages[0].market.job(found.job_id)

    for skill in (*found.shared, *found.missing):
        assert f"<li>{skill}</li>" in page
    assert f"{job.context['place']} · pay {job.context['pay']:.0f}" in page
    believed = f"{visit.recommender.mean[visit.asked]:.2f}"
    assert believed in page and f"{visit.recommender.spread[visit.asked]:.2f}" in page
    assert [card.key for card in visit.recommender.near[:3]] == [
        visit.recommender.near[place].key for place in visit.recommender.nearest(3)
    ]


def test_answers_survive_a_restart_and_teach_the_same_agent(client, pages, world):
    page = begin(client)
    for decision in ("apply", "ignore", "save"):
        page = client.post("/answer", data={"job": asked(page), "decision": decision}).text
    before = visit_of(client, pages)

    again = pages_of(options(world))  # another process would do no more
    after = again[0].find(secret_of(client))

    assert after is not before and after.person == before.person
    assert after.recommender.answered == before.recommender.answered and len(after.recommender.answered) == 3
    np.testing.assert_allclose(after.recommender.mean, before.recommender.mean, atol=1e-9)
    assert (after.asked, after.listed, after.before) == (before.asked, before.listed, before.before)
    assert after.change.job_id == before.change.job_id


def test_answers_are_a_log_that_an_agent_reads(client, pages):
    page = begin(client)
    job = asked(page)
    client.post("/answer", data={"job": job, "decision": "save"})
    visit = visit_of(client, pages)

    market = pages[0].market.with_applicants(
        pages[0].files.log(visit.visitor_id).with_name("person.jsonl"), encoder="hashing"
    )
    log = load_interactions(f"jsonl:{pages[0].files.log(visit.visitor_id)}", market)

    assert len(log) == 1 and market.job(int(log.job_ids[0])).key == job and log.reward.tolist() == [0.5]
    assert len(log.shown(0)) > 5
    assert market.applicant(0).key == visit.visitor_id and secret_of(client) not in visit.visitor_id
    for name in ("log.jsonl", "person.jsonl"):
        sent = client.get(f"/{name}")
        assert sent.text == pages[0].files.log(visit.visitor_id).with_name(name).read_text()
        assert sent.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert client_of(pages).get("/person.jsonl").status_code == 404


def test_a_torn_row_at_the_end_of_a_log_is_left_out(tmp_path):
    files = VisitorFiles(tmp_path)
    files.add("v", Person("nurse", ("SQL",), ()))
    answers = [Answer("j1", "apply", ("j1", "j2")), Answer("j2", "ignore", ("j2",))]
    for one in answers:
        files.append("v", one)
    with files.log("v").open("ab") as log:
        log.write(b'{"applicant": "v", "jo')

    assert files.answers("v") == answers
    files.append("v", answers[0])
    assert files.answers("v") == [*answers, answers[0]]


def test_an_answer_is_on_the_disk_before_it_is_learned_from(client, pages, monkeypatch):
    page = begin(client)
    visit = visit_of(client, pages)

    def killed(place, decision):
        raise KeyboardInterrupt

    monkeypatch.setattr(visit.recommender, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        pages[0].answer(visit, asked(page), "apply")
    assert [one.decision for one in pages[0].files.answers(visit.visitor_id)] == ["apply"]


def test_a_job_keeps_its_first_answer(client, pages):
    job = asked(begin(client))
    client.post("/answer", data={"job": job, "decision": "apply"})
    client.post("/answer", data={"job": job, "decision": "ignore"})
    visit = visit_of(client, pages)
    assert [one.decision for one in pages[0].files.answers(visit.visitor_id)] == ["apply"]
    assert list(visit.recommender.answered.values()) == ["apply"]


def test_visitors_are_strangers_to_each_other(pages):
    one, other = client_of(pages), client_of(pages)
    first, second = begin(one), begin(other)
    assert asked(first) == asked(second), "both start from the same file"
    one.post("/answer", data={"job": asked(first), "decision": "ignore"})
    assert visit_of(other, pages).recommender.answered == {}
    assert asked(other.get("/").text) == asked(second)


def test_those_longest_away_are_read_anew(world):
    visits, _ = pages_of(options(world, most_visits=1))
    person = Person("", ("SQL",), ())
    first, second = visits.new_secret(None), visits.new_secret(None)
    visits.begin(first, person)
    old = visits.begin(second, person)
    visits.answer(visits.find(first), visits.find(first).recommender.near[visits.find(first).asked].key, "apply")
    assert len(visits.find(first).recommender.answered) == 1
    assert visits.find(second) is not old


def test_requests_of_a_visit_that_was_read_anew_meanwhile_answer_it_once(world):
    visits, _ = pages_of(options(world, most_visits=1))
    first = visits.new_secret(None)
    old = visits.begin(first, Person("", ("SQL",), ()))
    job = old.recommender.near[old.asked].key
    visits.begin(visits.new_secret(None), Person("", ("SQL",), ()))  # puts the first one out of memory

    with (
        ThreadPoolExecutor(1) as pool,
        old.lock,
    ):  # a request is about to write an answer of the visit that it has found
        other = pool.submit(visits.find, first)  # while another one reads the visit anew
        assert not wait([other], 0.05).done
        assert visits.answer(old, job, "apply")
    assert other.result() is visits.find(first) is not old
    assert not visits.answer(old, job, "ignore"), "the visit in memory knows of the answer"
    assert [one.decision for one in visits.files.answers(old.visitor_id)] == ["apply"]


def test_a_form_that_is_sent_twice_is_of_one_visitor(client, pages):
    folder = pages[0].files.log("x").parents[1]
    before = set(folder.iterdir()) if folder.exists() else set()
    client.get("/")
    secret = secret_of(client)
    begin(client)
    begin(client, skills=["cooking"])
    assert secret_of(client) == secret
    assert {path.name for path in set(folder.iterdir()) - before} == {VisitorFiles.id_of(secret)}
    assert "cooking" not in visit_of(client, pages).person.hard


def test_a_form_that_is_sent_twice_at_once_is_of_one_visitor(pages):
    visits, secret = pages[0], pages[0].new_secret(None)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda skill: visits.begin(secret, Person("", (skill,), ())), ["SQL", "Go", "R", "C"]))
    assert len(set(found)) == 1 and visits.files.person(visits.files.id_of(secret)) == found[0].person


def test_no_more_visitors_are_kept_than_was_said(world, tmp_path):
    pages = pages_of(options(world, visitors=str(tmp_path), most_visitors=1))
    begin(client_of(pages))
    late = client_of(pages)
    page = late.post("/start", data={"skill": "SQL"})
    assert page.status_code == 422 and "This page keeps at most 1 visitors, and has as many already" in page.text
    assert len(list(tmp_path.glob("*/"))) == 1 and "Who are you?" in late.get("/").text


def test_each_folder_has_a_cookie_of_its_own_that_stays_when_it_is_moved(pages, world, tmp_path):
    other = pages_of(options(world, visitors=str(tmp_path / "before")))
    both = client_of(pages)
    page = begin(both)
    visit = visit_of(both, pages)
    both.post("/answer", data={"job": asked(page), "decision": "save"})

    second = client_of(other)
    second.cookies = both.cookies  # a browser sends the cookies of one host to all its ports
    begin(second)
    second.post("/forget")
    both.cookies = second.cookies
    assert visit.visitor_id in both.get("/log.jsonl").text and "1 answer so far" in both.get("/").text

    name = other[0].files.cookie()
    moved = (tmp_path / "before").rename(tmp_path / "after")
    assert VisitorFiles(moved).cookie() == name != pages[0].files.cookie()
    (moved / "cookie.txt").write_text("jobrec_visit; Domain=example.org")
    with pytest.raises(RunError, match=r"cookie\.txt must have the name of the visitors' cookie, .*'jobrec_visit; D"):
        VisitorFiles(moved).cookie()


def test_a_second_server_on_the_same_folder_is_refused_by_the_address_of_the_first(world, tmp_path):
    given = {**options(world), "folder": str(tmp_path / "app"), "host": "127.0.0.1"}
    given["visitors"] = str(tmp_path / "visitors")
    other = {**given, "folder": str(tmp_path / "other")}
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", 0) as second:
        address = f"http://127.0.0.1:{first.getsockname()[1]}"
        with locked(given, first):
            with (
                pytest.raises(RunError, match=rf"`folder`: the server at {address} \(process {os.getpid()}\) uses"),
                locked(given, second),
            ):
                pass
            with pytest.raises(RunError, match=rf"`visitors`: the server at {address}"), locked(other, second):
                pass
            done = run_command("app", "port=0", f"folder={given['folder']}", "source=nowhere")
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: `folder`: the server at {address}"), "before anything is loaded"
        with locked(given, second), locked({**given, "folder": str(world), "visitors": str(world)}, first):
            files = VisitorFiles(tmp_path / "visitors", most=1)
            files.add("a", Person("", ("SQL",), ()))  # the lock is no visitor


@pytest.mark.waits
def test_two_who_come_at_once_are_counted_one_after_the_other(tmp_path, monkeypatch):
    files = VisitorFiles(tmp_path / "visitors", most=1)
    both = threading.Barrier(2)
    monkeypatch.setattr("experiments.web.visitors.write_text", lambda *given: (_met(both), write_text(*given)))

    def come(visitor_id):
        try:
            files.add(visitor_id, Person("", ("SQL",), ()))
        except VisitError:
            return "refused"
        return "kept"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(come, ["a", "b"])) == ["kept", "refused"]
    assert len(list((tmp_path / "visitors").iterdir())) == 1


def _met(both):
    """Waits a little for another thread, which comes only if nothing keeps it out."""
    with contextlib.suppress(threading.BrokenBarrierError):
        both.wait(0.2)


def test_a_visitor_for_whom_there_is_no_room_is_not_counted(tmp_path, monkeypatch):
    files, person = VisitorFiles(tmp_path / "visitors", most=1), Person("", ("SQL",), ())

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("experiments.web.visitors._sync_folder", full)
        files.add("a", person)
    files.add("b", person)
    assert files.person("a") is None and files.person("b") == person


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_an_answer_for_which_there_is_no_room_is_not_kept_in_part(client, pages):
    from little_room import room_for

    page = begin(client)
    page = client.post("/answer", data={"job": asked(page), "decision": "save"}).text
    visit = visit_of(client, pages)
    log = pages[0].files.log(visit.visitor_id)
    before = log.read_bytes()
    with room_for(len(before) + 40):
        refused = client.post("/answer", data={"job": asked(page), "decision": "apply"})
    assert refused.status_code == 507 and "The server could not keep that: File too large" in refused.text
    assert log.read_bytes() == before and len(visit.recommender.answered) == 1
    client.post("/answer", data={"job": asked(page), "decision": "apply"})
    assert [one.decision for one in pages[0].files.answers(visit.visitor_id)] == ["save", "apply"]


@pytest.mark.parametrize("row", ["[]", "{", '{"job": "a", "decision": "hire", "shown": []}', "\x00"])
def test_a_log_that_holds_something_else_is_told_by_file_and_row(client, pages, world, row):
    page = begin(client)
    client.post("/answer", data={"job": asked(page), "decision": "save"})
    log = pages[0].files.log(visit_of(client, pages).visitor_id)
    with log.open("a") as file:
        file.write(f"{row}\n")
    again = client_of(pages_of(options(world)))
    again.cookies = client.cookies
    page = again.get("/")
    assert page.status_code == 500 and "log.jsonl, row 2 is no answer" in html.unescape(page.text)


def test_nothing_is_kept_of_who_forgets(client, pages):
    page = begin(client)
    client.post("/answer", data={"job": asked(page), "decision": "save"})
    folder = pages[0].files.log(visit_of(client, pages).visitor_id).parent
    assert folder.is_dir()
    page = client.post("/forget").text
    assert "Who are you?" in page and not folder.exists()
    assert VisitorFiles.id_of(secret_of(client)) != folder.name, "who comes next is somebody else"


@pytest.mark.parametrize("name", ["person.jsonl", "somebody.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_file_of_a_visitor_that_is_not_whole_is_told_in_words(client, pages, world, name, content):
    begin(client)
    client.post("/somebody", data={"steps": "1"})
    file = pages[0].files.log(visit_of(client, pages).visitor_id).with_name(name)
    file.write_text(content)
    again = client_of(pages_of(options(world)))
    again.cookies = client.cookies
    page = again.get("/somebody")
    assert page.status_code == 500 and f"{name} is not whole" in page.text


def test_a_visitor_whose_files_cannot_be_removed_is_told_so_and_can_try_again(client, pages, monkeypatch):
    begin(client)
    folder = pages[0].files.log(visit_of(client, pages).visitor_id).parent

    def refused(path, **how):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("experiments.web.visitors.shutil.rmtree", refused)
        page = client.post("/forget")
    assert page.status_code == 500 and "Not everything of you is deleted" in page.text
    assert folder.is_dir() and "Jobs for" in client.get("/").text
    client.post("/forget")
    assert not folder.exists()


def test_nothing_is_written_of_who_forgot_meanwhile(client, pages):
    job = asked(begin(client))
    visits, visit = pages[0], visit_of(client, pages)
    folder = visits.files.log(visit.visitor_id).parent
    visits.forget(visit)  # while requests of a second window wait for it
    with pytest.raises(VisitError, match="This visit was deleted: begin anew"):
        visits.answer(visit, job, "apply")
    with pytest.raises(VisitError, match="This visit was deleted: begin anew"):
        visits.watch(visit, 1)
    assert not folder.exists()


def test_a_title_in_any_script_is_read_back_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("io.text_encoding", lambda encoding, level=2: encoding or "latin-1")
    files, person = VisitorFiles(tmp_path), Person("Pflegekräfte, 看護師", ("Łódź",), ())
    files.add("v", person)
    assert files.person("v") == person


# ------------------------------------------------------------------------------------------------------------- résumés


def test_only_title_and_skills_are_taken_of_a_resume(client, pages, world):
    sent = {"resume": ("ada.json", json.dumps(RESUME), "application/json")}
    page = client.post("/start", files=sent).text

    visit = visit_of(client, pages)
    assert visit.person == Person("programmer", ("Python", "SQL"), ())
    client.post("/answer", data={"job": asked(page), "decision": "save"})
    written = b"".join(file.read_bytes() for file in (world / "visitors").rglob("*") if file.is_file()).lower()
    kept = page.lower()
    for word in ("ada@", "byron", "7946", "james", "london", "sw1y", "countess", "first program", "engines", "notes"):
        assert word.encode() not in written and word not in kept, word


def test_a_title_that_is_a_name_is_left_out(pages):
    resume = {"basics": {"name": "Ada Byron", "label": "Ada, programmer"}, "skills": ["SQL"]}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).title == ""


PRIVATE = {
    "name": "Jane Doe",
    "phone": "(912) 555-4321 ext. 7",
    "email": "jd@mail.example",
    "url": "https://www.janedoe.dev/?lang=en",
    "location": {"address": "12 Elm Street, Apt 4"},
    "profiles": [{"url": "http://code.example/jd9/"}],
}


@pytest.mark.parametrize(
    "skill",
    [
        *("call 912-555-4321", "912 555 4321", "+1 912.555.4321, evenings", "555/4321", "٩١٢٥٥٥٤٣٢١"),
        *("see janedoe.dev", "www.JaneDoe.dev/cv", "code.example/jd9", "jd (at) mail [dot] example"),
        *("12 Elm St.", "Elm Street", "elm-str", "12, Elm Street"),
    ],
)
def test_what_is_private_in_a_resume_is_so_in_any_spelling(pages, skill):
    for basics in (PRIVATE, {**PRIVATE, "phone": 9125554321}):
        resume = {"basics": {**basics, "label": skill}, "skills": ["SQL", skill]}
        person = person_of_resume(json.dumps(resume).encode(), pages[0].market)
        assert person == Person("", ("SQL",), ())


@pytest.mark.parametrize(("address", "skill"), [("Hauptstraße 5", "in der Hauptstr."), ("Hauptstr. 5", "HAUPTSTRASSE")])
def test_a_street_of_one_word_is_private_when_abbreviated(pages, address, skill):
    resume = {"basics": {"location": {"address": address}}, "skills": ["SQL", skill]}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).hard == ("SQL",)


@pytest.mark.parametrize(
    ("address", "skill"), [("1 Machine Lane", "machine learning"), ("1 Customer Street", "customer service")]
)
def test_a_word_that_only_begins_like_that_of_a_street_is_kept(pages, address, skill):
    resume = {"basics": {"location": {"address": address}}, "skills": ["SQL", skill]}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).hard == ("SQL", skill)


def test_skills_that_are_only_like_something_private_are_kept(pages):
    skills = ("Elm", "ISO 9001:2015", "12 factor apps", "code review", "C++", "dev tools", "good at SQL", "555 timers")
    resume = {"basics": PRIVATE, "skills": list(skills)}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).hard == skills


def test_an_alias_in_a_list_is_private_and_a_network_or_country_is_none(pages):
    basics = {"aliases": ["Countess"], "location": {"countryCode": "IT"}, "profiles": [{"network": "GitHub"}]}
    resume = {"basics": basics, "skills": ["countess", "IT support", "GitHub"]}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).hard == ("IT support", "GitHub")


@pytest.mark.parametrize("spelt", ["NFC", "NFD"])
@pytest.mark.parametrize(("name", "skill"), [("José Núñez", "notes of José"), ("Ada\u00ad Byron", "Ada's notes")])
def test_a_name_is_private_however_its_letters_are_written(pages, spelt, name, skill):
    other = {"NFC": "NFD", "NFD": "NFC"}[spelt]
    skills = [{"name": "SQL"}, {"name": unicodedata.normalize(other, skill)}]
    resume = {"basics": {"name": unicodedata.normalize(spelt, name)}, "skills": skills}
    assert person_of_resume(json.dumps(resume).encode(), pages[0].market).hard == ("SQL",)


def test_a_resume_of_very_many_names_and_skills_is_searched_by_one_pattern(pages, monkeypatch):
    basics = {"aliases": [f"alias{number}" for number in range(1_500)]}
    skills = [*(f"skill {number}" for number in range(150)), "of alias7"]
    patterns = []
    for name in ("compile", "search"):
        made = getattr(re, name)
        monkeypatch.setattr(re, name, lambda *given, made=made: patterns.append(given[0]) or made(*given))
    person = person_of_resume(json.dumps({"basics": basics, "skills": skills[::-1]}).encode(), pages[0].market)
    assert len([pattern for pattern in patterns if "alias7" in pattern]) == 1
    assert person.hard[0] == "skill 149" and "of alias7" not in person.hard


def test_others_are_answered_while_a_resume_is_read(client, monkeypatch):
    def read(content, market):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        raise VisitError("not in the server's loop")

    monkeypatch.setattr("experiments.web.application.person_of_resume", read)
    page = client.post("/start", files={"resume": ("x.json", b"{}", "application/json")})
    assert "not in the server&#39;s loop" in page.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not json", "no JSON Resume"),
        (b"[1, 2]", "no JSON Resume"),
        (b"[" * 100_000, "no JSON Resume"),
        (b"\xff\xfe", "no JSON Resume"),
        (b'{"basics": {"label": "nurse"}}', "lists no skills"),
        (b'{"skills": [{"name": 5, "keywords": {"a": 1}}]}', "lists no skills"),
        (b'{"basics": "x", "skills": [null, 3, "@"]}', "lists no skills"),
    ],
)
def test_what_is_no_resume_is_refused_in_words(client, content, said):
    page = client.post("/start", files={"resume": ("x.json", content, "application/json")})
    assert page.status_code == 422 and said in page.text and not client.cookies


def test_a_large_upload_is_refused_before_it_is_read(client):
    page = client.post("/start", files={"resume": ("x.json", b"x" * MOST_BYTES, "application/json")})
    assert page.status_code == 413

    def endless():
        for _ in range(100):
            yield b"x" * 10_000

    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/answer", content=endless(), headers=form).status_code == 413


def test_what_visitors_write_is_escaped(client):
    page = begin(client, skills=["<script>alert(1)</script>", 'x" onload="alert(2)'])
    assert "<script>alert" not in page and 'x" onload' not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"occupation": "nurse"}, "at least one skill"),
        ({"skill": ["---", " "]}, "at least one skill"),
        ({"skill": "SQL", "level": "9"}, "level must be a whole number from 0 to 5"),
        ({"skill": "SQL", "level": "-1"}, "level must be a whole number from 0 to 5"),
    ],
)
def test_a_form_that_says_too_little_is_refused_in_words(client, form, said):
    page = client.post("/start", data=form)
    assert page.status_code == 422 and said in page.text


def test_skills_are_written_with_commas_semicolons_or_lines():
    assert skills_in_text("SQL, Python;first aid\n\nwelding,") == ["SQL", "Python", "first aid", "welding"]


def test_of_very_many_skills_the_first_count(pages):
    many = [f"skill {number}" for number in range(500)]
    assert len(Person.checked("", many, pages[0].market).hard) == 60
    with pytest.raises(VisitError, match="at least one skill"):
        Person.checked("nurse", [], pages[0].market)


# ---------------------------------------------------------------------------------------------------------- protection


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(client, pages, headers):
    job = asked(begin(client))
    assert client.post("/answer", data={"job": job, "decision": "apply"}, headers=headers).status_code == 403
    assert visit_of(client, pages).recommender.answered == {}


def test_a_server_on_loopback_answers_to_its_own_names_alone(pages):
    client = client_of(pages)
    assert client.get("/", headers={"host": "rebound.example:8000"}).status_code == 400
    assert client.get("/", headers={"host": "[::1]:8000"}).status_code == 200
    assert client_of(pages, hosts=None).get("/", headers={"host": "jobs.example"}).status_code == 200


@pytest.mark.parametrize(("headers", "status"), [({"host": "["}, 400), ({"origin": "http://["}, 403)])
def test_a_header_that_is_no_address_is_refused_like_a_foreign_one(client, headers, status):
    refused = client.post("/forget", headers=headers)
    assert refused.status_code == status and "content-security-policy" in refused.headers


def test_every_answer_forbids_scripts_and_styles_of_others(client):
    client.post("/start", data={"skill": "SQL"})
    for address in ("/", "/somebody", "/career", "/static/app.js", "/nowhere"):
        answer = client.get(address)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=|https?://(?!jsonresume|www.w3)", answer.text)


def test_the_cookie_is_kept_from_scripts_and_other_sites(client):
    sent = client.post("/start", data={"skill": "SQL"}, follow_redirects=False).headers["set-cookie"].lower()
    assert "httponly" in sent and "samesite=lax" in sent


def test_to_open_a_page_changes_no_file_so_another_site_may_link_to_it(client, pages, world):
    page = begin(client)
    client.post("/answer", data={"job": asked(page), "decision": "save"})
    client.post("/somebody", data={"steps": "1"})

    def kept():
        return {file: file.read_bytes() for file in (world / "visitors").rglob("*") if file.is_file()}

    before = kept()
    foreign = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    for address in ("/", "/?occupation=nurse", "/start", "/answer", "/forget", "/somebody", "/career", "/log.jsonl"):
        for query in ("", f"{'&' if '?' in address else '?'}steps=1&another=yes&decision=apply"):
            for ask in (client.get, client.head):
                assert ask(f"{address}{query}", headers=foreign).status_code in (200, 405)
    assert kept() == before and len(visit_of(client, pages).recommender.answered) == 1


def test_the_cookie_lasts_from_the_latest_page_of_a_visit(client):
    secret = begin(client) and secret_of(client)
    for address in ("/", "/somebody"):
        page = client.get(address)
        (sent,) = page.headers.get_list("set-cookie")
        assert f"={secret}; " in sent and "Max-Age=2592000;" in sent
    assert "within 30 days" in client.get("/").text
    client.post("/forget")
    assert "until you have not been here for 30 days" in client.get("/").text


POST = {
    "type": "http",
    "method": "POST",
    "path": "/start",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")],
}


async def answered(app, receive):
    """What an application sends to a browser."""
    sent = []

    async def send(message):
        sent.append(message)

    await app(dict(POST), receive, send)
    return sent


def test_who_goes_away_while_sending_is_no_error(pages):
    parts = iter([{"type": "http.request", "body": b"skill=S", "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(parts)

    assert asyncio.run(answered(application(*pages), receive)) == []


def test_a_request_that_does_not_arrive_is_refused(pages):
    app = Protection(application(*pages), LOOPBACK, most_seconds=0.01)

    async def receive():
        return await asyncio.get_running_loop().create_future()

    start, body = asyncio.run(answered(app, receive))
    assert start["status"] == 408 and (b"connection", b"close") in start["headers"]
    assert body["body"] == b"A request may take 0.01 seconds at most."


def test_after_a_request_has_arrived_its_answer_may_take_long():
    async def slow(scope, receive, send):
        assert (await receive())["body"] == b"a=b"
        assert (await receive())["type"] == "http.disconnect"

    async def receive():
        if parts:
            return parts.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    parts = [{"type": "http.request", "body": b"a=b", "more_body": False}]
    assert asyncio.run(answered(Protection(slow, LOOPBACK, most_seconds=0.01), receive)) == []


@pytest.mark.parametrize("secret", ["", "x", "../../etc", "a" * 5_000])
def test_a_cookie_of_nobody_begins_anew(client, pages, secret):
    assert "Who are you?" in client.get("/", headers={"cookie": f"{pages[0].files.cookie()}={secret}"}).text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"decision": "hire"}, "An answer must be one of"),
        ({"job": "J9999999", "decision": "apply"}, "not on your page"),
        ({}, "An answer must be one of"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_in_words(client, pages, form, said):
    form = {"job": asked(begin(client)), **form}
    page = client.post("/answer", data=form)
    assert page.status_code == 422 and said in page.text
    assert visit_of(client, pages).recommender.answered == {}


@pytest.mark.parametrize(("address", "name"), [("/answer", "decision"), ("/answer", "job"), ("/start", "skill")])
def test_a_file_in_place_of_a_text_is_refused_in_words(client, address, name):
    if address == "/answer":
        begin(client)
    page = client.post(address, data={"decision": "apply"} if name == "job" else {}, files={name: b"apply"})
    assert page.status_code == 422 and f"{name} must be a text, and was a file." in page.text


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("256.256.256.256", "`host` must be a name or an address of this machine"),
        (None, "`host` must be a name or an address of this machine, .* got None"),
        ("", "`host` must be a name or an address of this machine, .* got ''"),
        ("127.0.0.1", "`port` [0-9]+ is taken"),  # by an app that still trains
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_in_words(host, said):
    with bound("127.0.0.1", 0) as first, pytest.raises(RunError, match=said):
        bound(host, first.getsockname()[1])


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    done = run_command("app", "port=0", f"folder={tmp_path / 'file' / 'app'}")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'file' / 'app'}: Not a directory.\n"


def test_one_warning_is_given_where_others_can_reach_it(pages, capsys, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    serve(pages, "127.0.0.1", bound("127.0.0.1", 0))
    assert "warning" not in capsys.readouterr().out
    serve(pages, "0.0.0.0", bound("0.0.0.0", 0))
    assert capsys.readouterr().out.count("warning: whoever reaches 0.0.0.0") == 1


# ------------------------------------------------------------------------------------------------------- somebody else


def test_somebody_else_answers_with_regret_beside_the_oracle(client, pages, world):
    begin(client)
    client.post("/somebody", data={"steps": "1"})
    page = client.post("/somebody", data={"steps": "4"}).text
    somebody = pages[0].somebody(visit_of(client, pages))
    regret = somebody.regret()

    assert "Regret after 5 recommendations" in page
    for name, steps in somebody.steps.items():
        assert len({step.place for step in steps}) == 5, f"{name} recommends a job once"
        assert (regret[name] >= -1e-12).all() and regret[name][0] == 0
        assert f"{regret[name][-1]:.2f}" in page
    assert [step.place for step in somebody.steps["cosine"]] == [0, 1, 2, 3, 4]

    again = pages_of(options(world))[0]
    kept = again.somebody(again.find(secret_of(client)))
    assert kept.steps == somebody.steps


def test_another_somebody_begins_anew(client, pages):
    begin(client)
    client.post("/somebody", data={"steps": "2"})
    first = pages[0].somebody(visit_of(client, pages)).applicant_id
    page = client.post("/somebody", data={"steps": "0", "another": "yes"}).text
    assert pages[0].somebody(visit_of(client, pages)).applicant_id != first
    assert "Regret after 0 recommendations" in page


@pytest.mark.parametrize("form", [{"steps": "3"}, {"steps": "3", "another": "yes"}], ids=str)
def test_recommendations_that_cannot_be_kept_are_not_played(client, pages, form):
    begin(client)
    client.post("/somebody", data={"steps": "2"})
    visit = visit_of(client, pages)
    before = pages[0].somebody(visit)
    kept = pages[0].files.log(visit.visitor_id).with_name("somebody.json")
    kept.unlink()
    kept.mkdir()
    refused = client.post("/somebody", data=form)
    assert refused.status_code == 507 and "Nothing is changed" in refused.text
    assert pages[0].somebody(visit) is before and len(before) == 2
    kept.rmdir()

    client.post("/somebody", data=form)
    again = pages[0].somebody(visit)
    n = 3 if "another" in form else 5
    assert len(again) == n and pages[0].files.somebody(visit.visitor_id)["steps"] == n
    client.post("/somebody", data={"steps": "100"})
    assert pages[0].files.somebody(visit.visitor_id)["steps"] == len(pages[0].somebody(visit)) == 30, "all jobs"


def test_a_job_is_answered_alike_whoever_recommends_it(client, pages):
    begin(client)
    client.post("/somebody", data={"steps": "30"})
    somebody = pages[0].somebody(visit_of(client, pages))
    answers = [{step.place: step.decision for step in steps} for steps in somebody.steps.values()]
    assert answers[0] == answers[1] == answers[2], "after all 30 jobs all were answered"
    assert {name: round(values[-1], 9) for name, values in somebody.regret().items()} == dict.fromkeys(
        somebody.steps, 0.0
    )


def test_sessions_of_simulated_visitors_are_told_beside_cosine(world):
    (header, rows), said = session_table(options(world))
    assert len(header) == 4 and len(rows) == 3
    better = sum(float(row[1]) > float(row[2]) for row in rows)
    assert f"in {better} of 3 sessions" in said
    for row in rows:
        assert float(row[3]) >= max(float(row[1]), float(row[2]))
    with pytest.raises(RunError, match=r"`sessions` must be in \[1, 20\]"):
        session_table(options(world, sessions=21))


@pytest.mark.waits
def test_a_page_about_somebody_waits_while_they_answer(client, pages, monkeypatch):
    begin(client)
    somebody = pages[0].somebody(visit_of(client, pages))
    loading = []

    with ThreadPoolExecutor(1) as pool:
        learn = somebody._learning["linear"].learn

        def learn_while_another_tab_loads(place, decision):
            loading.append(pool.submit(client.get, "/somebody"))
            wait(loading, 0.1)  # dynaq_plus has its answer, the bandit not yet
            learn(place, decision)

        monkeypatch.setattr(somebody._learning["linear"], "learn", learn_while_another_tab_loads)
        assert client.post("/somebody", data={"steps": "1"}).status_code == 200
        (page,) = (one.result(60) for one in loading)
    assert page.status_code == 200 and "Regret after 1 recommendation" in page.text


# -------------------------------------------------------------------------------------------------------------- career


def test_a_career_is_shown_under_each_policy_when_agents_have_learned(client, pages):
    careers = pages[1]
    page = client.get("/career").text
    assert "0 of 3 agents have learned" in page and BEST in page and BANDIT not in page
    assert "this server lets no agent learn" in page and "data-again" not in page
    careers.learns = True
    page = client.get("/career").text
    assert "in the background" in page and "data-again" in page
    careers.learns = False

    careers.learn(print)
    assert careers._agent(BANDIT).seed == 0, "each folder has the same bandit"
    page = client.get("/career?applicant=1&gamma=0").text

    for name in (COSINE, BANDIT, planner(0.0), BEST):
        career = careers.career(careers.people[1], name)
        assert name in page and f"{career.earned:.1f}" in page
        assert len(career.steps) == 40 or career.left
        assert all(1 <= level <= 5 for level in career.levels())
    assert planner(0.9) not in page and planner(0.9) in client.get("/career?gamma=1").text


def test_agents_of_careers_that_were_made_of_other_things_are_made_anew(pages, world):
    pages[1].learn(print)
    assert pages[1].progress() == (3, 3)
    changed = options(world)
    changed["career"] = {"gammas": [0.0, 0.9], "interactions": 9, "learn": False}
    assert pages_of(changed)[1].progress() == (0, 3)


@pytest.mark.parametrize("content", ['{"asked": ', "[]", '{"format": "jobrec-results/9"}', "{}"])
def test_an_agent_of_careers_whose_record_is_damaged_is_made_again(pages, content):
    pages[1].learn(print)
    (record,) = (pages[1]._folder).glob("linear*.json")
    record.write_text(content)
    assert pages[1].progress() == (2, 3)
    pages[1].learn(print)
    assert pages[1].progress() == (3, 3)


def test_the_process_that_learns_careers_ends_with_the_server(pages, world, monkeypatch):
    def ends():
        raise EOFError

    monkeypatch.setattr(careers, "end_with_parent", ends)
    with pytest.raises(EOFError):
        careers._learn_aside(world / "careers", str(world / "market"), [0.0], 8, {})


def test_agents_that_cannot_be_read_are_told_with_the_way_out(world, tmp_path):
    folder = shutil.copytree(world, tmp_path / "copy")
    given = options(folder)
    pages = pages_of(given)
    pages[1].learn(print)
    for file in (folder / "careers").glob("DynaQ*.zip"):
        file.write_bytes(b"of another version")
    page = client_of(pages).get("/career")
    assert page.status_code == 500 and "and agents learn careers again" in page.text

    (folder / "start" / "dynaq_plus.zip").write_bytes(b"of another version")
    with pytest.raises(RunError, match=r"dynaq_plus\.zip .*the agents are then made anew"):
        pages_of(given)


def test_a_career_that_was_played_does_not_wait_for_another_one(pages):
    careers = pages[1]
    played = careers.career(careers.people[0], COSINE)
    with careers._lock, ThreadPoolExecutor(1) as pool:  # another one is played
        assert pool.submit(careers.career, careers.people[0], COSINE).result(60) is played


@pytest.mark.parametrize(
    "query",
    ["gamma=2", "gamma=0.9", "gamma=0000000005", f"gamma={'0' * 5_000}", "applicant=-1", f"applicant={'9' * 21}"],
)
def test_a_career_that_is_not_there_is_refused_in_words(client, query):
    page = client.get(f"/career?{query}")
    assert page.status_code == 422 and "must be a whole number" in page.text
    assert ("gamma (its place on the slider) must" in page.text) == query.startswith("gamma")


# ------------------------------------------------------------------------------------------------ a market of one's own


def test_texts_of_a_market_come_back_from_the_page_as_they_are(tmp_path):
    alike = {"occupation": "data  engineer", "seniority": 1}
    jobs = [{"key": f"https://jobs.example/{'x' * 320}/{n}", "hard": ["SQL", f"skill {n}"], **alike} for n in range(40)]
    people = [{"key": f"p{n}", "hard": ["SQL", f"skill {n}"]} for n in range(4)]
    for name, rows in (("jobs", jobs), ("people", people)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = load_market(
        f"jsonl:{tmp_path / 'jobs.jsonl'}",
        applicants=tmp_path / "people.jsonl",
        encoder="hashing",
        cache_dir=False,
        test_fraction=0.5,
    )
    made.save(tmp_path / "market")
    client = client_of(pages := pages_of(options(tmp_path)))

    (occupation,) = map(html.unescape, re.findall(r'<option value="([^"]*)"', client.get("/").text))
    page = client.get("/", params={"occupation": occupation}).text
    assert "There is no occupation" not in page and "Skills of yours" in page
    page = client.post("/start", data={"occupation": occupation, "skill": "SQL"}).text
    job = asked(page)
    assert len(job) > 300
    page = client.post("/answer", data={"job": job, "decision": "apply"})
    assert page.status_code == 200 and len(visit_of(client, pages).recommender.answered) == 1
    assert "<strong>apply</strong> to data engineer" in page.text, "it has no title, but an occupation"


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_nearest": 0}, "`n_nearest` must be 1 or more"),
        ({"source": "nowhere"}, "`source` must be 'default' or the folder of a saved market, got 'nowhere'"),
        ({"career": {"gammas": [1.0], "interactions": 8, "learn": False}}, r"`career.gammas` must be discounts in"),
        (
            {"career": {"gammas": [0.5], "interactions": 8, "learn": "no"}},
            "`career.learn` must be true or false, got 'no'",
        ),
        ({"career": {"gammas": [0.5], "interactions": 0, "learn": False}}, "`career.interactions` must be 1 or more"),
        ({"start": {"interactions": 6, "truth": {"seed": 2, "noise": 0.5}}}, "made with another interactions"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(pages, world, changed, said):
    with pytest.raises(RunError, match=said):
        pages_of(options(world, **changed))


def test_counts_of_the_page_that_are_written_as_floats_are_whole(world, tmp_path):
    few = {"start": {"interactions": 5.0, "truth": {"seed": 2, "noise": 0.5}}}
    few["career"] = {"gammas": [0.5], "interactions": 8.0, "learn": False}
    _, careers = pages_of(options(tmp_path, source=str(world / "market"), **few))
    assert repr(careers.interactions) == "8" and (tmp_path / "start" / "agents.json").is_file()


def test_a_market_without_levels_has_visits_and_no_careers(world, tmp_path):
    with (world / "jobs.csv").open(newline="") as file:
        rows = [{**row, "seniority": ""} for row in csv.DictReader(file)]
    with (tmp_path / "jobs.csv").open("w", newline="") as file:
        written = csv.DictWriter(file, rows[0])
        written.writeheader()
        written.writerows(rows)
    load_market(f"csv:{tmp_path / 'jobs.csv'}", applicants=world / "people.csv", encoder=ENCODER).save(
        tmp_path / "market"
    )
    with client_of(pages_of(options(tmp_path))) as client:
        assert asked(begin(client))
        page = client.get("/career")
        assert page.status_code == 200 and "nobody can climb in it" in page.text


@pytest.mark.parametrize(
    ("n", "seconds"), [(0, 1.0), (301, 1.0), (1, 0.0), (1, math.inf), (1, True), (True, 1.0), ("1", 1.0)]
)
def test_a_load_that_cannot_be_is_refused_before_a_server_starts(n, seconds):
    with pytest.raises(RunError, match=r"`load` must be in \[1, 300\] and `seconds` above 0"):
        measured(n, seconds)


# ------------------------------------------------------------------------------------------------------------ pictures


def test_a_chart_names_its_curves_and_keeps_names_apart():
    curves = {"<b>": [0.0, 3.0], "flat": [0.0, 2.99], "left": [0.0, 1.0, 2.98]}
    both = ElementTree.fromstring(lines("all & sundry", curves, x_label="x", y_label="y", highest=4.2, steps=2))
    drawn, narrow, legend = both

    texts = {text.text: float(text.get("y")) for text in drawn.iter("text")}
    assert drawn.get("aria-label") == "all & sundry" and {"<b>", "flat", "left", "x", "y"} <= texts.keys()
    assert [text for text in texts if text.isdecimal()] == ["0", "1", "2", "3", "4", "5"], "round numbers up to 4.2"
    beside = sorted(texts[name] for name in curves)
    assert min(high - low for low, high in itertools.pairwise(beside)) >= 14.9
    ends = [[float(x) for x in line.get("points").split()[-1].split(",")] for line in drawn.iter("polyline")]
    assert ends[2][0] > ends[0][0] == ends[1][0], "a shorter curve ends sooner"
    assert ends[0][1] < ends[1][1] < ends[2][1], "more stands higher"
    assert {text.text for text in narrow.iter("text")} == texts.keys() - curves.keys(), "names are in the legend"
    assert ["".join(entry.itertext()).strip() for entry in legend] == list(curves)
    assert [line.get("class") for line in legend.iter("line")] == [f"line line-{number}" for number in range(3)]
    (unit,) = (float(text.get("y")) for text in narrow.iter("text") if text.text == "y")
    (label,) = (float(text.get("y")) for text in narrow.iter("text") if text.text == "x")
    steps = {float(text.get("y")) for text in narrow.iter("text") if text.get("text-anchor") == "middle"} - {label}
    assert unit >= 13 and label - max(steps) >= 13, "a line of type lies between them"


@pytest.mark.parametrize(("mean", "spread"), [(0.4, 0.2), (5.0, 1.0), (-3.0, 0.0)])
def test_a_belief_stays_within_its_bar(mean, spread):
    drawn = ElementTree.fromstring(belief_bar(mean, spread))
    middle, low = float(drawn.find("circle").get("cx")), float(drawn.find("rect").get("x"))
    assert 2 <= low <= middle <= low + float(drawn.find("rect").get("width")) <= 88
