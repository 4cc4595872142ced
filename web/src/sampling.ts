/**
 * Numbers from one grid to another, and means over windows: what the steps of `postprocess` are made of. See
 * u2net/sampling.py; what works on whole arrays there works on interleaved channels and rows here.
 */
import { BoxReduce, taps, type Taps } from "./pixels.js";

/** Rows of interleaved channels at the picture's resolution: vertical first, and horizontal by the caller's taps. */
export class Stretch {
  readonly horizontal: Taps;
  readonly #vertical: Taps;
  readonly #line: Float32Array;

  constructor(
    readonly source: Float32Array, sourceHeight: number, readonly sourceWidth: number, readonly channels: number,
    readonly height: number, readonly width: number, stepY: number, stepX: number,
  ) {
    this.horizontal = taps(sourceWidth, width, stepX);
    this.#vertical = taps(sourceHeight, height, stepY);
    this.#line = new Float32Array(sourceWidth * channels);
  }

  /** Source row for picture row `y`, not yet widened; of its pixels those from `first` to before `end`. */
  line(y: number, first = 0, end = this.sourceWidth): Float32Array {
    const { source, sourceWidth, channels } = this;
    const line = this.#line;
    const weight = this.#vertical.weight[y];
    const stop = end * channels;
    let top = (this.#vertical.left[y] * sourceWidth + first) * channels;
    let bottom = (this.#vertical.right[y] * sourceWidth + first) * channels;
    for (let i = first * channels; i < stop; i++, top++, bottom++) line[i] = source[top] + (source[bottom] - source[top]) * weight;
    return line;
  }

  /** All rows of a single channel. */
  whole(): Float32Array<ArrayBuffer> {
    const { height, width, horizontal: { left, right, weight } } = this;
    const out = new Float32Array(height * width);
    for (let y = 0, at = 0; y < height; y++) {
      const line = this.line(y);
      for (let x = 0; x < width; x++, at++) {
        const a = line[left[x]];
        out[at] = a + (line[right[x]] - a) * weight[x];
      }
    }
    return out;
  }
}

/** 8 bits: floor(255 · v + 0.5) in float32, clipped. */
export function toAlpha(value: number): number {
  // Clipped as a whole number: noise around 0 and 1 would be branches that processors could not predict.
  const scaled = Math.fround(Math.fround(Math.fround(value) * 255) + 0.5) | 0;
  return scaled > 255 ? 255 : scaled > 0 ? scaled : 0;
}

/**
 * Box mean of interleaved channels, windows cut at the borders: running sums in float64, one row at a time. Where `needed`
 * is 0 nothing is written.
 */
export function boxMean(
  source: Float32Array, height: number, width: number, channels: number, radius: number, needed?: Uint8Array,
  out = new Float32Array(source.length),
): Float32Array<ArrayBuffer> {
  const stride = width * channels;
  const margin = radius * channels;
  const sums = new Float64Array(stride + 2 * margin + channels); // of columns; those left and right of the picture stay 0
  const shares = Float64Array.from({ length: width }, (_, x) => 1 / (Math.min(x + radius, width - 1) - Math.max(x - radius, 0) + 1));
  for (let y = -radius; y < height; y++) {
    const enters = (y + radius) * stride;
    const leaves = (y - radius - 1) * stride;
    const last = y + radius < height;
    if (last && leaves >= 0) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] += source[enters + x] - source[leaves + x];
    else if (last) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] += source[enters + x];
    else if (leaves >= 0) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] -= source[leaves + x];
    if (y < 0) continue;
    const share = 1 / (Math.min(y + radius, height - 1) - Math.max(y - radius, 0) + 1);
    for (let start = 0, stop = 0; start < width; start = stop) {
      stop = width;
      if (needed) {
        while (start < width && needed[y * width + start] === 0) start++;
        for (stop = start; stop < width && needed[y * width + stop] !== 0;) stop++;
        if (start === stop) break;
      }
      if (channels === 4) slideFour(sums, radius, start, stop, share, shares, out, y * stride);
      else slide(sums, channels, radius, start, stop, share, shares, out, y * stride);
    }
  }
  return out;
}

/** Box means, of the columns' sums, for the columns from `start` to before `stop` of the row that begins at index `row`. */
function slide(
  sums: Float64Array, channels: number, radius: number, start: number, stop: number, share: number, shares: Float64Array,
  out: Float32Array, row: number,
): void {
  for (let c = 0; c < channels; c++) {
    let running = 0;
    let leave = start * channels + c; // `radius` + 1 further left in the picture
    let enter = leave;
    for (const end = leave + (2 * radius + 1) * channels; enter < end; enter += channels) running += sums[enter];
    for (let x = start, to = row + leave; x < stop; x++, enter += channels, leave += channels, to += channels) {
      running += sums[enter] - sums[leave];
      out[to] = running * share * shares[x];
    }
  }
}

/** `slide` for four channels at once, which takes a third of the time. */
function slideFour(
  sums: Float64Array, radius: number, start: number, stop: number, share: number, shares: Float64Array, out: Float32Array,
  row: number,
): void {
  let r0 = 0, r1 = 0, r2 = 0, r3 = 0;
  let leave = start * 4;
  let enter = leave;
  for (const end = leave + (2 * radius + 1) * 4; enter < end; enter += 4) {
    r0 += sums[enter];
    r1 += sums[enter + 1];
    r2 += sums[enter + 2];
    r3 += sums[enter + 3];
  }
  for (let x = start, to = row + leave; x < stop; x++, enter += 4, leave += 4, to += 4) {
    r0 += sums[enter] - sums[leave];
    r1 += sums[enter + 1] - sums[leave + 1];
    r2 += sums[enter + 2] - sums[leave + 2];
    r3 += sums[enter + 3] - sums[leave + 3];
    const scale = share * shares[x];
    out[to] = r0 * scale;
    out[to + 1] = r1 * scale;
    out[to + 2] = r2 * scale;
    out[to + 3] = r3 * scale;
  }
}

/** k of the working grid. */
export function workingFactor(height: number, width: number, workingSide: number): number {
  return Math.max(1, Math.floor(Math.max(height, width) / workingSide + 0.5));
}

/** Interleaved RGB, 8 bits to [0, 1]. */
export function toUnit(pixels: Uint8Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(pixels.length);
  for (let i = 0; i < out.length; i++) out[i] = pixels[i] / 255;
  return out;
}

/** Means of interleaved channels over cells of stepY × stepX, the first from (0, 0) on; parts of pixels count in part. */
export function cellMeans(
  source: Float32Array, height: number, width: number, channels: number, rows: number, columns: number, stepY: number,
  stepX: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * columns * channels);
  const stride = width * channels;
  const line = new Float64Array(stride);
  // Each cell ends `part` into the pixel `end`.
  const end = new Int32Array(columns);
  const part = new Float64Array(columns);
  const share = new Float64Array(columns);
  for (let column = 0; column < columns; column++) {
    const edge = Math.min((column + 1) * stepX, width);
    end[column] = Math.min(Math.floor(edge), width - 1);
    part[column] = edge - end[column];
    share[column] = 1 / (edge - column * stepX);
  }
  for (let row = 0; row < rows; row++) {
    const top = row * stepY;
    const bottom = Math.min(top + stepY, height);
    line.fill(0);
    for (let y = Math.floor(top); y < bottom; y++) {
      const weight = (Math.min(bottom, y + 1) - Math.max(top, y)) / (bottom - top);
      for (let i = 0, from = y * stride; i < stride; i++, from++) line[i] += weight * source[from];
    }
    for (let c = 0; c < channels; c++) {
      let [sum, before] = [0, 0]; // of the line: up to pixel `at`, up to the last cell's end
      for (let column = 0, at = c, to = row * columns * channels + c; column < columns; column++, to += channels) {
        for (const stop = end[column] * channels; at < stop; at += channels) sum += line[at];
        const until = sum + line[at] * part[column];
        out[to] = (until - before) * share[column];
        before = until;
      }
    }
  }
  return out;
}

/** To [0, 1], without branches: where there is noise around 0 or 1 processors could not predict them. */
export function clip(value: number): number {
  return (Math.abs(value) - Math.abs(value - 1) + 1) * 0.5;
}

/** RGBA on the working grid for `side`. */
export function boxReduce(rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, side: number): BoxReduce {
  const k = workingFactor(height, width, side);
  const reduced = new BoxReduce(width, height, k, k, 3);
  reduced.push(rgba, height);
  return reduced;
}
