/**
 * From the network's map to a matte at the picture's full resolution; the specification is u2net/postprocess.py, and
 * the names and results are the same.
 */
import { type Taps, taps } from "./pixels.js";

export interface PostprocessOptions {
  preset?: "fast" | "balanced" | "best";
}

/** Rows of the map at the picture's resolution, top to bottom, bilinear with half-pixel centres; O(width) memory. */
export class Upsample {
  readonly #h: Taps;
  readonly #v: Taps;
  #upper: Float32Array;
  #lower: Float32Array;
  #upperRow = -1;
  #lowerRow = -1;

  constructor(readonly map: Float32Array, readonly mapHeight: number, readonly mapWidth: number, height: number, width: number) {
    this.#h = taps(mapWidth, width);
    this.#v = taps(mapHeight, height);
    this.#upper = new Float32Array(width);
    this.#lower = new Float32Array(width);
  }

  #line(row: number, out: Float32Array): void {
    const { left, right, weight } = this.#h;
    const start = row * this.mapWidth;
    for (let x = 0; x < out.length; x++) {
      const a = this.map[start + left[x]];
      out[x] = a + (this.map[start + right[x]] - a) * weight[x];
    }
  }

  /** Row `y` into `out`; rows are asked for in rising order. */
  row(y: number, out: Float32Array): void {
    const [top, bottom, weight] = [this.#v.left[y], this.#v.right[y], this.#v.weight[y]];
    if (top === this.#lowerRow) {
      [this.#upper, this.#lower] = [this.#lower, this.#upper];
      [this.#upperRow, this.#lowerRow] = [this.#lowerRow, this.#upperRow];
    }
    if (top !== this.#upperRow) this.#line((this.#upperRow = top), this.#upper);
    if (bottom !== this.#lowerRow) this.#line((this.#lowerRow = bottom), this.#lower);
    for (let x = 0; x < out.length; x++) out[x] = this.#upper[x] + (this.#lower[x] - this.#upper[x]) * weight;
  }
}
