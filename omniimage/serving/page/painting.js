// A canvas on which a picture appears: strips of what the tokens show, then finished chunks of pixels over them.

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

  /** A piece of a picture of piece.width × piece.height pixels, which need not be this canvas's. In the order of the calls. */
  add(piece) {
    this.last = this.last.then(async () => {
      const image = await loaded(`data:image/png;base64,${piece.png}`);
      const down = this.canvas.height / piece.height;
      const across = this.canvas.width / piece.width;
      this.context.drawImage(image, piece.left * across, piece.top * down, piece.columns * across, piece.rows * down);
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
