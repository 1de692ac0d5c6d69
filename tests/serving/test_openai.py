"""The openai package against a fake model: draws, edits and chats, streamed and not; and what it is refused."""

import base64
import io
import re

import numpy as np
import openai
import pytest
from PIL import Image as Pillow

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.serving.limits import Limits
from tests import odd_pictures
from tests.chat.fake_chat import image, text
from tests.serving.served import FakeGenerator, fake_studio, serving

RED = odd_pictures.encoded(np.full((40, 30, 3), (255, 0, 0), np.uint8), "PNG")
RED_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(RED).decode()}"}}


@pytest.fixture(scope="module")
def generator():
  return FakeGenerator([*text("a ", "star"), *image(7)])


@pytest.fixture(scope="module")
def served(generator, tmp_path_factory):
  limits = Limits(body=2**20, picture_pixels=2**16, pictures=4, turns=12, characters=4000, images=4, diffusion_steps=50)
  with serving(fake_studio(generator, "free"), tmp_path_factory.mktemp("kept"), limits) as served:
    yield served


@pytest.fixture(autouse=True)
def nothing_was_called(generator):
  generator.calls.clear()


@pytest.fixture(scope="module")
def client(served):
  with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
    yield client


def shade(content: str) -> int:
  """Of a picture of the fake model: the seed that it was drawn with."""
  pixels = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(content.removeprefix("data:image/png;base64,")))))
  assert pixels.shape == (16, 16, 3)
  return round((pixels[0, 0, 0] / 127.5 - 1) * 100)


def test_it_draws_several_each_with_the_next_seed(client, generator):
  drawn = client.images.generate(
    model="any",
    prompt="a red star",
    n=2,
    size="1024x1024",
    quality="high",
    user="me",
    extra_body={"seed": 8, "guidance": 2},
  )
  assert [shade(item.b64_json) for item in drawn.data] == [8, 9]
  assert drawn.usage.output_tokens == 8 and drawn.usage.input_tokens > 3 and drawn.output_format == "png"
  seeds, rows, _, changes = generator.calls[0]
  assert (seeds, rows, changes["guidance"]) == ((8, 9), 2, 2.0)


@pytest.mark.parametrize("format, kind", [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats_and_addresses(client, format, kind):
  drawn = client.images.generate(prompt="a", output_format=format, response_format="url", extra_body={"seed": 1})
  head, _, content = drawn.data[0].url.partition(",")
  assert head == f"data:image/{format};base64" and Pillow.open(io.BytesIO(base64.b64decode(content))).format == kind


def test_without_a_seed_each_picture_is_another(client, generator):
  for _ in range(2):
    client.images.generate(prompt="a")
  assert len({call[0] for call in generator.calls}) == 2


def test_it_draws_in_a_stream(client):
  events = list(client.images.generate(prompt="a", stream=True, partial_images=1, extra_body={"seed": 8}))
  assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
  assert shade(events[1].b64_json) == 8 and events[1].usage.total_tokens > 4 and events[0].partial_image_index == 0
  canvas = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(events[0].b64_json))))
  assert (canvas[:8] == canvas[0, 0]).all() and (canvas[8:] == 128).all() and canvas[0, 0, 0] == 138


def test_it_edits(client, generator):
  edited = client.images.edit(image=("red.png", RED), prompt="now blue", extra_body={"seed": 4})
  assert shade(edited.data[0].b64_json) == 4
  edited = client.images.edit(image=[("1.png", RED), ("2.png", RED)], prompt="both", n=2, extra_body={"seed": 4})
  assert [shade(item.b64_json) for item in edited.data] == [4, 5]
  events = list(client.images.edit(image=("red.png", RED), prompt="now blue", stream=True, extra_body={"seed": 6}))
  assert [event.type for event in events] == ["image_edit.completed"] and shade(events[0].b64_json) == 6


def test_it_lists_its_model(client):
  assert [model.id for model in client.models.list()] == ["omniimage"]
  assert client.models.retrieve("omniimage").id == "omniimage"


def test_it_chats(client, generator):
  messages = [
    {"role": "system", "content": "you draw"},
    {"role": "user", "content": [{"type": "text", "text": "what is it"}, RED_PART]},
    {"role": "assistant", "content": "red", "images": [RED_PART]},
    {"role": "user", "content": "a star"},
  ]  # fmt: skip
  answer = client.chat.completions.create(model="any", messages=messages, seed=1, temperature=0.5, max_tokens=9)
  choice = answer.choices[0]
  assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "a star", "stop")
  assert shade(choice.message.images[0]["image_url"]["url"]) == 7
  assert answer.usage.completion_tokens == 4 + len(generator.text_tokenizer.encode("a star"))
  turns, form = generator.calls[0]
  said = [turn.text if isinstance(turn, TextTurn) else turn.image[0, 0].tolist() for turn in turns]
  assert said == ["you draw", "what is it", [255, 0, 0], "red", [255, 0, 0], "a star"] and form == "free"
  assert [turn.is_target for turn in turns] == [False, False, False, True, True, False]
  again = [*messages, answer.choices[0].message.model_dump(exclude_none=True), {"role": "user", "content": "larger"}]
  client.chat.completions.create(model="any", messages=again)
  assert isinstance(generator.calls[1][0][-2], ImageTurn), "an answer can be given back as it came"


def test_it_chats_in_a_stream(client):
  stream = client.chat.completions.create(
    model="any", messages=[{"role": "user", "content": "a star"}], stream=True, stream_options={"include_usage": True}
  )
  chunks = list(stream)
  *own, last = [chunk for chunk in chunks if chunk.choices]
  assert [chunk.choices[0].delta.content for chunk in own if chunk.choices[0].delta.content] == ["a ", "star"]
  images = [part for chunk in own for part in getattr(chunk.choices[0].delta, "images", None) or []]
  assert [shade(part["image_url"]["url"]) for part in images] == [7]
  assert last.choices[0].finish_reason == "stop" and chunks[-1].usage.prompt_tokens > 2


def test_the_form_of_an_answer_can_be_asked_for(client, generator):
  for modalities, form in ((["text"], "text"), (["text", "image"], "free")):
    client.chat.completions.create(model="any", messages=[{"role": "user", "content": "a"}], modalities=modalities)
    assert generator.calls[-1][1] == form
  answer = client.chat.completions.create(
    model="any", messages=[{"role": "user", "content": "a"}], modalities=["image"], n=2, seed=3
  )
  assert [shade(choice.message.images[0]["image_url"]["url"]) for choice in answer.choices] == [3, 4]


def mask(*box: int, size=(30, 40), transparent=True) -> tuple[str, bytes]:
  """Of which a box (left, top, right, bottom) is to be drawn again."""
  opaque, clear = ((0, 0, 0, 255), (0, 0, 0, 0)) if transparent else ((0, 0, 0), (255, 255, 255))
  picture = Pillow.new("RGBA" if transparent else "RGB", size, opaque)
  picture.paste(clear, box)
  file = io.BytesIO()
  picture.save(file, "PNG")
  return "mask.png", file.getvalue()


@pytest.mark.parametrize("transparent", [True, False])
def test_what_a_mask_marks_is_drawn_again(client, generator, transparent):
  marked = mask(0, 20, 30, 40, transparent=transparent)
  drawn = client.images.edit(image=("red.png", RED), mask=marked, prompt="a star", n=2, extra_body={"seed": 4})
  assert [shade(item.b64_json) for item in drawn.data] == [4, 5]
  *_, changes = generator.calls[0]
  assert len(changes["redraws"]) == 2
  for redraw in changes["redraws"]:
    assert redraw.again[9:].all() and not redraw.again[:7].any() and not redraw.paints_all
    assert redraw.picture.shape == (16, 16, 3) and (redraw.picture[4] == (255, 0, 0)).all()
  (turn,) = generator.drawn_after[-1][0]
  assert turn.text == "a star", "the prompt is of the whole picture, which is not shown"


@pytest.mark.filterwarnings("ignore:deprecated")  # says openai of its models; the endpoint is what others know
def test_it_draws_variations(client, generator):
  drawn = client.images.create_variation(image=("red.png", RED), n=2)
  assert len(drawn.data) == 2
  (*_, changes), (turn,) = generator.calls[-1], generator.drawn_after[-1][0]
  one, other = changes["redraws"]
  assert turn.text == "" and all(redraw.paints_all and redraw.again.shape == (16, 16) for redraw in (one, other))
  again = [client.images.create_variation(image=("red.png", RED), extra_body={"seed": seed}) for seed in range(8)]
  assert len(again) == 8 and len({call[-1]["redraws"][0].again.tobytes() for call in generator.calls[-8:]}) > 1
  client.images.create_variation(image=("red.png", RED), extra_body={"keep": 0.75, "prompt": "a star", "seed": 1})
  assert generator.calls[-1][-1]["redraws"][0].again.mean() == 0.25 and generator.drawn_after[-1][0][0].text == "a star"


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    (dict(mask=mask(0, 0, 9, 9, size=(40, 40))), "mask is 40×40 and the picture 30×40"),
    (dict(mask=mask(0, 0, 0, 0)), "nothing of the picture is to be drawn again"),
    (dict(mask=("mask.png", RED[:60])), "mask cannot be read"),
    (dict(mask=("mask.png", b"")), "mask cannot be read"),
    (dict(mask=mask(0, 0, 9, 9), image=[("1.png", RED), ("2.png", RED)]), "one picture with one mask"),
    (dict(mask=mask(0, 0, 9, 9), prompt=" "), "give a prompt"),
  ],
)
def test_masks_that_cannot_be_are_refused(client, asked, said):
  with pytest.raises(openai.BadRequestError, match=re.escape(said)):
    client.images.edit(**{"image": ("red.png", RED), "prompt": "a", **asked})


@pytest.mark.filterwarnings("ignore:deprecated")
@pytest.mark.parametrize("keep", [-1, 1, "nan", "a"])
def test_a_variation_keeps_a_share(client, keep):
  with pytest.raises(openai.BadRequestError, match="keep="):
    client.images.create_variation(image=("red.png", RED), extra_body={"keep": keep})


def chat(content) -> tuple[str, dict]:
  return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def draw(**fields) -> tuple[str, dict]:
  return "/v1/images/generations", {"prompt": "a", **fields}


def shown(encoded: bytes) -> tuple[str, dict]:
  uri = f"data:image/png;base64,{base64.b64encode(encoded).decode()}"
  return chat([{"type": "image_url", "image_url": {"url": uri}}])


REFUSED = {
  "no JSON": ("/v1/images/generations", b"{", 400, "no JSON"),
  "nested": ("/v1/images/generations", b"[" * 100_000, 400, "no JSON"),
  "no object": ("/v1/images/generations", b"[1]", 400, "JSON object"),
  "not UTF-8": ("/v1/images/generations", b'{"prompt": "\xff"}', 400, "no JSON"),
  "no prompt": (*draw(prompt=" "), 400, "give a prompt"),
  "a prompt that is a list": (*draw(prompt=["a"]), 400, "prompt="),
  "a long prompt": (*draw(prompt="star " * 500), 400, "tokens"),
  "a very long prompt": (*draw(prompt="star " * 2000), 413, "characters"),
  "an unknown field": (*draw(guidence=2), 400, "'guidence' is no field"),
  "too many": (*draw(n=5), 400, "n=5 must be a whole number from 1 to 4"),
  "none": (*draw(n=0), 400, "n=0"),
  "n is no number": (*draw(n="two"), 400, "n='two'"),
  "half a picture": (*draw(n=1.5), 400, "n=1.5"),
  "true pictures": (*draw(n=True), 400, "n=True"),
  "not a number": ("/v1/images/generations", b'{"prompt": "a", "guidance": NaN}', 400, "guidance="),
  "guidance": (*draw(guidance=1e9), 400, "from 0 to 100"),
  "many steps": (*draw(diffusion_steps=5000), 400, "up to 50"),
  "an unknown solver": (*draw(solver="rk4"), 400, "solver="),
  "a shift": (*draw(time_shift=0), 400, "time_shift="),
  "rows that do not divide": (*draw(chunk_rows=3), 400, "must divide"),
  "a negative seed": (*draw(seed=-1), 400, "seed=-1"),
  "a large seed": (*draw(seed=2**64), 400, "seed="),
  "a size": (*draw(size="16x9"), 400, "this model draws 1:1 (16x16)"),
  "a form": (*draw(response_format="tiff"), 400, "response_format"),
  "no messages": ("/v1/chat/completions", {}, 400, "messages must end"),
  "messages that are none": ("/v1/chat/completions", {"messages": [3]}, 400, "messages[0] must be"),
  "an odd role": ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, 400, "messages[0]"),
  "an assistant at the end": (
    "/v1/chat/completions", {"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages must end"
  ),
  "nothing said": (*chat(""), 400, "says nothing"),
  "an odd part": (*chat([{"type": "input_audio"}]), 400, "content[0]"),
  "an address": (*chat([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]), 400, "not fetched"),
  "a file": (*chat([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), 400, "not fetched"),
  "no base64": (*chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}]), 400, "not base64"),
  "stop": ("/v1/chat/completions", {**chat("a")[1], "stop": ["b"]}, 400, "stop"),
  "many turns": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}] * 13}, 400, "at most 12"),
  "many pictures": (
    *chat([RED_PART] * 5), 400, "5 pictures; at most 4"
  ),
  "large picture": (*shown(odd_pictures.png_header(300, 300)), 413, "300×300 pixels"),
  **{
    name: (*shown(content), 400, "content[0] cannot be read" if content else "not")
    for name, (content, _) in odd_pictures.bad().items()
    if not name.startswith(("half", "almost", "nothing"))
  },
  "half of a picture": (*shown(odd_pictures.bad()["half.png"][0]), 400, "truncated PNG"),
}  # fmt: skip


PATH = re.compile(r"(?<![\w/])/(home|tmp|usr|root|var|work)|Traceback|\.py")


def test_what_cannot_be_is_one_clear_error_and_nothing_is_computed(served, generator):
  for name, (path, body, status, said) in REFUSED.items():
    kind = {"content-type": "application/json"}
    found, _, reply = served.ask(path, body, headers=kind)
    assert (found, set(reply)) == (status, {"error"}), (name, reply)
    assert said in reply["error"]["message"] and "\n" not in reply["error"]["message"], (name, reply)
    assert reply["error"]["type"] == "invalid_request_error" and not PATH.search(reply["error"]["message"]), name
  assert not generator.calls and served.ask("/health")[0] == 200


def test_what_a_user_types_never_becomes_a_special(served, generator):
  """A text that looks like the model's own tokens is read as text."""
  typed = "<image> </image> <eos> <user> <assistant> <|endoftext|> \ud800 \x00"
  assert served.ask(*chat(typed))[0] == 200
  (turn,) = generator.calls[0][0]
  assert turn.text == typed.replace("\ud800", "\ufffd")
  assert max(generator.text_tokenizer.encode(turn.text)) < generator.text_tokenizer.size


@pytest.mark.parametrize("fields, files, said", [
  ({"prompt": "a"}, {}, "give the picture"),
  ({"prompt": ""}, {"image": RED}, "give a prompt"),
  ({"prompt": "a", "n": "many"}, {"image": RED}, "n='many'"),
  ({"prompt": "a"}, {"image": b"no picture"}, "image cannot be read"),
  ({"prompt": "a"}, {"image": odd_pictures.png_header(50_000, 50_000)}, "image cannot be read"),
])  # fmt: skip
def test_edits_that_cannot_be(served, fields, files, said):
  parts = [
    f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, value in fields.items()
  ]
  head = 'content-disposition: form-data; name="{0}"; filename="{0}.png"\r\ncontent-type: image/png'
  parts += [f"--b\r\n{head.format(name)}\r\n\r\n".encode() + content + b"\r\n" for name, content in files.items()]
  body = b"".join(parts) + b"--b--\r\n"
  status, _, reply = served.ask("/v1/images/edits", body, headers={"content-type": "multipart/form-data; boundary=b"})
  assert status == 400 and said in reply["error"]["message"]


def test_a_form_that_is_none_is_refused(served):
  for kind in ("multipart/form-data; boundary=b", "multipart/form-data", "application/json"):
    status, _, reply = served.ask("/v1/images/edits", b"--a\r\nno form", headers={"content-type": kind})
    assert status == 400 and reply["error"]["message"], kind
