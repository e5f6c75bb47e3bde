import zipfile
from pathlib import Path

import pytest

from dynaq_algo.__main__ import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "COMMAND must be given, usage: python -m dynaq_algo"),
        ("cnvert", "there is no command 'cnvert': did you mean 'convert'? There is only 'convert'. `python"),
        ("xyz", "there is no command 'xyz'. There is only 'convert'."),
        ("convert", "old, new must be given, usage: "),
        ("convert a b --excldue c", "'--excldue' is unknown or one argument too many: did you mean '--exclude'?"),
        ("convert nowhere.zip new.zip", "there is no file nowhere.zip: "),
        ("convert text new.zip", "text holds no agent: "),
        ("convert other new.zip", "other.zip holds no agent: "),
        ("convert broken.zip new.zip", "broken.zip holds no agent: "),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no agent")
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("a", "no agent")
    Path("broken.zip").write_bytes(Path("other.zip").read_bytes().replace(b"PK\x01\x02", b"PK\x00\x00"))
    with pytest.raises(SystemExit, match="^error: ") as stopped:
        main(words.split())
    assert told in str(stopped.value) and "\n" not in str(stopped.value)
    assert not Path("new.zip").exists()
