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
  source: ArrayLike<number>, sourceHeight: number, sourceWidth: number, height: number, width: number, channels = 1,
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

/** Step 1 and 2, fed with bands of rows from top to bottom, so that a large picture is never whole in memory. */
export class NetworkResize {
  readonly #kx: number;
  readonly #ky: number;
  readonly #columns: number;
  readonly #rows: number;
  readonly #reduced: Uint8Array; // RGB
  readonly #sums: Uint32Array;
  #y = 0;

  constructor(readonly width: number, readonly height: number, readonly size: number) {
    this.#kx = Math.max(1, Math.floor(width / (2 * size)));
    this.#ky = Math.max(1, Math.floor(height / (2 * size)));
    this.#columns = Math.ceil(width / this.#kx);
    this.#rows = Math.ceil(height / this.#ky);
    this.#reduced = new Uint8Array(this.#columns * this.#rows * 3);
    this.#sums = new Uint32Array(this.#columns * 3);
  }

  /** RGBA rows, already flattened on white. */
  push(rgba: Uint8ClampedArray | Uint8Array, rows: number): void {
    const { width } = this;
    const kx = this.#kx;
    const ky = this.#ky;
    const sums = this.#sums;
    for (let row = 0; row < rows; row++, this.#y++) {
      let p = row * width * 4;
      for (let x = 0, at = 0; x < width; x += kx, at += 3) {
        const end = p + Math.min(kx, width - x) * 4;
        let r = 0;
        let g = 0;
        let b = 0;
        for (; p < end; p += 4) {
          r += rgba[p];
          g += rgba[p + 1];
          b += rgba[p + 2];
        }
        sums[at] += r;
        sums[at + 1] += g;
        sums[at + 2] += b;
      }
      const filled = (this.#y % ky) + 1;
      if (filled === ky || this.#y === this.height - 1) this.#flush(Math.floor(this.#y / ky), filled);
    }
  }

  #flush(line: number, filled: number): void {
    const sums = this.#sums;
    for (let column = 0; column < this.#columns; column++) {
      const count = filled * Math.min(this.#kx, this.width - column * this.#kx);
      for (let c = 0; c < 3; c++) {
        // The mean rounded half up: exact, for the sums are far below 2^31 / 2.
        this.#reduced[(line * this.#columns + column) * 3 + c] = Math.floor((2 * sums[column * 3 + c] + count) / (2 * count));
      }
    }
    sums.fill(0);
  }

  /** float32 (size, size, 3) in [0, 255]. */
  finish(): Float32Array<ArrayBuffer> {
    const { size } = this;
    return resizeBilinear(this.#reduced, this.#rows, this.#columns, size, size, 3, [
      this.height / (size * this.#ky), this.width / (size * this.#kx),
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
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < plane; i++) out[c * plane + i] = (picture[i * 3 + c] / peak - MEAN[c]) / STD[c];
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

/** In place: RGBA over white, c' = floor((c · a + 255 · (255 − a) + 127) / 255), as u2net/decode.py flattens. */
export function flattenOnWhite(rgba: Uint8ClampedArray | Uint8Array): void {
  for (let p = 3; p < rgba.length; p += 4) {
    const a = rgba[p];
    if (a === 255) continue;
    const rest = 255 * (255 - a) + 127;
    for (let q = p - 3; q < p; q++) rgba[q] = Math.floor((rgba[q] * a + rest) / 255);
  }
}
