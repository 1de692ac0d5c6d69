// Marks the part of a picture that is to be drawn again.

import { Sketch } from "/page/sketch.js";

const MARK = "#2858b8";

export class Brush extends Sketch {
  /** Opens over an image that is loaded; `take` is given the mask, a Blob of its size: what was marked is transparent. */
  mark(image, take) {
    this.image = image;
    this.open(image.naturalWidth, image.naturalHeight, take);
  }

  draw(marked = false) {
    const { context, sheet } = this;
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1;
    context.drawImage(this.image, 0, 0, sheet.width, sheet.height);
    context.globalAlpha = 0.6;
    this.stroked(context, MARK);
    context.globalAlpha = 1;
    if (marked) this.placeOfKeys(context);
  }

  finish() {
    const mask = document.createElement("canvas");
    mask.width = this.image.naturalWidth;
    mask.height = this.image.naturalHeight;
    const context = mask.getContext("2d");
    context.fillRect(0, 0, mask.width, mask.height);
    context.globalCompositeOperation = "destination-out";
    context.scale(mask.width / this.sheet.width, mask.height / this.sheet.height);
    this.stroked(context, "#000000");
    mask.toBlob((blob) => {
      this.dialog.close();
      this.taken(blob);
    }, "image/png");
  }
}
