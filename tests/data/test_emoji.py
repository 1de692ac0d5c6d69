"""The emoji set: the images are real, the split is by concept, the captions are English of bounded length."""

import hashlib
import json
import re
import time

import numpy as np
import pytest

from omniimage.data import emoji


def _concept(label: str) -> emoji.Concept:
  return next(concept for concept in emoji.load().concepts if concept.label == label)


def _split_as_documented(family: str) -> str:
  return "test" if int.from_bytes(hashlib.sha256(family.encode()).digest(), "big") % 20 == 0 else "train"


def test_every_concept_has_one_image_of_64_pixels():
  images, concepts = emoji.load().images, emoji.load().concepts
  assert images.shape == (1852, 64, 64, 3) and images.dtype == np.uint8
  assert len({concept.hexcode for concept in concepts}) == len({concept.label for concept in concepts}) == 1852


def test_images_are_drawings_on_white():
  images = emoji.load().images
  assert images.min() == 0 and images.max() == 255
  assert (images[:, [0, 0, -1, -1], [0, -1, 0, -1]] >= 250).all(), "corners are white"
  assert images.reshape(len(images), -1).std(axis=1).min() > 5, "no image is blank"
  assert len({image.tobytes() for image in images}) > 1800, "hardly two are the same"


def test_images_belong_to_their_labels():
  images, concepts = emoji.load().images.astype(int), emoji.load().concepts
  for label, channel in (("red circle", 0), ("green circle", 1), ("blue circle", 2)):
    center = images[concepts.index(_concept(label)), 28:36, 28:36].mean((0, 1))
    assert center.argmax() == channel and center.max() > 2 * np.sort(center)[0], (label, center)
  last_drawn = images[concepts.index(_concept("flag: Zimbabwe"))]
  assert last_drawn[30:34].std() > 20


def test_the_set_loads_in_two_seconds_and_only_once():
  emoji.load.cache_clear()
  start = time.perf_counter()
  loaded = emoji.load()
  assert time.perf_counter() - start < 2
  assert emoji.load() is loaded


def test_images_are_shared_and_therefore_read_only():
  with pytest.raises(ValueError):
    emoji.load().images[0, 0, 0, 0] = 1


def test_the_split_is_by_family_and_agrees_with_the_hash():
  train, test = emoji.indices("train"), emoji.indices("test")
  assert (len(train), len(test)) == (1772, 80)
  assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(1852))
  for split, indices in (("train", train), ("test", test)):
    concepts = [emoji.load().concepts[i] for i in indices]
    assert all(concept.split == split == _split_as_documented(emoji.family_of(concept.hexcode)) for concept in concepts)
  assert _concept("beaming face with smiling eyes").split == "test"
  assert _concept("grinning face").split == "train"


def test_no_person_is_held_out_while_another_who_does_the_same_is_trained():
  doings = {}
  for concept in emoji.load().concepts:
    doing = re.sub(r"^(older|old) ", "older ", re.sub(r"\b(wo)?m[ae]n\b|\bp(erson|eople)\b", "", concept.label))
    if concept.group == "people-body":
      doings.setdefault(" ".join(doing.replace(":", "").split()), []).append(concept)
  several = {doing: members for doing, members in doings.items() if len(members) > 1}
  assert len(several) > 75 and len(several["technologist"]) == len(several["walking"]) == 3
  for doing, members in several.items():
    assert len({concept.split for concept in members}) == 1, doing


@pytest.mark.parametrize(
  "labels",
  [
    ("technologist", "man technologist", "woman technologist"),
    ("merperson", "merman", "mermaid"),
    ("person", "man", "woman"),
    ("child", "boy", "girl"),
    ("older person", "old man", "old woman"),
    ("person with crown", "prince", "princess"),
    ("Santa Claus", "Mrs. Claus", "Mx Claus"),
    ("woman dancing", "man dancing"),
    ("pregnant person", "pregnant woman", "pregnant man"),
    ("people holding hands", "women holding hands", "men holding hands", "woman and man holding hands"),
    ("kiss", "kiss: woman, man", "kiss: man, man"),
    ("couple with heart", "couple with heart: woman, woman"),
    ("family", "family: man, woman, girl, boy", "family: woman, boy"),
    ("snowman", "snowman without snow"),
  ],
)
def test_those_that_draw_the_same_thing_are_one_family(labels):
  assert len({emoji.family_of(_concept(label).hexcode) for label in labels}) == 1


@pytest.mark.parametrize(
  "labels",
  [
    ("person", "child", "older person", "technologist", "man: red hair", "man: bald", "couple with heart", "kiss"),
    ("male sign", "female sign"),
    ("cat", "black cat", "cat face", "cat with wry smile"),
    ("red heart", "heart on fire", "white heart"),
    ("white flag", "rainbow flag", "transgender flag"),
  ],
)
def test_other_things_are_families_of_their_own(labels):
  assert len({emoji.family_of(_concept(label).hexcode) for label in labels}) == len(labels)


def test_a_concept_that_stands_alone_is_in_the_split_it_was_always_in():
  concepts = [concept for concept in emoji.load().concepts if concept.group != "people-body"]
  alone = [concept for concept in concepts if emoji.family_of(concept.hexcode) == concept.hexcode]
  assert len(alone) == len(concepts) - 2  # a cat and a snowman
  assert all(concept.split == _split_as_documented(concept.hexcode) for concept in alone)


def test_skin_tones_and_presentation_do_not_make_another_family():
  assert emoji.family_of("1f468-1f3fd-200d-1f4bb") == emoji.family_of("1f9d1-200d-1f4bb") == "1f9d1-200d-1f4bb"
  assert emoji.family_of("1f575-fe0f-200d-2640-fe0f") == emoji.family_of("1f575") == "1f575"


def test_no_held_out_drawing_is_also_trained():
  images = emoji.load().images[:, ::2, ::2].reshape(1852, -1).astype(np.float32) / 255
  test, train = images[emoji.indices("test")], images[emoji.indices("train")]
  squares = (test**2).sum(1)[:, None] + (train**2).sum(1) - 2 * test @ train.T
  assert np.sqrt(squares.min() / images.shape[1]) > 0.03  # 0.014 is a guard and a man guard


def test_an_unknown_split_is_named_in_the_error():
  with pytest.raises(ValueError, match=r"no split 'validation'; give one of train, test"):
    emoji.indices("validation")


@pytest.mark.parametrize(
  ("label", "name"),
  [
    ("grinning face", "grinning face"),
    ("flag: Japan", "flag of Japan"),
    ("flag: Bahamas", "flag of the Bahamas"),
    ("flag: Trinidad & Tobago", "flag of Trinidad and Tobago"),
    ("keycap: 10", "keycap 10"),
    ("man: bald", "bald man"),
    ("woman: beard", "woman with a beard"),
    ("person: curly hair", "person with curly hair"),
    ("family: man, woman, girl, boy", "family of a man, a woman, a girl and a boy"),
    ("kiss: woman, man", "kiss between a woman and a man"),
    ("woman’s hat", "woman's hat"),
    ("Japanese “no vacancy” button", 'Japanese "no vacancy" button'),
  ],
)
def test_labels_are_read_as_english(label, name):
  assert _concept(label).label == label
  assert emoji.name_of(label) == name


def test_no_caption_keeps_the_punctuation_of_a_label():
  rng = np.random.default_rng(0)
  for concept in emoji.load().concepts:
    text = emoji.caption(concept, rng).removeprefix("emoji: ").removeprefix("a 3d icon: ")
    assert ": " not in text and "’" not in text and "  " not in text and text == text.strip()


def test_captions_are_a_function_of_the_generator():
  concept = _concept("grinning face")
  first, again, other = (np.random.default_rng(seed) for seed in (7, 7, 8))
  captions = [emoji.caption(concept, first) for _ in range(50)]
  assert captions == [emoji.caption(concept, again) for _ in range(50)]
  assert captions != [emoji.caption(concept, other) for _ in range(50)]


def test_captions_vary_in_phrasing_and_tags_and_mostly_name_the_label():
  concept, rng = _concept("grinning face"), np.random.default_rng(0)
  captions = [emoji.caption(concept, rng) for _ in range(2000)]
  for phrase in ("grinning face", "a grinning face", "emoji: grinning face", "an emoji of a grinning face",
                 "a 3d icon: grinning face", "a 3d icon of a grinning face"):  # fmt: skip
    assert phrase in captions, phrase
  assert {caption.count(",") for caption in captions if "grinning face" in caption} == {0, 1, 2, 3}
  assert 0.9 < np.mean(["grinning face" in caption for caption in captions]) < 1
  assert any("cheerful" in caption for caption in captions)


def test_tags_add_a_word_to_the_label():
  rng = np.random.default_rng(0)
  assert "flag" not in emoji.spoken_tags(_concept("flag: Japan")) and "JP" not in emoji.spoken_tags(
    _concept("flag: Japan")
  )
  assert "man" not in emoji.spoken_tags(_concept("woman walking")), "a tag of emojibase that contradicts the label"
  for concept in emoji.load().concepts:
    words = emoji.caption(concept, rng).split(", ")
    assert len(set(words)) == len(words), words


@pytest.mark.parametrize("count_tokens", [lambda text: len(text.encode()), lambda text: len(text.split())])
def test_no_caption_is_longer_than_its_bound(count_tokens):
  rng = np.random.default_rng(0)
  for concept in emoji.load().concepts[::5]:
    bound = emoji.caption_bound(concept, count_tokens)
    assert max(count_tokens(emoji.caption(concept, rng)) for _ in range(20)) <= bound


def test_the_bound_of_characters_is_reached():
  concept, rng = _concept("cucumber"), np.random.default_rng(0)
  longest = max(len(emoji.caption(concept, rng)) for _ in range(2000))
  assert longest == emoji.caption_bound(concept, len)


def test_the_notices_of_the_authors_lie_with_the_files():
  for name, author in (
    ("fluent-emoji", "Microsoft Corporation"),
    ("lobehub", "LobeHub"),
    ("emojibase", "Miles Johnson"),
  ):
    notice = (emoji.FILES / f"LICENSE-{name}").read_text()
    assert notice.startswith("MIT License") and author in notice and "permission notice shall be included" in notice


def test_the_files_are_small_and_plain():
  files = {file.name: file.stat().st_size for file in emoji.FILES.iterdir()}
  assert sum(files.values()) < 6e6 and len(files) < 10
  with open(emoji.FILES / "concepts.jsonl", encoding="utf-8") as lines:
    assert all(set(json.loads(line)) == {"hexcode", "label", "tags", "group"} for line in lines)
