"""Captions as people have them, in the files and folders of other trainers."""

import json

import pytest

from lorakit.text import caption_lists, conventions, sidecars


@pytest.fixture(autouse=True)
def forget_lists():
    sidecars.pass_over.cache_clear()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_text_files_of_any_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("ein Bär, grün".encode(encoding))
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("ein Bär, grün", "a.txt")


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_of_either_byte_order(tmp_path, order):
    (tmp_path / "a.txt").write_bytes("\ufeffein Bär".encode(order))
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "ein Bär"


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark(tmp_path, order):
    (tmp_path / "a.txt").write_bytes("ein Bär, grün".encode(order))
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "ein Bär, grün"


def test_quotes_of_windows_and_bytes_that_it_does_not_have(tmp_path):
    (tmp_path / "a.txt").write_bytes("a bear’s “hat” – €5".encode("cp1252"))
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "a bear’s “hat” – €5"
    (tmp_path / "b.txt").write_bytes(b"a b\xe4r \x81")
    assert sidecars.find_caption(tmp_path / "b.jpg")[0].startswith("a bär")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_lists_of_any_encoding(tmp_path, encoding):
    (tmp_path / "metadata.jsonl").write_bytes(json.dumps({"file_name": "a.jpg", "text": "ein Bär"}, ensure_ascii=False).encode(encoding))
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("ein Bär", "metadata.jsonl")


def test_line_breaks_become_spaces(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a bear,\r\n  sitting\r\n")
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "a bear, sitting"


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.jpg.txt", "a.json"])
def test_names_beside_the_photo(tmp_path, name):
    text = json.dumps({"caption": "a bear"}) if name.endswith("json") else "a bear"
    (tmp_path / name).write_text(text)
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("a bear", name)


def test_photo_without_words(tmp_path):
    (tmp_path / "b.txt").write_text("of another photo")
    (tmp_path / "a.txt").write_text(" \n")
    assert sidecars.find_caption(tmp_path / "a.jpg") is None


def test_empty_text_file_does_not_hide_the_list(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "text": "a bear"}))
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("a bear", "metadata.jsonl")


@pytest.mark.parametrize(
    "name, content",
    [
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "a bear"}\nnot json\n{"file_name": "b.jpg"}\n'),
        ("captions.jsonl", '{"image": "images/a.jpg", "caption": "a bear"}\n'),
        ("captions.json", '{"a.jpg": "a bear"}'),
        ("meta_cap.json", '{"10_bear/a": {"caption": "a bear", "tags": "fur, toy"}}'),
        ("metadata.json", '[{"file_name": "a.jpg", "tags": ["a bear"]}]'),
        ("metadata.csv", "file_name,text\na.jpg,a bear\n"),
        ("metadata.jsonl", '\ufeff{"file_name": "C:\\\\photos\\\\a.jpg", "prompt": "a bear"}\n'),
    ],
)
def test_lists_of_a_folder(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("a bear", name)
    assert sidecars.find_caption(tmp_path / "b.jpg") is None


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '"text"', "null", '{"a.jpg": 3}', '{"a.jpg": {"caption": null}}'])
def test_damaged_list_is_passed_over(tmp_path, content):
    (tmp_path / "captions.json").write_text(content)
    assert sidecars.find_caption(tmp_path / "a.jpg") is None


def test_ai_toolkit_json_beside_the_photo(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"caption": "a brown bear on a shelf", "caption_short": "a bear"}))
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "a brown bear on a shelf"
    (tmp_path / "b.json").write_text("{")
    assert sidecars.find_caption(tmp_path / "b.jpg") is None


@pytest.mark.parametrize(
    "folder, repeats",
    [("10_zwx bear", 10), ("3_a/inner", 3), ("plain", 1), ("2024", 1), ("0_reg", 1), ("5_a/7_b", 7), ("12_", 1)],
)
def test_kohya_folders_say_how_often(tmp_path, folder, repeats):
    photo = tmp_path / folder / "a.jpg"
    assert conventions.repeats_in([photo], tmp_path).get(photo, 1) == repeats


def test_kohya_folder_given_as_the_photo_folder_itself(tmp_path):
    photo = tmp_path / "10_bear" / "a.jpg"
    assert conventions.repeats_in([photo], photo.parent) == {photo: 10}


@pytest.mark.parametrize("content", ["[" * 100_000, '{"caption": ' + "9" * 6000 + "}", '{"caption": "a'])
def test_json_that_cannot_be_read_costs_itself_only(tmp_path, content, capsys):
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "metadata.jsonl").write_text(content + '\n{"file_name": "a.jpg", "text": "a bear"}\n')
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("a bear", "metadata.jsonl")
    told = capsys.readouterr().err
    assert "a.json: " in told and "metadata.jsonl, line 1: " in told


def test_half_a_letter_can_be_written(tmp_path):
    (tmp_path / "a.json").write_text('{"caption": "a \\ud800 bear \\ud83d\\ude00"}')
    assert sidecars.find_caption(tmp_path / "a.jpg")[0] == "a \ufffd bear \U0001f600"


def test_csv_with_an_empty_byte_and_a_long_field(tmp_path, capsys):
    text = "file_name,text\na.jpg,a\0 bear\nb.jpg," + "x" * 200_000 + "\nc.jpg,a cup\n"
    (tmp_path / "metadata.csv").write_text(text)
    assert sidecars.find_caption(tmp_path / "a.jpg") == ("a bear", "metadata.csv")
    assert sidecars.find_caption(tmp_path / "c.jpg") == ("a cup", "metadata.csv")
    assert "metadata.csv, line 3: field larger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "most"), [("a.txt", sidecars.MOST_BYTES), ("a.json", sidecars.MOST_BYTES), ("metadata.jsonl", caption_lists.MOST_BYTES)]
)
def test_files_too_large_are_said_once_and_not_read(tmp_path, name, most, capsys, monkeypatch):
    with open(tmp_path / name, "wb") as file:
        file.truncate(most + 1)
    for module in (sidecars, caption_lists):
        monkeypatch.setattr(module, "read_text", lambda path: pytest.fail("read"))
    assert sidecars.find_caption(tmp_path / "a.jpg") is None and sidecars.find_caption(tmp_path / "a.jpg") is None
    assert capsys.readouterr().err.count(name) == 1
