"""Answers of chat models: what is a caption comes through without its dress, what is none is refused with a reason."""

import time
from pathlib import Path

import pytest
import yaml

from lorakit.text.answers import NoCaption, read_answer, without_thoughts
from lorakit.text.composing import RawCaption

DOG = "A brown dog sits on green grass."
# (answer, sentence, tags). The first 41 are those that were found to get through.
CAPTIONS = [
    (f"<think>The user wants a caption. I see a dog.</think>\n\n{DOG}", DOG, ()),
    (f"I should describe it.\n</think>\n{DOG}", DOG, ()),
    (f"<answer>{DOG}</answer>", DOG, ()),
    (f'{{"caption": "{DOG}"}}', DOG, ()),
    ('{"caption": "A dog on grass.", "tags": ["dog", "grass"]}', "A dog on grass.", ("dog", "grass")),
    (f'```json\n{{"description": "{DOG}"}}\n```', DOG, ()),
    (f"```\n{DOG}\n```", DOG, ()),
    (f"### Description\n{DOG}", DOG, ()),
    (f"**Description:** {DOG}", DOG, ()),
    ("**Subject:** a dog\n**Setting:** green grass", "a dog. green grass.", ()),
    (f"Here is a caption for the image:\n\n{DOG}", DOG, ()),
    (f"Sure! Here's a description of the photo:\n{DOG}", DOG, ()),
    (f"Certainly. {DOG}", DOG, ()),
    (f"Caption: {DOG}", DOG, ()),
    (f'"{DOG}"', DOG, ()),
    (f"“{DOG}”", DOG, ()),
    (f"{DOG} Let me know if you need anything else!", DOG, ()),
    (f"{DOG} Overall, the image conveys a sense of peace.", DOG, ()),
    ("A brown dog, possibly a labrador, sits on grass.", "A brown dog sits on grass.", ()),
    (f"{DOG} There may be a lake in the background.", DOG, ()),
    (f"{DOG}\nTags:\n- dog\n- grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags:\n1. dog\n2. grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: - dog - grass - sun", DOG, ("dog", "grass", "sun")),
    ("A shelf with price tags: red ones and a blue one.", "A shelf with price tags: red ones and a blue one.", ()),
    (f"{DOG}\nHashtags: #dog #grass", DOG, ("dog", "grass")),
    (f"{DOG}\nKeywords: dog, grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog, no people, grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog, rating:safe, grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog, grass\n\nLet me know if you would like more tags.", DOG, ("dog", "grass")),
    (f"{DOG} {DOG} {DOG} {DOG}", DOG, ()),
    (f"{DOG}\nTags: long_hair, ^_^, ;_;, 1girl", DOG, ("long hair", "^_^", ";_;", "1girl")),
    ("I can't identify the person, but the image shows a man in a red shirt on a bench.", "The image shows a man in a red shirt on a bench.", ()),
    ("The image shows a dog on grass.", "The image shows a dog on grass.", ()),  # its filler goes with the base's style
    ("一只棕色的狗坐在草地上。它很开心。 狗 草", "一只棕色的狗坐在草地上。它很开心。 狗 草", ()),  # and odd_letters says so
    # as many more
    (f"<thinking>Hm.</thinking><thinking>So.</thinking>{DOG}", DOG, ()),
    (f"[THINK]A dog?[/THINK]{DOG}", DOG, ()),
    (f"<|channel>thought\nA dog.<channel|>{DOG}", DOG, ()),
    (f"◁think▷hm◁/think▷{DOG}", DOG, ()),
    (f"<caption>{DOG}", DOG, ()),
    (f"<|begin_of_box|>{DOG}<|end_of_box|>", DOG, ()),
    (f"assistant\n{DOG}", DOG, ()),
    (f"ASSISTANT: {DOG}", DOG, ()),
    (f"{DOG}\nuser\nWhat else is there?\nassistant\nA tree.", DOG, ()),
    (f"{DOG}<|im_end|>", DOG, ()),
    (f"<p>{DOG}</p>", DOG, ()),
    (f"Here is the JSON:\n```json\n{{\"caption\": \"{DOG}\"}}\n```", DOG, ()),
    ('{"caption": "A dog on grass.", "tags": ["dog", "gra', "A dog on grass.", ()),
    ('["dog", "green grass", "sun"]', "", ("dog", "green grass", "sun")),
    ('{"image": {"description": "A dog on grass.", "keywords": "dog, grass"}}', "A dog on grass.", ("dog", "grass")),
    ('{"subject": "a dog", "setting": "grass", "mood": "calm"}', "a dog. grass.", ()),
    (f"# A Dog\n\n{DOG}", DOG, ()),
    (f"**Image Description**\n\n{DOG}", DOG, ()),
    (f"**Caption 1:** {DOG}\n**Caption 2:** A happy dog.", DOG, ()),
    (f"Option 1: {DOG}\nOption 2: A happy dog on a lawn.", DOG, ()),
    ("Here are three captions:\n1. A brown dog sits on the green grass today.\n2. A dog rests in a park on a summer day.",
     "A brown dog sits on the green grass today.", ()),
    ("- A brown dog sits on the grass in front of a house.\n- The sun shines on its back and on the lawn.",
     "A brown dog sits on the grass in front of a house. The sun shines on its back and on the lawn.", ()),
    ("Subject: A brown dog.\nMood: serene and calm\nLighting: soft sunlight.", "A brown dog. soft sunlight.", ()),
    (f"Of course! {DOG}", DOG, ()),
    (f"I'd be happy to help! Here is the caption:\n{DOG}", DOG, ()),
    (f"Based on the image provided, here is a detailed description: {DOG}", DOG, ()),
    (f"Here's a caption for the photo: \"{DOG}\"", DOG, ()),
    (f"Final caption: {DOG}", DOG, ()),
    (f"Alt text: {DOG}", DOG, ()),
    (f"{DOG} I hope this helps!", DOG, ()),
    (f"{DOG}\n\nWould you like me to write another one?", DOG, ()),
    (f"{DOG}\n\n(Word count: 7)", DOG, ()),
    (f"{DOG}\n\n*Note: I cannot identify real people.*", DOG, ()),
    (f"{DOG} The overall mood is calm and peaceful.", DOG, ()),
    (f"{DOG} The lighting creates a warm atmosphere.", DOG, ()),
    (f"{DOG} The scene captures the essence of summer.", DOG, ()),
    (f"{DOG} This caption is suitable for training.", DOG, ()),
    ("A dog (possibly a labrador) on grass.", "A dog on grass.", ()),
    ("A dog on grass, suggesting a day in the park.", "A dog on grass.", ()),
    ("A dog sits in what appears to be a kitchen.", "A dog sits in a kitchen.", ()),
    ("A dog in a garden, which could be a park.", "A dog in a garden.", ()),
    ("A dog or possibly a wolf stands on a rock.", "A dog stands on a rock.", ()),
    (f"{DOG} It is likely late afternoon.", DOG, ()),
    (f"{DOG} Perhaps it waits for its owner.", DOG, ()),
    ("A **brown dog** sits on *green* grass.", "A brown dog sits on green grass.", ()),
    (f"{DOG}\n\n**Tags:** dog; grass; sun", DOG, ("dog", "grass", "sun")),
    (f"{DOG}\n### Tags\ndog, grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags (comma-separated): dog, grass", DOG, ("dog", "grass")),
    (f"{DOG}\n[Tags]: dog, grass", DOG, ("dog", "grass")),
    (f"{DOG}\nDanbooru tags: 1dog, green_grass", DOG, ("1dog", "green grass")),
    (f"{DOG} Tags: dog, grass.", DOG, ("dog", "grass")),
    (f"Tags: dog, grass\n\n{DOG}", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: `dog`, **grass**", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog • grass • sun", DOG, ("dog", "grass", "sun")),
    (f"{DOG}\nTags: \"dog\", \"grass\"", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog, bear (black, white), grass", DOG, ("dog", "bear (black, white)", "grass")),
    (f"{DOG}\nTags: #dog, #grass", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog, n/a, none, grass, etc.", DOG, ("dog", "grass")),
    ("1girl, solo, long_hair, blue eyes, smile", "", ("1girl", "solo", "long hair", "blue eyes", "smile")),
    ('A sign says "I cannot stop. Sorry." above a door.', 'A sign says "I cannot stop. Sorry." above a door.', ()),
    ("A man holds a card: no entry.", "A man holds a card: no entry.", ()),
    ("I see a dog on grass.", "I see a dog on grass.", ()),
    ("Sunlight falls through an open door. A cat lies there.", "Sunlight falls through an open door. A cat lies there.", ()),
    ("A bowl of sure-fire soup stands on a table; steam rises.", "A bowl of sure-fire soup stands on a table; steam rises.", ()),
    ("Three children. Two dogs.", "Three children. Two dogs.", ()),
    ("An overall hangs on a hook beside a maybe-sized hat.", "An overall hangs on a hook beside a maybe-sized hat.", ()),
    ("Mr. Smith, as a plate says, in bronze.", "Mr. Smith, as a plate says, in bronze.", ()),
    (f"{DOG} #dog #grass #sun", DOG, ("dog", "grass", "sun")),
    ("The image shows a cat; I can't tell its age.", "The image shows a cat.", ()),
    ("A dog lies on a red sofa, creating a cozy atmosphere.", "A dog lies on a red sofa.", ()),
    ("The lighting is soft and creates long shadows on the snow.", "The lighting is soft and creates long shadows on the snow.", ()),
    ("1. **Subject**: A woman.\n2. **Action**: She is running.\n3. **Setting**: A beach.", "A woman. She is running. A beach.", ()),
    ("This is a photo of a castle with a description board: open daily.", "This is a photo of a castle with a description board: open daily.", ()),
    ("Two people, one of whom may be a child, walk along the shore.", "Two people walk along the shore.", ()),
    ('A sign with the words "Please let me know" on it.', 'A sign with the words "Please let me know" on it.', ()),
    ("Great egret wading through shallow water.", "Great egret wading through shallow water.", ()),
    (f"{DOG}\n\nKey elements:\n- dog\n- grass", DOG, ("dog", "grass")),
    (f"{DOG} [Tags: dog, grass]", DOG, ("dog", "grass")),
    (f"{DOG} (tags: dog, grass)", DOG, ("dog", "grass")),
    ("As an AI, I cannot determine identity, but I can describe the scene: a man rides a bike.", "A man rides a bike.", ()),
    (f"Content warning: animals. {DOG}", DOG, ()),
    (f"Image 1: {DOG}", DOG, ()),
    (f"{{'caption': '{DOG}', 'tags': ['dog', 'grass']}}", DOG, ("dog", "grass")),
    (f'caption = "{DOG}"', DOG, ()),
    ("```markdown\n# A man rides a bike\n```", "A man rides a bike", ()),
    (f"> {DOG}", DOG, ()),
    ("1) A man rides a bike. 2) The sun shines.", "A man rides a bike. The sun shines.", ()),
    ("• A man\n• A bike\n• A street", "", ("man", "bike", "street")),
    (f"<caption>{DOG}</caption>\n<tags>dog, grass</tags>", DOG, ("dog", "grass")),
    (f"{DOG} ### Human: describe it", DOG, ()),
    (f"The user wants a caption. Final answer: {DOG}", DOG, ()),
    (f"Let me describe the image. {DOG}", DOG, ()),
    (f"{DOG} It is very detailed and high quality.", DOG, ()),
    (f"The image does not contain any text. {DOG} There are no other people in the image.", DOG, ()),
    (f"{DOG}\nTags: [dog, grass]", DOG, ("dog", "grass")),
    (f"{DOG}\nTags: dog/grass/sun", DOG, ("dog", "grass", "sun")),
    (f"{DOG}\nTags: dog, the image conveys freedom, rating_safe, grass", DOG, ("dog", "grass")),
    ("A man rides his bike :)", "A man rides his bike :)", ()),
    ("No entry, says the sign on a door.", "No entry, says the sign on a door.", ()),
    ("Skyline.", "Skyline.", ()),
]  # fmt: skip
# (answer, part of the reason)
NONE = [
    ("I'm sorry, I can't help with that.", "refused"),
    ("I cannot identify people in images.", "refused"),
    ("As an AI language model, I can't view pictures.", "refused"),
    ("I don't see any image. Please upload one.", "refused"),
    ("I’m sorry, but I can’t assist with that request.", "refused"),
    ("", "empty"),
    ("  \n ", "empty"),
    ("<think>The user wants a caption. I see a dog and", "only thought"),
    ("<think>A dog.</think>", "only thought"),
    ("I'm unable to describe this image. However, I can help with other questions.", "refused"),
    ("Unfortunately, I cannot provide a description of real people.", "refused"),
    ("It seems there is no image attached. Could you share it?", "refused"),
    ("Sure! Please provide the image.", "refused"),
    ("There may be a dog. Perhaps a cat.", "only guessed"),
    ("Tags:", "no caption"),
    ("Here is the caption:", "no caption"),
    ('{"caption": ', "JSON"),
    ("...", "without words"),
    ("[THINK]I wonder", "only thought"),
    ("Yes.", "no caption"),
    ("null", "no caption"),
    ("No image provided.", "refused"),
    ("It is difficult to tell what is in the image.", "only guessed"),
]


@pytest.mark.parametrize(("answer", "sentence", "tags"), CAPTIONS)
def test_caption_is_taken_out_of_its_dress(answer, sentence, tags):
    assert read_answer(answer) == RawCaption(sentence, tags)


@pytest.mark.parametrize(("answer", "reason"), NONE)
def test_answer_that_is_no_caption_has_a_reason(answer, reason):
    found = read_answer(answer)
    assert isinstance(found, NoCaption) and reason in found.reason and "\n" not in found.reason


def test_answer_that_was_stopped_ends_with_its_last_whole_part():
    assert read_answer("A dog.\nTags: dog, green gra", True) == RawCaption("A dog.", ("dog",), True)
    assert read_answer("A dog on grass. It has a red col", True) == RawCaption("A dog on grass.", (), True)
    assert isinstance(read_answer("the dog and the cat and " * 20, True), NoCaption)


def test_captions_as_they_should_be_come_through_as_they_are():
    table = yaml.safe_load((Path(__file__).parent / "captions_worded.yaml").read_text(encoding="utf-8"))
    plain = [entry["read"] for entry in table if entry["read"]]
    assert len(plain) > 50 and [read_answer(text).sentence for text in plain] == [" ".join(text.split()) for text in plain]


HELD_OUT = yaml.safe_load((Path(__file__).parent / "answers_of_models.yaml").read_text(encoding="utf-8"))


def test_held_out_captions_are_taken_out_of_their_dress():
    wrong = {}
    for entry in HELD_OUT["captions"]:
        found = read_answer(entry["answer"])
        if found != RawCaption(entry["read"], tuple(entry.get("tags", ()))):
            wrong[entry["answer"]] = found
    assert not wrong and len(HELD_OUT["captions"]) > 120


def test_held_out_answers_without_a_caption_have_a_reason():
    through = [answer for answer in HELD_OUT["none"] if not isinstance(read_answer(answer), NoCaption)]
    assert not through and len(HELD_OUT["none"]) > 60


def test_held_out_captions_as_they_should_be_come_through_as_they_are():
    changed = {text: found for text in HELD_OUT["plain"] if (found := read_answer(text)) != RawCaption(text)}
    assert not changed and len(HELD_OUT["plain"]) > 120


@pytest.mark.parametrize(
    "piece", ["I ", "the image ", "a, ", "here is ", "- a\n", "<think>", "**a** ", "{", "Caption: ", "very likely ", "not "]
)
def test_a_long_answer_is_read_at_once(piece):
    begun = time.process_time()
    read_answer(piece * (6000 // len(piece)))
    assert time.process_time() - begun < 2  # what tries every way takes minutes


def test_a_thought_that_was_left_open_behind_the_caption_takes_only_itself():
    assert without_thoughts("A brown dog sits there. <think>hm") == "A brown dog sits there."
    assert without_thoughts("<think>hm") is None
