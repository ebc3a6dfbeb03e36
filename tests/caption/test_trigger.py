"""Stage trigger: texts in the base's style with the trigger once, cut to what the base reads, and former texts kept."""

from importlib.util import find_spec

import pytest

import lorakit
from lorakit import pipeline
from lorakit.bases import tokens
from lorakit.caption import trigger_words
from lorakit.caption import words as set_words
from lorakit.errors import LorakitError
from lorakit.project.catalog import card
from lorakit.text import clip_bpe
from lorakit.text.trigger_word import check_word
from lorakit.text.words import count_word
from lorakit.train.prompts import sample_prompts


@pytest.fixture
def captioned(make_cropped):
    """captioned(texts, **settings): a project whose photos have these captions, which a captioner might have written."""

    def make(texts: list[str], **settings):
        project = make_cropped(**settings)
        for record, text in zip(project.manifest.selected, texts, strict=False):
            read = {"sentence": text, "tags": [], "by": "blip", "own": False, "box": record["crop"]["box"]}
            project.manifest.keep({**record, "caption": read, "done": {**record["done"], "caption": "by the test"}})
        project.manifest.save()
        lorakit.trigger(project)
        return project

    return make


def texts(project) -> list[str]:
    return [r["text"] for r in project.manifest.selected]


SIX = [f"a mug on a {place} with a red spoon" for place in ("table", "shelf", "chair", "desk", "floor", "tray")]


@pytest.mark.parametrize(
    "style, first",
    [
        ("tags", "zwx mug, table, red spoon"),
        ("mixed", "a zwx mug on a table with a red spoon"),
        ("sentences", "a zwx mug on a table with a red spoon"),
    ],
)
def test_style_of_the_base(captioned, style, first):
    found = texts(captioned(SIX, **{"caption.style": style}))
    assert sorted(found[0].split(", ")) == sorted(first.split(", "))
    assert all(count_word(text, "zwx") == 1 for text in found)


def test_second_run_changes_nothing(captioned):
    project = captioned(SIX)
    before = [dict(r) for r in project.manifest.selected]
    lorakit.trigger(project)
    assert project.manifest.selected == before
    assert not any(r.get("former") for r in before)


def test_changed_trigger_replaces_the_former_everywhere(captioned):
    project = captioned(SIX)
    lorakit.review(project, [project.manifest.selected[0]["file"]], text="my own zwx mug, in the sun")
    for word in ("ohwx", None, "qmv"):
        project = lorakit.open_project(project.folder, settings={"trigger.word": word}, device="cpu")
        lorakit.trigger(project)
        assert not any(count_word(text, "zwx") for text in texts(project))
        assert all(count_word(text, word) == 1 for text in texts(project) if word)
    assert texts(project)[0].endswith("in the sun")


def test_former_texts_are_kept(captioned):
    project = captioned(SIX)
    before = texts(project)
    project = lorakit.open_project(project.folder, settings={"caption.style": "sentences"}, device="cpu")
    lorakit.trigger(project)
    assert [r["former"][-1]["text"] for r in project.manifest.selected] == before


@pytest.mark.parametrize("word", ["a, b", ",", "...", ""])
def test_trigger_that_could_not_be_found_again(word):
    with pytest.raises(LorakitError, match="letters"):
        check_word(word)


def test_strict_leaves_faulty_texts_out(captioned):
    project = captioned([*SIX[:5], "a mug with a"], **{"caption.strict": True, "caption.style": "sentences"})
    failed = [r["file"] for r in project.manifest.selected if "trigger" in r.get("failed", {})]
    assert failed == ["photo_5.jpg"]
    lax = lorakit.open_project(project.folder, settings={"caption.strict": False}, device="cpu")
    lorakit.trigger(lax)
    assert not any(r.get("failed") for r in lax.manifest.selected)


def test_omitted_family_and_rules_reach_the_texts(captioned):
    found = texts(
        captioned(
            ["a mug with curly hair on a table"] * 6,
            **{"caption.omit": ["hair"], "caption.rules": ["replace: table => oak table"]},
        )
    )
    assert set(found) == {"zwx mug, oak table"}


def test_unknown_rule_or_family_is_refused_before_any_wording(captioned):
    with pytest.raises(LorakitError, match="did you mean 'hair'"):
        captioned(SIX, **{"caption.omit": ["hairs"]})


TAGGED = ["1girl", "solo", "snow white", "grimm", "long hair", "night", "Best_Quality", "masterpiece"]  # whose name has a setting's word


@pytest.fixture
def tagged(captioned):
    """tagged([tags of the first photo, ...], **settings): a project whose photos a tagger has read so."""

    def make(several: list[list[str]], **settings):
        project = captioned([""] * 6, **{"caption.style": "tags", **settings})
        records = project.manifest.selected
        for record, tags in zip(records, [*several, *[TAGGED] * (len(records) - len(several))], strict=True):
            read = {**record["caption"], "tags": tags, "by": "wd_tagger"}
            project.manifest.keep({**record, "caption": read})
        lorakit.trigger(project)
        return project

    return make


def test_tags_of_quality_stand_once_where_the_base_wants_them(tagged, capsys):
    bad = ["1girl", "grass", "worst quality"]
    project = tagged(
        [TAGGED, bad, ["no humans", "mug"], [*TAGGED[:3], *[f"very long and winding road number {n}" for n in range(30)]]],
        **{"caption.tag_order": "booru", "caption.quality_tags": ["masterpiece", "best quality"], "trigger.class_word": None},
    )
    found = texts(project)
    assert found[0] == "zwx, 1girl, solo, snow white, grimm, long hair, night, masterpiece, best quality"
    assert found[1] == "zwx, 1girl, grass, worst quality", "what a tagger saw of a photo is not contradicted"
    assert found[2] == "zwx, no humans, mug, masterpiece, best quality"
    assert found[3].startswith("zwx, 1girl, solo, snow white, very") and found[3].endswith(", masterpiece, best quality")
    assert len(clip_bpe.tokens(found[3])) == project.manifest.selected[3]["trigger"]["tokens"] <= 75
    assert "'masterpiece' stands in" not in capsys.readouterr().err and not any(
        "masterpiece" in p for p, _ in set_words.invariant_phrases(project)
    )

    record = project.manifest.selected[0]
    lorakit.review(project, [record["file"]], text="1girl, by hand")
    pony = lorakit.open_project(
        project.folder, settings={"caption.quality_tags": [], "caption.lead_tags": ["score_9", "score_8_up"]}, device="cpu"
    )
    lorakit.trigger(pony)
    assert texts(pony)[0] == "zwx, 1girl, by hand", "a person's text gets the trigger and nothing else"
    assert texts(pony)[2] == "score_9, score_8_up, zwx, no humans, mug"
    assert all(text.count("zwx") == 1 for text in texts(pony))
    drawn = [prompt.text for prompt in sample_prompts(pony)]
    assert drawn[0] == "score_9, score_8_up, zwx, subject" and drawn[-1] == "score_9, score_8_up, subject"
    without = set_words.preview(pony, ["remove: score_8_up"])
    assert [after for _, before, after in without if before == texts(pony)[2]] == ["score_9, zwx, no humans, mug"]
    capsys.readouterr()


LONG = "a mug on a table, " + ", ".join(f"with a very small and rather unremarkable teaspoon number {n}" for n in range(30))


@pytest.mark.parametrize("style", ["tags", "mixed", "sentences"])
def test_too_long_a_text_is_cut_at_a_phrase_and_reported(captioned, style):
    project = captioned([LONG] * 6, **{"caption.style": style})
    record = project.manifest.selected[0]
    assert len(clip_bpe.tokens(record["text"])) <= 75
    assert record["trigger"]["tokens"] == len(clip_bpe.tokens(record["text"]))
    assert len(record["trigger"]["cut"]) > 10
    assert not record["text"].endswith(("teaspoon", "number", "a", ","))
    status = pipeline.status(project)["photos"][0]
    assert "cut_to_budget" in [r["reason"] for r in status["reasons"]]
    assert status["verdict"] == "warn"


def test_style_trigger_survives_the_cut(captioned):
    project = captioned([LONG] * 6, kind="style", **{"caption.style": "sentences"})
    assert all(text.endswith("in the zwx style") for text in texts(project))
    assert max(len(clip_bpe.tokens(text)) for text in texts(project)) <= 75


def test_text_by_hand_is_never_cut_but_reported(captioned):
    project = captioned(SIX)
    own = "zwx mug, " + LONG
    lorakit.review(project, [project.manifest.selected[0]["file"]], text=own)
    lorakit.trigger(project)
    assert texts(project)[0] == own
    assert "too_many_tokens" in [r["reason"] for r in pipeline.status(project)["photos"][0]["reasons"]]


def test_tokens_are_counted_by_the_tokenizer_of_the_base(captioned, tiny_weights):
    project = captioned(SIX)
    counter = tokens.counter_for(project)
    assert list(counter.encoders) == ["CLIP (tokenizer)"], "the base's own, from its folder"
    assert counter.count("zwx mug, a table") == len(clip_bpe.tokens("zwx mug, a table")) == 6


def test_budget_of_t5_without_its_tokenizer_is_an_estimate(make_project):
    project = make_project(base="flux1-dev", **{"train.weights": None})
    assert project.settings.caption.token_budget == 512
    assert tokens.counter_for(project).estimated
    assert tokens.counter_for(project).count("ten words " * 5) >= 10


# --- judging a trigger word


@pytest.mark.parametrize(
    "word, verdict",
    [
        ("zwx", "good"),
        ("qmv", "good"),
        ("dog", "bad"),
        ("taylor", "bad"),
        ("zwx cat", "bad"),
        ("sks", "usable"),
        ("Bär", "usable"),
        ("qx", "usable"),
    ],
)
def test_trigger_words_are_judged(word, verdict):
    found = trigger_words.judge(word, card("sd15"))
    assert found.verdict == verdict
    assert "token" in found.findings[0]


@pytest.fixture(scope="session")
def flux_tokenizers(tmp_path_factory):
    """A diffusers folder with CLIP's tokenizer and a T5 of a few words, as FLUX has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import T5TokenizerFast

    from lorakit.bases.tiny_random import clip_tokenizer

    folder = tmp_path_factory.mktemp("flux")
    (folder / "model_index.json").write_text("{}")
    clip_tokenizer(folder).save_pretrained(folder / "tokenizer")
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581gandalf", "\u2581mug", "\u2581zw", *"abcdefghijklmnopqrstuvwxyz"]
    unigram = Tokenizer(models.Unigram([(piece, -10.0 if len(piece) == 1 else -2.0) for piece in pieces], unk_id=2, byte_fallback=False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    T5TokenizerFast(tokenizer_object=unigram, extra_ids=0).save_pretrained(folder / "tokenizer_2")
    return folder


def test_trigger_is_judged_by_every_tokenizer_of_the_base(flux_tokenizers):
    own = tokens.tokenizers_of(tokens.folder_of(card("flux1-dev"), str(flux_tokenizers)))
    assert list(own) == ["CLIP (tokenizer)", "T5 (tokenizer_2)"]
    found = trigger_words.judge("zwx", card("flux1-dev"), own)
    assert found.verdict == "good"
    assert "2 tokens in CLIP's" in found.findings[0] and "zw + x" in found.findings[1] and "2 tokens in T5's" in found.findings[1]
    assert trigger_words.judge("gandalf", card("flux1-dev"), own).verdict == "bad", "two tokens for CLIP, and one piece for T5"
    assert all(len(own["T5 (tokenizer_2)"](word)) <= 3 for word in trigger_words.propose("dog", own))


def test_t5_that_is_not_at_hand_is_said():
    assert any("reads T5 too" in line for line in trigger_words.judge("zwx", card("flux1-dev")).findings)
    of_qwen = trigger_words.judge("zwx", card("z-image"))
    assert of_qwen.verdict == "good" and not any("CLIP" in line or "T5" in line for line in of_qwen.findings)
    assert any("Z-Image reads Qwen2, whose tokenizer is not on this machine" in line for line in of_qwen.findings)
    asked = trigger_words.judge("gandalf", card("z-image"), {"Qwen2 (tokenizer)": lambda word: [word]})
    assert any("1 token in Qwen2's tokenizer, which Z-Image reads: gandalf" in line for line in asked.findings)
    assert asked.verdict == "bad" and "one piece of Qwen2's vocabulary" in asked.faults[0]
    assert not any("T5" in line for line in trigger_words.judge("zwx", card("sd15")).findings)


def test_budget_is_counted_by_t5_where_it_is_there(make_project, flux_tokenizers):
    project = make_project(base="flux1-dev", **{"train.weights": str(flux_tokenizers)})
    counter = tokens.counter_for(project)
    assert list(counter.encoders) == ["T5 (tokenizer_2)"] and not counter.estimated
    assert counter.count("zwx mug") == 3


def test_trigger_command_asks_the_given_weights(flux_tokenizers):
    from click.testing import CliRunner

    from lorakit.cli import group

    done = CliRunner().invoke(group, ["trigger", "gandalf", "--base", "flux1-dev", "--weights", str(flux_tokenizers)])
    assert done.exit_code == 1 and "one piece of T5's vocabulary" in done.output and "better: " in done.output
    assert CliRunner().invoke(group, ["trigger", "zwx", "--base", "flux1-dev"]).exit_code == 0


def test_without_a_list_of_names_a_long_word_is_doubted(monkeypatch):
    monkeypatch.setattr(trigger_words, "find_spec", lambda name: None)
    found = trigger_words.judge("dumbledore", card("sd15"))
    assert found.verdict == "usable" and any("lorakit[words]" in line for line in found.findings)
    assert trigger_words.judge("zwxqvbn", card("sd15")).verdict != "bad"
    assert trigger_words.judge("zwx", card("sd15")).verdict == "good"


@pytest.mark.skipif(not find_spec("wordfreq"), reason="the word list is an extra")
def test_names_that_no_tokenizer_has_as_one_piece_are_in_the_word_list():
    assert trigger_words.judge("dumbledore", card("sd15")).verdict == "bad"
    assert trigger_words.judge("zwxqv", card("sd15")).verdict in ("good", "usable")


def test_proposals_are_good_and_always_the_same():
    proposed = trigger_words.propose("dog")
    assert proposed == trigger_words.propose("dog") != trigger_words.propose("cat")
    assert all(trigger_words.judge(word, card("sd15")).verdict == "good" for word in proposed)


OWN = (
    "zwx, 1girl, blue eyes, smile, red dress, park",
    "zwx, a woman with freckles laughing, in a kitchen",
    "photo of zwx, {red|blue} shirt, closed eyes",
)


@pytest.mark.parametrize("kind", ["character", "likeness", "object", "style"])
def test_own_captions_keep_the_words_that_a_kind_leaves_unsaid(make_project, photo_folder, kind, capsys):
    for number, words in enumerate(OWN):
        (photo_folder / f"photo_{number}.txt").write_text(words)
    project = make_project(kind=kind, **{"caption.captioner": "text_files", "caption.style": "tags", "trigger.class_word": None})
    pipeline.walk(project, last="trigger")
    found = {r["file"]: r["text"] for r in project.manifest.selected if r.get("text")}
    if kind != "style":
        assert tuple(found[f"photo_{number}.jpg"] for number in range(3)) == OWN
    else:
        assert all(
            set(words.split(", ")) - {"zwx"} <= set(found[f"photo_{number}.jpg"].split(", ")) | {"photo of zwx"}
            for number, words in enumerate(OWN)
        )
    if kind == "character":
        asked = lorakit.open_project(project.folder, settings={"caption.omit_own": True}, device="cpu")
        lorakit.trigger(asked)
        assert "blue eyes" not in {r["file"]: r.get("text") for r in asked.manifest.selected}["photo_0.jpg"]
        assert "3 captions of yours lose words" in capsys.readouterr().err


def test_syntax_of_prompting_tools_is_offered_to_be_stripped(make_project, photo_folder, capsys):
    from click.testing import CliRunner

    from lorakit.cli import group

    (photo_folder / "photo_0.txt").write_text("(zwx:1.2), toy, (red collar:1.3), grass")
    project = make_project(**{"caption.captioner": "text_files"})
    pipeline.walk(project, last="trigger")
    assert "--strip-syntax" in capsys.readouterr().err
    result = CliRunner().invoke(group, ["words", str(project.folder), "--strip-syntax"])
    assert result.exit_code in (0, 3), result.output
    texts_now = [r["text"] for r in lorakit.open_project(project.folder).manifest.selected if r.get("text")]
    assert texts_now == ["zwx, toy, red collar, grass"]
