/** The repair's worker: it holds the picture and its matte, paints, and shows both on the canvas that the page has handed over. */
import type { Alpha } from "../../src/types.js";
import type { Box } from "../../src/subject.js";
import { type Brush, EditedMatte, type Point } from "./matte.js";

export type Task =
  | { type: "open"; file: Blob; alpha: Alpha; canvas: OffscreenCanvas }
  | { type: "begin"; brush: Brush; at: Point }
  | { type: "paint"; to: Point }
  | { type: "end"; follow: boolean }
  | { type: "cancel" } | { type: "undo" } | { type: "redo" } | { type: "fill" } | { type: "close" }
  | { type: "keep"; at: Point };

/** After each task that may have changed the matte. */
export type Report =
  | { type: "changed"; by: Task["type"]; found: boolean; canUndo: boolean; canRedo: boolean }
  /** With the matte where it was changed. */
  | { type: "closed"; data?: Uint8Array<ArrayBuffer> }
  | { type: "failed"; message: string };

const CANVAS_PIXELS = 16_777_216; // of Safari on phones; of larger pictures less is shown, and all is repaired

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Task>) => void;
  postMessage(message: Report, transfer?: Transferable[]): void;
};

let bench: Bench | undefined;
let queue = Promise.resolve();
scope.onmessage = ({ data }) => {
  queue = queue.then(() => work(data)).catch((error: unknown) => scope.postMessage({ type: "failed", message: error instanceof Error ? error.message : String(error) }));
};

async function work(task: Task): Promise<void> {
  if (task.type === "open") {
    bench = await Bench.open(task);
    report(task.type, true);
    return;
  }
  if (!bench) {
    if (task.type === "close") scope.postMessage({ type: "closed" }); // it could not be opened
    return;
  }
  const { matte } = bench;
  switch (task.type) {
    case "begin":
      matte.begin(task.brush);
      bench.last = task.at;
      bench.show(matte.paint(task.at, task.at));
      break;
    case "paint":
      bench.show(matte.paint(bench.last, task.to));
      bench.last = task.to;
      break;
    case "end":
      bench.shown(task.type, matte.end(task.follow ? bench.pixels : undefined));
      break;
    case "cancel": bench.show(matte.cancel()); break;
    case "undo": bench.shown(task.type, matte.undo()); break;
    case "redo": bench.shown(task.type, matte.redo()); break;
    case "fill": bench.shown(task.type, matte.fillHoles()); break;
    case "keep": bench.shown(task.type, matte.keepOnly(task.at)); break;
    case "close":
      scope.postMessage({ type: "closed", data: matte.canUndo ? matte.data : undefined }, matte.canUndo ? [matte.data.buffer] : []);
      bench.bitmap.close();
      bench = undefined;
  }
}

function report(by: Task["type"], found: boolean): void {
  scope.postMessage({ type: "changed", by, found, canUndo: Boolean(bench?.matte.canUndo), canRedo: Boolean(bench?.matte.canRedo) });
}

/** What lies on the table: a picture, its matte, and what is seen of both. */
class Bench {
  last: Point = { x: 0, y: 0 };
  readonly #part = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
  readonly #seen: OffscreenCanvasRenderingContext2D;
  /** Pixels of the picture, each way, to one that is seen. */
  readonly #step: number;

  private constructor(readonly bitmap: ImageBitmap, readonly matte: EditedMatte, canvas: OffscreenCanvas) {
    const { width, height } = matte;
    this.#step = Math.ceil(Math.sqrt((width * height) / CANVAS_PIXELS));
    canvas.width = Math.ceil(width / this.#step);
    canvas.height = Math.ceil(height / this.#step);
    this.#seen = canvas.getContext("2d")!;
    const rows = Math.ceil((1 << 20) / width / this.#step) * this.#step;
    for (let y = 0; y < height; y += rows) this.show({ x: 0, y, width, height: Math.min(rows, height - y) });
  }

  static async open({ file, alpha: { data, width, height }, canvas }: Extract<Task, { type: "open" }>): Promise<Bench> {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
    return new Bench(bitmap, new EditedMatte(data, width, height), canvas);
  }

  /** RGBA of a part of the picture. */
  pixels = (box: Box): Uint8ClampedArray<ArrayBuffer> => this.#image(box).data;

  #image({ x, y, width, height }: Box): ImageData {
    const { canvas } = this.#part;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    this.#part.clearRect(0, 0, width, height);
    this.#part.drawImage(this.bitmap, x, y, width, height, 0, 0, width, height);
    return this.#part.getImageData(0, 0, width, height) as ImageData & { data: Uint8ClampedArray<ArrayBuffer> };
  }

  shown(by: Task["type"], box: Box | undefined): void {
    this.show(box);
    report(by, Boolean(box));
  }

  show(box: Box | undefined): void {
    if (!box) return;
    const step = this.#step;
    const { width: columns, height: rows, data } = this.matte;
    const [left, top] = [Math.floor(box.x / step), Math.floor(box.y / step)];
    const [right, bottom] = [Math.ceil((box.x + box.width) / step), Math.ceil((box.y + box.height) / step)];
    const [x, y] = [left * step, top * step];
    const [width, height] = [Math.min(columns, right * step) - x, Math.min(rows, bottom * step) - y];
    const image = this.#image({ x, y, width, height });
    for (let row = 0, p = 3; row < height; row++) {
      for (let i = (y + row) * columns + x, end = i + width; i < end; i++, p += 4) image.data[p] = Math.min(image.data[p], data[i]);
    }
    this.#part.putImageData(image, 0, 0);
    this.#seen.clearRect(left, top, right - left, bottom - top);
    this.#seen.drawImage(this.#part.canvas, 0, 0, width, height, left, top, width / step, height / step);
  }
}
