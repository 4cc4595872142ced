/**
 * From the network's map to a matte and clean colours at the picture's full resolution.
 *
 * The specification is u2net/postprocess.py, step by step; names are the same but for their spelling (`keep_largest` is
 * `keepLargest`), results agree to 1/255. What there works on whole arrays works on bands of rows here.
 */
import { fillHoles, keepComponents } from "./components.js";
import { prepareGuided, UNSURE } from "./guided.js";
import type { BoxReduce } from "./pixels.js";
import { type Refinement, type RefineOption, refinement } from "./refinement.js";
import { boxMean, boxReduce, clip, Stretch, toAlpha } from "./sampling.js";

const BETWEEN = 2; // neither 0 nor 1

/** Step 1. */
export function clean(saliency: Float32Array, height: number, width: number, settings: Refinement): Float32Array {
  if (settings.keepLargest || settings.minArea > 0) {
    saliency = keepComponents(saliency, height, width, settings.keepLargest, settings.minArea);
  }
  return settings.fillHoles > 0 ? fillHoles(saliency, height, width, settings.fillHoles) : saliency;
}

/** Steps 2 to 4 without feathering, row by row from the top. `reduced` is the picture on the working grid of `settings`. */
export class MatteRows {
  readonly #map: Stretch;
  readonly #coefficients?: Stretch;
  readonly #threshold: number | null;
  /** Columns of the picture that have each column of the map on their left: from its entry to before the next. */
  readonly #columns: Int32Array;
  /**
   * Where the last row is in between: from each even entry, of the first `bounds`, to before the odd one that follows.
   * What lies between those is 0 or 1 in 8 bits, all of one stretch alike.
   */
  readonly between: Int32Array;
  bounds = 0;

  constructor(
    readonly width: number, height: number, saliency: Float32Array, mapHeight: number, mapWidth: number,
    settings: Refinement, reduced?: BoxReduce,
  ) {
    this.#threshold = settings.threshold === null ? null : Math.fround(settings.threshold);
    let [maps, channels] = [saliency, 1];
    if (settings.edges === "guided" && reduced) {
      const prepared = prepareGuided(saliency, mapHeight, mapWidth, reduced, settings);
      [maps, channels] = [prepared.maps, 2];
      const { width: w, height: h, kx: k } = reduced;
      this.#coefficients = new Stretch(prepared.coefficients, h, w, 4, height, width, 1 / k, 1 / k);
    }
    this.#map = new Stretch(maps, mapHeight, mapWidth, channels, height, width, mapHeight / height, mapWidth / width);
    this.#columns = new Int32Array(mapWidth + 1).fill(width);
    for (let x = width - 1, column = mapWidth; x >= 0; x--) while (column > this.#map.horizontal.left[x] + 1) this.#columns[--column] = x + 1;
    this.#columns[0] = 0;
    this.between = new Int32Array(mapWidth + 2);
  }

  /** Row `y` of the matte in [0, 1] into `out`; its pixels are `rgba` from `at` on. */
  row(y: number, rgba: Uint8ClampedArray | Uint8Array, at: number, out: Float32Array): void {
    const line = this.#map.line(y);
    const { sourceWidth, channels } = this.#map;
    const columns = this.#columns;
    this.bounds = 0;
    for (let column = 0; column < sourceWidth;) {
      const start = columns[column];
      const kind = this.#kind(line, column);
      do column++; while (column < sourceWidth && this.#kind(line, column) === kind);
      const end = columns[column];
      if (kind !== BETWEEN) {
        out.fill(kind, start, end);
        continue;
      }
      this.#widen(line, start, end, out);
      if (channels > 1 && start < end) this.#refine(y, rgba, at, out, line, start, end);
      this.between[this.bounds++] = start; // though it may be empty, in pictures smaller than the map
      this.between[this.bounds++] = end;
    }
    if (this.#threshold !== null) for (let x = 0; x < out.length; x++) out[x] = out[x] >= this.#threshold ? 1 : 0;
  }

  /** What the pixels that have the map's `column` on their left are, refined or not: 0, 1 or BETWEEN. */
  #kind(line: Float32Array, column: number): number {
    const { channels, sourceWidth } = this.#map;
    const a = line[column * channels];
    const b = column + 1 < sourceWidth ? line[(column + 1) * channels] : a;
    // A threshold may be lower or higher than any value that matters otherwise.
    if (this.#threshold === null && a <= UNSURE / 8 && b <= UNSURE / 8) return 0;
    return this.#threshold === null && a >= 1 - UNSURE / 8 && b >= 1 - UNSURE / 8 ? 1 : BETWEEN;
  }

  /** The map for the columns from `first` to before `end`. */
  #widen(line: Float32Array, first: number, end: number, out: Float32Array): void {
    const { horizontal: { left, right, weight }, channels } = this.#map;
    for (let x = first; x < end; x++) {
      const a = line[left[x] * channels];
      out[x] = a + (line[right[x] * channels] - a) * weight[x];
    }
  }

  /** Step 3 for the columns from `first` to before `end`. */
  #refine(
    y: number, rgba: Uint8ClampedArray | Uint8Array, at: number, out: Float32Array, line: Float32Array, first: number, end: number,
  ): void {
    if (!this.#coefficients) return;
    const { left, right, weight } = this.#coefficients.horizontal;
    const { left: mapLeft, right: mapRight, weight: mapWeight } = this.#map.horizontal;
    const c = this.#coefficients.line(y, left[first], right[end - 1] + 1);
    for (let x = first; x < end;) {
      const column = left[x];
      const l = column * 4;
      const r = right[x] * 4;
      const ar = c[l];
      const ag = c[l + 1];
      const ab = c[l + 2];
      const b = c[l + 3];
      const dr = c[r] - ar;
      const dg = c[r + 1] - ag;
      const db = c[r + 2] - ab;
      const d = c[r + 3] - b;
      do {
        const p = out[x];
        const unsure = 4 * (1 - Math.abs(2 * p - 1));
        if (unsure >= UNSURE) {
          const w = weight[x];
          const i = at + 4 * x;
          const q = clip(b + d * w
            + ((ar + dr * w) * rgba[i] + (ag + dg * w) * rgba[i + 1] + (ab + db * w) * rgba[i + 2]) * (1 / 255));
          const before = line[mapLeft[x] * 2 + 1];
          const correction = before + (line[mapRight[x] * 2 + 1] - before) * mapWeight[x];
          out[x] = clip(p + (unsure < 1 ? unsure : 1) * (q - p) + correction);
        }
      } while (++x < end && left[x] === column);
    }
  }
}

/** Softened: two box means of radius max(1, floor(pixels + 0.5)), in bands, so that one copy is all the memory needed. */
export function feather(values: Float32Array, height: number, width: number, pixels: number): Float32Array<ArrayBuffer> {
  const radius = Math.max(1, Math.floor(pixels + 0.5));
  const out = new Float32Array(values.length);
  const rows = Math.max(4 * radius, Math.floor((1 << 19) / width));
  for (let y = 0; y < height; y += rows) {
    const end = Math.min(height, y + rows);
    const first = Math.max(0, y - 2 * radius);
    const count = Math.min(height, end + 2 * radius) - first;
    const band = values.subarray(first * width, (first + count) * width);
    const soft = boxMean(boxMean(band, count, width, 1, radius), count, width, 1, radius);
    out.set(soft.subarray((y - first) * width, (end - first) * width), y * width);
  }
  return out;
}

/** Steps 1 to 5 on a whole picture, RGBA: the matte in 8 bits. */
export function matte(
  rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, saliency: Float32Array, size: number,
  option: RefineOption = "balanced",
): Uint8Array<ArrayBuffer> {
  const settings = refinement(option);
  const reduced = boxReduce(rgba, height, width, settings.workingSide);
  const rows = new MatteRows(width, height, clean(saliency, size, size, settings), size, size, settings, reduced);
  let values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) rows.row(y, rgba, y * width * 4, values.subarray(y * width, (y + 1) * width));
  if (settings.feather > 0) values = feather(values, height, width, settings.feather);
  const out = new Uint8Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = toAlpha(values[i] * (rgba[i * 4 + 3] / 255));
  return out;
}
