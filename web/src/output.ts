/**
 * Pictures out: bands of RGBA go in front of a background and into a PNG, WebP or JPEG, or a bitmap.
 */
import { ConfigError, EncodeError } from "./errors.js";
import { PngWriter } from "./png.js";
import { platform } from "./platform.js";
import type { Box } from "./subject.js";
import type { Background, OutputFormat } from "./types.js";
import { encodeAlpha, withAlpha } from "./webp.js";

const MAX_CANVAS_PIXELS = 16_777_216; // of Safari on phones; larger pictures are written in bands, which needs no canvas
const MAX_SIDE: Record<string, number> = { webp: 16383, jpeg: 65500 };
/** JPEG's blocks show earlier. For WebP it is what libwebp and browsers take, a fifth faster than 0.9 and half the bytes. */
const QUALITY: Record<string, number> = { jpeg: 0.9, webp: 0.8 };
const BLOCK = 16; // of VP8, with its chroma at half resolution
const CROP_ROWS = 8 * BLOCK;

export interface Sink {
  /** RGBA rows from y on, not premultiplied. */
  write(y: number, rgba: Uint8ClampedArray<ArrayBuffer>): Promise<void>;
  finish(alpha: Uint8Array<ArrayBuffer>): Promise<Blob | ImageBitmap>;
}

export interface SinkOptions {
  width: number;
  height: number;
  output: OutputFormat | "bitmap";
  quality?: number;
  background: Background;
}

/** Throws ConfigError for a background that is none, EncodeError for a size that the format cannot hold. */
export async function openSink(options: SinkOptions): Promise<Sink> {
  const { width, height, output } = options;
  if (Math.max(width, height) > (MAX_SIDE[output] ?? Infinity)) {
    throw new EncodeError(`${width}×${height} is too large for ${output.toUpperCase()}, whose sides end at ${MAX_SIDE[output]}`);
  }
  if (output === "alpha") return alphaSink(width, height);
  if (typeof OffscreenCanvas === "undefined") return plainSink(options);
  const background = output === "jpeg" && options.background === "transparent" ? "#fff" : options.background;
  const behind = background === "transparent" ? undefined : await painter(background, width, height);
  if (output === "png" && width * height > MAX_CANVAS_PIXELS) return bandedSink(width, height, behind);
  return canvasSink(options, behind);
}

function alphaSink(width: number, height: number): Sink {
  return {
    async write() {},
    async finish(alpha) {
      const png = new PngWriter(width, height, 1);
      const rows = Math.max(1, Math.floor((1 << 22) / width));
      for (let y = 0; y < height; y += rows) await png.write(alpha.subarray(y * width, Math.min(height, y + rows) * width));
      return png.finish();
    },
  };
}

function bandedSink(width: number, height: number, behind: Painter | undefined): Sink {
  const png = new PngWriter(width, height, 4);
  const under = new Layers(width, behind);
  return {
    async write(y, rgba) {
      const rows = rgba.length / 4 / width;
      under.paint(y, rows, rgba);
      await png.write(behind ? under.context.getImageData(0, 0, width, rows).data : rgba);
    },
    finish: () => png.finish(),
  };
}

/** Without a canvas, as in Node: no background but a colour, and the whole picture at once for what `platform` encodes. */
async function plainSink({ width, height, output, quality = QUALITY[output], background }: SinkOptions): Promise<Sink> {
  if (output === "bitmap") throw new ConfigError("there is no ImageBitmap here: take another output");
  if (typeof background !== "string") throw new ConfigError("here a background can only be a colour");
  const colour = output === "jpeg" && background === "transparent" ? "#fff" : background;
  const behind = colour === "transparent" ? undefined : await platform.colour?.(colour);
  if (colour !== "transparent" && !behind) throw new ConfigError(`the background ${JSON.stringify(colour)} is no CSS colour`);
  const png = output === "png" ? new PngWriter(width, height, 4) : undefined;
  const data = new Uint8ClampedArray(png ? 0 : width * height * 4);
  return {
    async write(y, rgba) {
      if (behind) layOn(rgba, behind);
      if (png) await png.write(rgba);
      else data.set(rgba, y * width * 4);
    },
    async finish() {
      if (png) return png.finish();
      const blob = await platform.encode?.({ data, width, height }, output as "webp" | "jpeg", quality);
      if (!blob) throw new EncodeError(`${output.toUpperCase()} cannot be written here`);
      return blob;
    },
  };
}

/** In place: RGBA over a colour. */
function layOn(rgba: Uint8ClampedArray, [r, g, b, opacity]: readonly [number, number, number, number]): void {
  for (let p = 0; p < rgba.length; p += 4) {
    const front = rgba[p + 3] / 255;
    const back = (1 - front) * (opacity / 255);
    const both = front + back;
    if (!both) continue;
    rgba[p] = (rgba[p] * front + r * back) / both;
    rgba[p + 1] = (rgba[p + 1] * front + g * back) / both;
    rgba[p + 2] = (rgba[p + 2] * front + b * back) / both;
    rgba[p + 3] = both * 255;
  }
}

/** Passes on `part` of a picture of `width` columns, in bands of the lossy encoders' blocks; outside the picture is nothing. */
export class CroppedSink implements Sink {
  readonly #rows: Uint8ClampedArray<ArrayBuffer>;
  #next = 0; // row of the part

  constructor(readonly sink: Sink, readonly width: number, readonly part: Box) {
    this.#rows = new Uint8ClampedArray(part.width * CROP_ROWS * 4);
  }

  async write(y: number, rgba: Uint8ClampedArray<ArrayBuffer>): Promise<void> {
    const { width, part } = this;
    const [left, right] = [Math.max(0, part.x), Math.min(width, part.x + part.width)];
    while (this.#next + part.y < Math.min(y, part.y + part.height)) await this.#push(); // above the picture
    for (let row = part.y + this.#next - y; row * width * 4 < rgba.length && this.#next < part.height; row++) {
      const from = row * width;
      await this.#push(rgba.subarray((from + left) * 4, (from + right) * 4), left - part.x);
    }
  }

  async finish(alpha: Uint8Array<ArrayBuffer>): Promise<Blob | ImageBitmap> {
    while (this.#next < this.part.height) await this.#push(); // below it
    return this.sink.finish(alpha);
  }

  async #push(pixels?: Uint8ClampedArray, column = 0): Promise<void> {
    const { part } = this;
    const row = this.#next++ % CROP_ROWS;
    if (pixels) this.#rows.set(pixels, (row * part.width + column) * 4);
    if (row < CROP_ROWS - 1 && this.#next < part.height) return;
    await this.sink.write(this.#next - row - 1, this.#rows.slice(0, (row + 1) * part.width * 4));
    this.#rows.fill(0);
  }
}

/** One band: the background, and the cut-out over it. */
class Layers {
  readonly canvas = new OffscreenCanvas(1, 1);
  readonly context = this.canvas.getContext("2d", { willReadFrequently: true })!;
  readonly #front = new OffscreenCanvas(1, 1);
  readonly #frontContext = this.#front.getContext("2d", { willReadFrequently: true })!;
  constructor(readonly width: number, readonly behind: Painter | undefined) {}

  paint(y: number, rows: number, rgba: Uint8ClampedArray<ArrayBuffer>): void {
    const { width, behind } = this;
    if (!behind) return;
    for (const canvas of [this.canvas, this.#front]) {
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== rows) canvas.height = rows;
    }
    this.context.setTransform(1, 0, 0, 1, 0, -y);
    this.context.clearRect(0, y, width, rows);
    behind(this.context);
    this.#frontContext.putImageData(new ImageData(rgba, width, rows), 0, 0);
    this.context.drawImage(this.#front, 0, y);
  }
}

function canvasSink(options: SinkOptions, behind: Painter | undefined): Sink {
  const { width, height, output, quality = QUALITY[output] } = options;
  const canvas = new OffscreenCanvas(width, height);
  // Colours and alpha of a WebP are encoded apart.
  const apart = output === "webp" && !behind;
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: !apart && output !== "jpeg" });
  if (!context) throw new EncodeError(`this browser has no canvas of ${width}×${height}`);
  behind?.(context);
  const front = new OffscreenCanvas(1, 1);
  const frontContext = front.getContext("2d", { willReadFrequently: true })!;
  return {
    async write(y, rgba) {
      const rows = rgba.length / 4 / width;
      if (apart) makeOpaque(rgba, width, rows);
      const band = new ImageData(rgba, width, rows);
      if (!behind) {
        context.putImageData(band, 0, y);
        return;
      }
      if (front.width !== width) front.width = width;
      if (front.height !== rows) front.height = rows;
      frontContext.putImageData(band, 0, 0);
      context.drawImage(front, 0, y);
    },
    async finish(alpha) {
      if (output === "bitmap") return canvas.transferToImageBitmap();
      const type = `image/${output}`;
      let blob: Blob;
      try {
        // At quality 1 Chromium writes lossless WebP, which takes many seconds.
        const encoding = canvas.convertToBlob({ type, quality: output === "webp" ? Math.min(quality, 0.99) : quality });
        const plane = apart ? encodeAlpha(alpha, width, height) : undefined; // while the browser's own thread encodes
        blob = await encoding;
        if (plane && blob.type === type) blob = await withAlpha(blob, plane, width, height);
      } catch (error) {
        if (error instanceof EncodeError) throw error;
        throw new EncodeError(`this browser could not write ${output.toUpperCase()}`, { cause: error });
      }
      if (blob.type !== type) throw new EncodeError(`this browser cannot write ${output.toUpperCase()}`);
      canvas.width = canvas.height = 1;
      return blob;
    },
  };
}

/**
 * Opaque colours for a lossy encoder: in blocks that the edge runs through, transparent pixels take the mean of the
 * visible ones, so that no black bleeds into the edge; blocks without a visible pixel are black, which costs nothing.
 * Bands start at multiples of the block.
 */
function makeOpaque(rgba: Uint8ClampedArray<ArrayBuffer>, width: number, rows: number): void {
  const words = new Uint32Array(rgba.buffer, rgba.byteOffset, rgba.length / 4); // 0xAABBGGRR
  for (let top = 0; top < rows; top += BLOCK) {
    const bottom = Math.min(rows, top + BLOCK);
    for (let left = 0; left < width; left += BLOCK) {
      const right = Math.min(width, left + BLOCK);
      let all = -1; // bits that all pixels have, and that any has
      let any = 0;
      for (let y = top; y < bottom; y++) {
        for (let i = y * width + left, end = y * width + right; i < end; i++) {
          const word = words[i] | 0;
          all &= word;
          any |= word;
        }
      }
      if (all >>> 24 === 255) continue;
      let fill = 0xff000000;
      if (any >>> 24) {
        let [r, g, b, weight] = [0, 0, 0, 0];
        for (let y = top; y < bottom; y++) {
          for (let p = (y * width + left) * 4, end = (y * width + right) * 4; p < end; p += 4) {
            const a = rgba[p + 3];
            r += rgba[p] * a;
            g += rgba[p + 1] * a;
            b += rgba[p + 2] * a;
            weight += a;
          }
        }
        fill |= (b / weight) << 16 | (g / weight) << 8 | (r / weight);
      }
      for (let y = top; y < bottom; y++) {
        for (let i = y * width + left, end = y * width + right; i < end; i++) {
          words[i] = words[i] >>> 24 ? words[i] | 0xff000000 : fill;
        }
      }
    }
  }
}

/** Fills the whole picture's rectangle, under the context's transform. */
type Painter = (context: OffscreenCanvasRenderingContext2D) => void;

async function painter(background: Exclude<Background, "transparent">, width: number, height: number): Promise<Painter> {
  const probe = new OffscreenCanvas(1, 1).getContext("2d")!;
  const colour = (text: string): string => {
    // A canvas ignores what it does not understand; two different starts show whether it did.
    const read = (start: string): string => {
      probe.fillStyle = start;
      probe.fillStyle = text;
      return String(probe.fillStyle);
    };
    if (read("#000001") !== read("#000002")) throw new ConfigError(`the background ${JSON.stringify(text)} is no CSS colour`);
    return text;
  };
  if (typeof background === "string") {
    const fill = colour(background);
    return (context) => {
      context.fillStyle = fill;
      context.fillRect(0, 0, width, height);
    };
  }
  if ("stops" in background) {
    const { stops, angle = 180 } = background;
    stops.forEach(colour);
    // As CSS linear-gradient: 0 is upwards, 90 to the right, and the corners get the end colours.
    const [sin, cos] = [Math.sin((angle * Math.PI) / 180), Math.cos((angle * Math.PI) / 180)];
    const half = (Math.abs(width * sin) + Math.abs(height * cos)) / 2;
    const [cx, cy] = [width / 2, height / 2];
    return (context) => {
      const gradient = context.createLinearGradient(cx - sin * half, cy + cos * half, cx + sin * half, cy - cos * half);
      stops.forEach((stop, i) => gradient.addColorStop(i / (stops.length - 1), stop));
      context.fillStyle = gradient;
      context.fillRect(0, 0, width, height);
    };
  }
  const { image } = background;
  const bitmap = image instanceof Blob ? await createImageBitmap(image).catch((error) => {
    throw new ConfigError("the background picture cannot be decoded", { cause: error });
  }) : image;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  return (context) => {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (width - bitmap.width * scale) / 2, (height - bitmap.height * scale) / 2,
      bitmap.width * scale, bitmap.height * scale);
  };
}
