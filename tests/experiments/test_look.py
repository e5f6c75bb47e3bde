"""What a file holds, by the command of experiments."""

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.look import main
from jobrec_gym.loaders.look import look


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "jobs.csv").write_text("id,job_title,skills\n1,Cook,grilling;baking\n2,Baker,baking\n")
    return tmp_path / "jobs.csv"


def test_the_command_prints_what_the_package_tells(config, jobs, capsys):
    main(config("look", f"path={jobs}"))
    assert capsys.readouterr().out == f"{look(str(jobs))}\n"
    main(config("look", f"path={jobs}", f"applicants={jobs}"))
    assert "2 applicants (1 train, 1 test)" in capsys.readouterr().out


def test_columns_encoding_and_delimiter_are_those_of_the_package(config, tmp_path, capsys):
    (tmp_path / "jobs.csv").write_bytes("Nr|Stelle|Kenntnisse\n1|Köchin|Soßen;Teig\n".encode("cp1252"))
    said = ["columns={hard:Kenntnisse,title:Stelle}", "encoding=cp1252", "delimiter='|'"]
    main(config("look", f"path={tmp_path / 'jobs.csv'}", *said))
    options = {"columns": {"hard": "Kenntnisse", "title": "Stelle"}, "encoding": "cp1252", "delimiter": "|"}
    assert capsys.readouterr().out == f"{look(tmp_path / 'jobs.csv', **options)}\n"


def test_what_is_wrong_is_said_in_a_line(config, jobs):
    with pytest.raises(SystemExit, match="error: say which file: python -m experiments.look path=FILE"):
        main(config("look"))
    with pytest.raises(SystemExit, match="error: .*no.csv does not exist"):
        main(config("look", f"path={jobs.parent / 'no.csv'}"))
