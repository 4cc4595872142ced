/**
 * Pixels in: version 1 of the specification in u2net/preprocess.py, step by step. The same golden tensors test both.
 */
const MEAN = [0.485, 0.456, 0.406]; // ImageNet, RGB
const STD = [0.229, 0.224, 0.225];

/** For each of `target` samples `step` source pixels apart: left neighbour, right neighbour, weight of the right. */
export interface Taps { left: Int32Array; right: Int32Array; weight: Float32Array }

export function taps(source: number, target: number, step = source / target): Taps {
  const left = new Int32Array(target);
  const right = new Int32Array(target);
  const weight = new Float32Array(target);
  for (let i = 0; i < target; i++) {
    const position = Math.min(Math.max((i + 0.5) * step - 0.5, 0), source - 1);
    left[i] = Math.floor(position);
    right[i] = Math.min(left[i] + 1, source - 1);
    weight[i] = position - left[i];
  }
  return { left, right, weight };
}

/** Bilinear resize without antialiasing, half-pixel centres, of interleaved channels. */
export function resizeBilinear(
  source: Float32Array, sourceHeight: number, sourceWidth: number, height: number, width: number, channels = 1,
  steps: [number, number] = [sourceHeight / height, sourceWidth / width],
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(height * width * channels);
  const v = taps(sourceHeight, height, steps[0]);
  const h = taps(sourceWidth, width, steps[1]);
  const stride = sourceWidth * channels;
  let at = 0;
  for (let y = 0; y < height; y++) {
    const top = v.left[y] * stride;
    const bottom = v.right[y] * stride;
    const wy = v.weight[y];
    for (let x = 0; x < width; x++) {
      const l = h.left[x] * channels;
      const r = h.right[x] * channels;
      const wx = h.weight[x];
      for (let c = 0; c < channels; c++) {
        const a = source[top + l + c];
        const upper = a + (source[top + r + c] - a) * wx;
        const b = source[bottom + l + c];
        out[at++] = upper + (b + (source[bottom + r + c] - b) * wx - upper) * wy;
      }
    }
  }
  return out;
}

/**
 * Box reduction by kx × ky, fed with bands of rows from top to bottom: the mean of each block, rounded half up; blocks at
 * the right and bottom edges average the pixels that they have. RGBA (at a multiple of
 * four bytes) to RGB, or grey to grey.
 */
export class BoxReduce {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array<ArrayBuffer>;
  readonly #sums: Uint32Array;
  #y = 0;

  constructor(
    readonly sourceWidth: number, readonly sourceHeight: number, readonly kx: number, readonly ky: number,
    readonly channels: 1 | 3,
  ) {
    this.width = Math.ceil(sourceWidth / kx);
    this.height = Math.ceil(sourceHeight / ky);
    this.pixels = new Uint8Array(this.width * this.height * channels);
    this.#sums = new Uint32Array(this.width * channels);
  }

  push(band: Uint8ClampedArray | Uint8Array, rows: number): void {
    // One load a pixel, and one kind of array: engines compile a loop that sees two kinds for neither.
    const words = this.channels === 3 ? new Uint32Array(band.buffer, band.byteOffset, band.byteLength >> 2) : undefined;
    const grey = new Uint8Array(band.buffer, band.byteOffset, band.byteLength);
    const { sourceWidth, kx, ky } = this;
    if (words && kx === 1 && ky === 1) {
      this.#copy(words, rows * sourceWidth);
      this.#y += rows;
      return;
    }
    const most = Math.max(1, Math.floor(ROOM / kx));
    for (let row = 0; row < rows;) {
      const filled = this.#y % ky;
      const count = Math.min(ky - filled, rows - row, most);
      if (words) addColours(words, row * sourceWidth, sourceWidth, count, kx, this.#sums);
      else addGrey(grey, row * sourceWidth, sourceWidth, count, kx, this.#sums);
      row += count;
      this.#y += count;
      if (filled + count === ky || this.#y === this.sourceHeight) this.#flush(Math.floor((this.#y - 1) / ky), filled + count);
    }
  }

  #copy(words: Uint32Array, count: number): void {
    const { pixels } = this;
    for (let i = 0, to = this.#y * this.width * 3; i < count; i++, to += 3) {
      const word = words[i];
      pixels[to] = word;
      pixels[to + 1] = word >>> 8;
      pixels[to + 2] = word >>> 16;
    }
  }

  #flush(line: number, filled: number): void {
    const { width, channels, kx, sourceWidth, pixels } = this;
    const sums = this.#sums;
    for (let column = 0, at = 0, to = line * width * channels; column < width; column++) {
      const count = filled * Math.min(kx, sourceWidth - column * kx);
      // Pillow's arithmetic, in which an exact half may fall either way where the count is no power of two.
      const scale = Math.floor(Math.fround(2 ** 24 / count)) / 2 ** 24;
      const half = count >> 1;
      for (let c = 0; c < channels; c++, at++, to++) pixels[to] = (sums[at] + half) * scale; // cut off, as integers are
    }
    sums.fill(0);
  }
}

const ROOM = 257; // pixels whose 8 bits add up to 16

/** Rows of RGBA words (0xAABBGGRR), from `at` on, into the sums of their blocks; of a block at most ROOM pixels, or one row. */
function addColours(words: Uint32Array, at: number, width: number, rows: number, kx: number, sums: Uint32Array): void {
  for (let x = 0, to = 0; x < width; to += 3) {
    for (const end = Math.min(x + kx, width); x < end;) {
      const count = Math.min(ROOM, end - x);
      let redBlue = 0; // side by side in one number
      let green = 0;
      for (let row = 0, first = at + x; row < rows; row++, first += width) {
        for (let i = first, stop = first + count; i < stop; i++) {
          const word = words[i];
          redBlue = (redBlue + (word & 0xff00ff)) | 0;
          green = (green + ((word >>> 8) & 0xff)) | 0;
        }
      }
      sums[to] += redBlue & 0xffff;
      sums[to + 1] += green;
      sums[to + 2] += redBlue >>> 16;
      x += count;
    }
  }
}

function addGrey(values: Uint8Array, at: number, width: number, rows: number, kx: number, sums: Uint32Array): void {
  for (let x = 0, to = 0; x < width; x += kx, to++) {
    const count = Math.min(kx, width - x);
    let sum = 0;
    for (let row = 0, first = at + x; row < rows; row++, first += width) {
      for (let i = first, stop = first + count; i < stop; i++) sum += values[i];
    }
    sums[to] += sum;
  }
}

/** Steps 1 and 2, fed with bands of rows, RGBA flattened on white. */
export class NetworkResize extends BoxReduce {
  constructor(width: number, height: number, readonly size: number) {
    super(width, height, Math.max(1, Math.floor(width / (2 * size))), Math.max(1, Math.floor(height / (2 * size))), 3);
  }

  /** float32 (size, size, 3) in [0, 255]. */
  finish(): Float32Array<ArrayBuffer> {
    const { size, kx, ky } = this;
    return resizeBilinear(new Float32Array(this.pixels), this.height, this.width, size, size, 3, [
      this.sourceHeight / (size * ky), this.sourceWidth / (size * kx),
    ]);
  }
}

/** Steps 3 and 4: (size, size, 3) in any range from 0 up to normalised (1, 3, size, size). */
export function toTensor(picture: Float32Array): Float32Array<ArrayBuffer> {
  const plane = picture.length / 3;
  let peak = 0;
  for (let i = 0; i < picture.length; i++) if (picture[i] > peak) peak = picture[i];
  peak ||= 1;
  const out = new Float32Array(picture.length);
  for (let i = 0, p = 0; i < plane; i++, p += 3) {
    for (let c = 0; c < 3; c++) out[c * plane + i] = (picture[p + c] / peak - MEAN[c]) / STD[c];
  }
  return out;
}

/** Input of graphs with the `image` interface: uint8 (1, size, size, 4), rounded half up. */
export function toImage(picture: Float32Array): Uint8Array<ArrayBuffer> {
  const plane = picture.length / 3;
  const out = new Uint8Array(plane * 4).fill(255);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) out[i * 4 + c] = Math.floor(picture[i * 3 + c] + 0.5);
  }
  return out;
}

/** In place: RGBA over the grey g, c' = floor((c · a + g · (255 − a) + 127) / 255), as u2net/decode.py flattens. */
export function flatten(rgba: Uint8ClampedArray | Uint8Array, ground: number): void {
  for (let p = 3; p < rgba.length; p += 4) {
    const a = rgba[p];
    if (a === 255) continue;
    const rest = ground * (255 - a) + 127;
    for (let q = p - 3; q < p; q++) rgba[q] = Math.floor((rgba[q] * a + rest) / 255);
  }
}
