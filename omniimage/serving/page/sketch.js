// A sheet to draw on, with the mouse, a finger or the keys.

const PAPER = "#ffffff";
const STEP = 6; // pixels that an arrow key moves the brush

export class Sketch {
  /** The elements of the dialog; `color` may be left out. */
  constructor({ dialog, sheet, color = null, width, undo, clear, cancel, use }) {
    Object.assign(this, { dialog, sheet, color, width });
    this.context = sheet.getContext("2d");
    this.strokes = [];
    this.pen = null; // the stroke under way
    sheet.addEventListener("pointerdown", (event) => {
      sheet.setPointerCapture(event.pointerId);
      this.begin(this.place(event));
    });
    sheet.addEventListener("pointermove", (event) => {
      if (this.pen) event.getCoalescedEvents?.().concat(event).forEach((one) => this.go(this.place(one)));
    });
    for (const name of ["pointerup", "pointercancel"]) sheet.addEventListener(name, () => this.lift());
    sheet.addEventListener("keydown", (event) => this.key(event));
    undo.addEventListener("click", () => this.take(this.strokes.slice(0, -1)));
    clear.addEventListener("click", () => this.take([]));
    cancel.addEventListener("click", () => dialog.close());
    use.addEventListener("click", () => this.finish());
  }

  /** Opens an empty sheet of a size; `take` is given the picture, a Blob. */
  open(width, height, take) {
    const scale = Math.max(1, Math.ceil(384 / Math.max(width, height)));
    this.sheet.width = width * scale;
    this.sheet.height = height * scale;
    this.taken = take;
    this.at = [this.sheet.width / 2, this.sheet.height / 2];
    this.take([]);
    this.dialog.showModal();
    this.sheet.focus();
  }

  place(event) {
    const box = this.sheet.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.sheet.width,
      ((event.clientY - box.top) / box.height) * this.sheet.height,
    ];
  }

  begin(place) {
    this.pen = { color: this.color?.value, width: Number(this.width.value), places: [place] };
    this.strokes.push(this.pen);
    this.draw();
  }

  go(place) {
    this.pen.places.push(place);
    this.draw();
  }

  lift() {
    this.pen = null;
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === " ") {
      if (this.pen) this.lift();
      else this.begin([...this.at]);
    } else if (event.key in moves) {
      const [x, y] = moves[event.key];
      this.at = [bounded(this.at[0] + STEP * x, this.sheet.width), bounded(this.at[1] + STEP * y, this.sheet.height)];
      if (this.pen) this.go([...this.at]);
      else this.draw(true);
    } else return;
    event.preventDefault();
  }

  take(strokes) {
    this.strokes = strokes;
    this.pen = null;
    this.draw();
  }

  /** All strokes, and where asked for, the place of the brush that keys move. */
  draw(marked = false) {
    const context = this.context;
    context.fillStyle = PAPER;
    context.fillRect(0, 0, this.sheet.width, this.sheet.height);
    this.stroked(context);
    if (marked) this.placeOfKeys(context);
  }

  /** All strokes, in their own colors or in one. */
  stroked(context, one = null) {
    context.lineCap = context.lineJoin = "round";
    for (const { color, width, places } of this.strokes) {
      context.strokeStyle = one ?? color;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...places[0]);
      places.forEach((place) => context.lineTo(...place));
      context.stroke();
    }
  }

  placeOfKeys(context) {
    context.strokeStyle = "#2858b8";
    context.lineWidth = 2;
    context.strokeRect(this.at[0] - 6, this.at[1] - 6, 12, 12);
  }

  finish() {
    this.draw();
    this.sheet.toBlob((blob) => {
      this.dialog.close();
      this.taken(blob);
    }, "image/png");
  }
}

function bounded(value, most) {
  return Math.min(Math.max(value, 0), most);
}
