"""Pictures as OpenAI's clients ask for them.

What a client says beyond that in `extra_body`, as `seed`, `guidance` or `diffusion_steps`, are settings of sampling.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omniimage.data.text import as_text
from omniimage.ranges import Range
from omniimage.sampling.events import Chunk, Image
from omniimage.sampling.prompts import Part
from omniimage.serving.desk import AUTO, Desk, Order, Picture
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
    async with request.form(max_files=self._desk.limits.pictures, max_fields=64) as form:
      uploads = [value for name, value in form.multi_items() if name in ("image", "image[]")]
      if "mask" in form:
        raise Refused("a mask is not read yet: say in the prompt what is to change", 501, "mask")
      pictures = [await self._upload(upload) for upload in uploads]
      fields = Fields({name: value for name, value in form.items() if name not in ("image", "image[]")})
    if not pictures:
      raise Refused("give the picture to change, as the file `image`", field="image")
    return await self._images(request, fields, [*pictures, self._prompt(fields)], "image_edit")

  async def variations(self, request: Request) -> Response:
    raise Refused("this model draws no variations of a picture yet; draw its prompt with other seeds, or edit it", 501)

  async def _images(self, request: Request, fields: Fields, parts: Sequence[Part | Picture], kind: str) -> Response:
    """What both ways to ask for images have in common."""
    desk = self._desk
    size = desk.size(fields.text("size", AUTO))
    n = fields.whole("n", 1, Range(1, desk.limits.images))
    format = fields.one_of("output_format", FORMATS, "png")
    form = fields.one_of("response_format", ("b64_json", "url"), "b64_json")
    streams, partial = fields.flag("stream"), fields.whole("partial_images", 0, Range(0, MOST_PARTIAL))
    sampling, seed = desk.sampling(fields, size), desk.seed(fields)
    fields.done(IGNORED)
    order = await desk.order(parts, size, seed, n, "image", sampling)
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

  async def _upload(self, upload: UploadFile | str) -> Picture:
    if isinstance(upload, str):
      raise Refused("image must be an uploaded file", field="image")
    content = await upload.read()
    check_picture(content, self._desk.limits, "image")
    return Picture(content)
