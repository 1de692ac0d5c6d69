"""The size of images. A batch has one, and so has each compiled step: the sizes of a run are its buckets."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
  """Images of rows × columns visual tokens, each of which stands for `pixels_per_token` pixels along one side."""

  rows: int
  columns: int
  pixels_per_token: int

  @property
  def tokens(self) -> int:
    """Visual tokens of an image."""
    return self.rows * self.columns

  @property
  def pixels(self) -> tuple[int, int]:
    """Height and width."""
    return self.rows * self.pixels_per_token, self.columns * self.pixels_per_token

  @property
  def side(self) -> int:
    """Pixels along one side of what can only be square. ValueError where it is not."""
    height, width = self.pixels
    if height != width:
      raise ValueError(f"images of {height}×{width} pixels; expected as many along both sides")
    return height

  def patches(self, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of so many pixels along one side."""
    height, width = self.pixels
    return height // patch_size, width // patch_size
