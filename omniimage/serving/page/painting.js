// A canvas on which a picture appears: strips of what the tokens show, then finished rows of pixels over them.

export class Painting {
  /** `title`: what a screen reader says of it. */
  constructor(width, height, title) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
    this.context = this.canvas.getContext("2d");
    this.context.fillStyle = "#808080";
    this.context.fillRect(0, 0, width, height);
    this.last = Promise.resolve();
  }

  /** Rows of a picture of strip.width × strip.height pixels, which need not be this canvas's. In the order of the calls. */
  strip(strip) {
    this.last = this.last.then(async () => {
      const image = await loaded(`data:image/png;base64,${strip.png}`);
      const scale = this.canvas.height / strip.height;
      this.context.drawImage(image, 0, strip.top * scale, this.canvas.width, strip.rows * scale);
    });
    return this.last;
  }
}

export async function loaded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}
