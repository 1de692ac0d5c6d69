"""Pictures as OpenAI's clients ask for them.

What a client says beyond that in `extra_body`, as `seed`, `guidance` or `diffusion_steps`, are settings of sampling.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omniimage.data.text import as_text
from omniimage.ranges import Range
from omniimage.sampling.events import Chunk, Image
from omniimage.sampling.prompts import NO_WORDS, Part
from omniimage.serving.desk import AUTO, KEEP, SHARE, Desk, Order, Picture, Redraws
from omniimage.serving.dialect import IGNORED, body_of, tokens_of, told
from omniimage.serving.fields import Fields, parsed
from omniimage.serving.pictures import FORMATS, as_base64, as_data_uri, check_picture, encoded
from omniimage.serving.refusals import Refused
from omniimage.serving.replies import EventStream, event, heard, json_reply

MOST_PARTIAL = 3  # canvases that a stream shows of a picture under way


class Images:
  def __init__(self, desk: Desk):
    self._desk = desk

  def routes(self) -> list[Route]:
    return [
      Route("/v1/images/generations", self.generations, methods=["POST"]),
      Route("/v1/images/edits", self.edits, methods=["POST"]),
      Route("/v1/images/variations", self.variations, methods=["POST"]),
    ]

  async def generations(self, request: Request) -> Response:
    fields = Fields(parsed(await body_of(request)))
    return await self._images(request, fields, [self._prompt(fields)], "image_generation")

  async def edits(self, request: Request) -> Response:
    fields, files = await self._form(request)
    pictures, masks = files["image"], files["mask"]
    if not masks:
      return await self._images(request, fields, [*map(Picture, pictures), self._prompt(fields)], "image_edit")
    if len(pictures) != 1 or len(masks) != 1:
      raise Refused("give one picture with one mask", field="mask")
    redraw = functools.partial(self._desk.inpainted, pictures[0], masks[0])
    return await self._images(request, fields, [self._prompt(fields)], "image_edit", redraw)

  async def variations(self, request: Request) -> Response:
    fields, files = await self._form(request)
    if len(files["image"]) != 1 or files["mask"]:
      raise Refused("give one picture, as the file `image`", field="image")
    said = NO_WORDS if fields.take("prompt") is None else self._prompt(fields)
    redraw = functools.partial(self._desk.varied, files["image"][0], fields.real("keep", KEEP, SHARE))
    return await self._images(request, fields, [said], "image_edit", redraw)

  async def _form(self, request: Request) -> tuple[Fields, dict[str, list[bytes]]]:
    """Fields, and the files of pictures and masks."""
    async with request.form(max_files=self._desk.limits.pictures + 1, max_fields=64) as form:
      names = {"image": ("image", "image[]"), "mask": ("mask",)}
      files = {
        kind: [await self._upload(value, kind) for name, value in form.multi_items() if name in own]
        for kind, own in names.items()
      }
      fields = Fields({name: value for name, value in form.items() if not any(name in own for own in names.values())})
    if not files["image"]:
      raise Refused("give the picture to change, as the file `image`", field="image")
    return fields, files

  async def _images(
    self,
    request: Request,
    fields: Fields,
    parts: Sequence[Part | Picture],
    kind: str,
    redraw: Callable[[str], Redraws] | None = None,
  ) -> Response:
    """What all ways to ask for images have in common; `redraw` says for a size what of which picture is drawn again."""
    desk = self._desk
    size = desk.size(fields.text("size", AUTO))
    n = fields.whole("n", 1, Range(1, desk.limits.images))
    format = fields.one_of("output_format", FORMATS, "png")
    form = fields.one_of("response_format", ("b64_json", "url"), "b64_json")
    streams, partial = fields.flag("stream"), fields.whole("partial_images", 0, Range(0, MOST_PARTIAL))
    sampling, seed = desk.sampling(fields, size), desk.seed(fields)
    fields.done(IGNORED)
    order = await desk.order(parts, size, seed, n, "image", sampling, redraw=redraw and redraw(size))
    height, width = desk.studio.settings(size).buckets[0].pixels
    about = {"size": f"{width}x{height}", "output_format": format, "quality": "auto", "background": "opaque"}
    if streams:
      return EventStream(request, order.feed, told(self._partial_images(order, kind, about, partial, format)))
    answers = await heard(request, order.feed)

    def written(items: Sequence[Any], own_seed: int) -> dict:
      pixels = next(item.pixels for item in items if isinstance(item, Image))
      as_url = form == "url"
      content = as_data_uri(pixels, format) if as_url else as_base64(encoded(pixels, format))
      return {"url" if as_url else "b64_json": content, "seed": own_seed}

    data = [await asyncio.to_thread(written, items, own) for items, own in zip(answers, order.seeds)]
    tokens = sum(tokens_of(items, desk.studio.text_tokenizer) for items in answers)
    usage = {"input_tokens": order.tokens, "output_tokens": tokens, "total_tokens": order.tokens + tokens}
    return json_reply({"created": int(time.time()), "data": data, "usage": usage, **about})

  async def _partial_images(
    self, order: Order, kind: str, about: dict, partial: int, format: str
  ) -> AsyncIterator[bytes]:
    """Events of OpenAI's image stream: the canvas a few times while it is painted, and each image in the end."""
    canvases: dict[int, np.ndarray] = {}
    shown: dict[int, int] = {}
    about = {**about, "created_at": int(time.time())}
    async for number, item in order.feed:
      if isinstance(item, Chunk) and partial:
        canvas = canvases.setdefault(number, np.zeros((*item.size, 3), np.float32))
        (top, left), (rows, columns, _) = item.place, item.pixels.shape
        canvas[top : top + rows, left : left + columns] = item.pixels
        done, index = (top + rows) / item.size[0], shown.get(number, 0)
        if index < partial and index + 1 <= done * (partial + 1) and done < 1:
          shown[number] = index + 1
          content = await asyncio.to_thread(encoded, canvas.copy(), format)
          name = f"{kind}.partial_image"
          yield event({"type": name, "b64_json": as_base64(content), "partial_image_index": index, **about}, name)
      elif isinstance(item, Image):
        content, name = await asyncio.to_thread(encoded, item.pixels, format), f"{kind}.completed"
        usage = {"input_tokens": order.tokens, "output_tokens": item.codes.size}
        usage["total_tokens"] = sum(usage.values())
        yield event({"type": name, "b64_json": as_base64(content), "usage": usage, **about}, name)

  def _prompt(self, fields: Fields) -> str:
    prompt = as_text(fields.text("prompt", ""))
    if not prompt.strip():
      raise Refused("give a prompt: what to draw", field="prompt")
    return prompt

  async def _upload(self, upload: UploadFile | str, field: str) -> bytes:
    if isinstance(upload, str):
      raise Refused(f"{field} must be an uploaded file", field=field)
    content = await upload.read()
    check_picture(content, self._desk.limits, field)
    return content
