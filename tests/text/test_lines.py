"""A line of a text ends where editors and JSON end it: what Unicode calls a separator may stand within."""

import json
from types import SimpleNamespace

from lorakit.caption.captioners.server import _streamed
from lorakit.text import caption_lists, prompts
from lorakit.text.lines import split_lines

ODD = "red\u2028robot\u2029on\x85a\x0btable"


def test_only_line_breaks_end_a_line():
    assert split_lines(f"{ODD}\r\nb\rc\n\nd") == [ODD, "b", "c", "", "d"]


def test_a_prompt_a_list_and_an_answer_in_pieces_keep_their_separators(tmp_path):
    (tmp_path / "prompts.txt").write_text(f"{ODD} --w 512\na dog\n", encoding="utf-8")
    found = prompts.read(["prompts.txt"], tmp_path, None)
    assert [prompt.text for prompt in found] == [ODD, "a dog"]
    (tmp_path / "list.txt").write_text(f"a.jpg: {ODD}\nb.jpg: a dog\n", encoding="utf-8")
    assert len(caption_lists._lines((tmp_path / "list.txt").read_text(encoding="utf-8"))) == 2
    piece = json.dumps({"choices": [{"delta": {"content": ODD}, "finish_reason": "stop"}]}, ensure_ascii=False)
    answer = SimpleNamespace(content=f"data: {piece}\n\ndata: [DONE]\n".encode())
    assert _streamed(answer)["message"]["content"] == ODD
