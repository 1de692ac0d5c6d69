"""How much one request, and all of them together, may ask for."""

from dataclasses import dataclass
from typing import Annotated

from omniimage.ranges import Range, Ranged


@dataclass(frozen=True)
class Limits(Ranged):
  """What is beyond one is refused before anything is computed."""

  # Of a request.
  body: Annotated[int, Range(1, 2**32)] = 2**25  # bytes
  picture_pixels: Annotated[int, Range(1, 2**27)] = 2**25  # of one that is given, as it is stored
  pictures: Annotated[int, Range(1, 1024)] = 32  # in a conversation
  turns: Annotated[int, Range(1, 2**16)] = 256  # texts and pictures of a conversation
  characters: Annotated[int, Range(1, 2**24)] = 2**16  # of all its texts
  images: Annotated[int, Range(1, 1024)] = 8  # drawn of one prompt
  diffusion_steps: Annotated[int, Range(1, 10_000)] = 200  # a chunk

  # Of all.
  waiting: Annotated[int, Range(0, 2**16)] = 64  # answers that have not been begun
  works: Annotated[int, Range(1, 1024)] = 4  # batches and sessions that the device holds at once
  connections: Annotated[int, Range(1, 2**16)] = 512
  programs: Annotated[int, Range(1, 2**16)] = 128  # shapes that stay compiled; then all are forgotten

  # Of a client.
  seconds: Annotated[float, Range(0.01, 86400)] = 60.0  # in which a request must be sent, a piece of an answer taken
  unread: Annotated[int, Range(1, 2**16)] = 32  # events that wait for it before a session rests
