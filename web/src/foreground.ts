/** Step 6 of the specification: the subject's colours without the background's share. See u2net/foreground.py. */
import { BoxReduce } from "./pixels.js";
import { boxMean, boxReduce, clip, Stretch, toUnit, workingFactor } from "./sampling.js";

const COLOUR_SIDE = 320; // about the longest side of the working grid
const COLOUR_RADII = [48, 16, 6, 2];

/** k of the working grid of the colours. */
export function colourFactor(height: number, width: number): number {
  return workingFactor(height, width, COLOUR_SIDE);
}

const UNIT = Float64Array.from({ length: 256 }, (_, value) => value / 255);
const SHARE = UNIT.map((a) => a / (a * a + (1 - a) * (1 - a))); // of what is left over in a colour, the subject's

/** Colours of the subject alone, row by row; picture and matte are given on the colours' working grid. */
export class ForegroundRows {
  readonly #estimates: Stretch;

  constructor(readonly width: number, height: number, reduced: BoxReduce, matteReduced: BoxReduce) {
    const { width: w, height: h, kx: k } = reduced;
    const colours = toUnit(reduced.pixels);
    this.#estimates = new Stretch(fuse(colours, matteReduced.pixels, h, w), h, w, 6, height, width, 1 / k, 1 / k);
  }

  /** Put colours and matte of one row, from matte index `from` on, into RGBA at byte `at`. Black where alpha is 0. */
  row(y: number, rgba: Uint8ClampedArray, at: number, alpha: Uint8Array, from: number): void {
    const stretch = this.#estimates;
    let line: Float32Array | undefined;
    const { left, right, weight } = stretch.horizontal;
    const end = from + this.width;
    for (let i = from, p = at; i < end;) {
      const a8 = alpha[i];
      if (a8 === 0) {
        const start = p;
        do p += 4; while (++i < end && alpha[i] === 0);
        rgba.fill(0, start, p);
        continue;
      }
      if (a8 === 255) {
        do {
          rgba[p + 3] = 255;
          p += 4;
        } while (++i < end && alpha[i] === 255);
        continue;
      }
      line ??= stretch.line(y);
      const x = i - from;
      const l = left[x] * 6;
      const r = right[x] * 6;
      const w = weight[x];
      const a = UNIT[a8];
      const share = SHARE[a8];
      rgba[p] = frontColour(line[l], line[r], line[l + 3], line[r + 3], w, a, share, rgba[p]);
      rgba[p + 1] = frontColour(line[l + 1], line[r + 1], line[l + 4], line[r + 4], w, a, share, rgba[p + 1]);
      rgba[p + 2] = frontColour(line[l + 2], line[r + 2], line[l + 5], line[r + 5], w, a, share, rgba[p + 2]);
      rgba[p + 3] = a8;
      p += 4;
      i++;
    }
  }
}

/** F of one channel in 8 bits, with F̂ and B̂ between their left and right samples; what is under 0 the clamped array mends. */
function frontColour(
  f: number, fRight: number, b: number, bRight: number, weight: number, a: number, share: number, value: number,
): number {
  const front = f + (fRight - f) * weight;
  const back = b + (bRight - b) * weight;
  return ((front + share * (UNIT[value] - a * front - (1 - a) * back)) * 255 + 0.5) | 0; // floor, but under 0
}

/** F̂ and B̂ of the last level, six interleaved values a pixel. */
function fuse(colours: Float32Array, matte: Uint8Array, height: number, width: number): Float32Array {
  const front = new Float32Array(colours.length);
  const back = colours.slice();
  const weighted = new Float32Array(matte.length * 4);
  const [fronts, backs] = [new Float32Array(matte.length * 4), new Float32Array(matte.length * 4)];
  const frontWeight = UNIT.map((a) => a ** 2);
  const backWeight = UNIT.map((a) => (1 - a) ** 4);
  for (const radius of COLOUR_RADII) {
    average(back, matte, backWeight, height, width, radius, weighted, backs);
    unmixFront(colours, matte, backs, front);
    average(front, matte, frontWeight, height, width, radius, weighted, fronts);
    unmixBack(colours, matte, fronts, backs, back);
  }
  const estimates = new Float32Array(matte.length * 6);
  for (let i = 0, from = 0; i < estimates.length; i += 6, from += 4) {
    for (let c = 0; c < 3; c++) {
      estimates[i + c] = fronts[from + c];
      estimates[i + 3 + c] = backs[from + c];
    }
  }
  return estimates;
}

const FRONT_SHARE = UNIT.map((a) => 1 / Math.max(a, 0.1));
const BACK_SHARE = UNIT.map((a) => (1 - a) / (a * a + (1 - a) * (1 - a)));

/** F from the picture and B̂. */
function unmixFront(colours: Float32Array, matte: Uint8Array, backs: Float32Array, front: Float32Array): void {
  for (let i = 0, p = 0, at = 0; i < matte.length; i++, p += 3, at += 4) {
    const clear = 1 - UNIT[matte[i]];
    const scale = FRONT_SHARE[matte[i]];
    front[p] = clip((colours[p] - clear * backs[at]) * scale);
    front[p + 1] = clip((colours[p + 1] - clear * backs[at + 1]) * scale);
    front[p + 2] = clip((colours[p + 2] - clear * backs[at + 2]) * scale);
  }
}

/** B from the picture, F̂ and B̂. */
function unmixBack(colours: Float32Array, matte: Uint8Array, fronts: Float32Array, backs: Float32Array, back: Float32Array): void {
  for (let i = 0, p = 0, at = 0; i < matte.length; i++, p += 3, at += 4) {
    const a = UNIT[matte[i]];
    const clear = 1 - a;
    const share = BACK_SHARE[matte[i]];
    back[p] = clip(backs[at] + share * (colours[p] - a * fronts[at] - clear * backs[at]));
    back[p + 1] = clip(backs[at + 1] + share * (colours[p + 1] - a * fronts[at + 1] - clear * backs[at + 1]));
    back[p + 2] = clip(backs[at + 2] + share * (colours[p + 2] - a * fronts[at + 2] - clear * backs[at + 2]));
  }
}

/** Box means of colours weighted by what `weights` says for the matte, over those of the weights, into `means` (of four). */
function average(
  source: Float32Array, matte: Uint8Array, weights: Float64Array, height: number, width: number, radius: number,
  weighted: Float32Array, means: Float32Array<ArrayBuffer>,
): void {
  for (let i = 0, from = 0, at = 0; i < matte.length; i++, from += 3, at += 4) {
    const weight = weights[matte[i]];
    weighted[at] = weight * source[from];
    weighted[at + 1] = weight * source[from + 1];
    weighted[at + 2] = weight * source[from + 2];
    weighted[at + 3] = weight;
  }
  boxMean(weighted, height, width, 4, radius, undefined, means);
  for (let at = 0; at < means.length; at += 4) {
    const scale = 1 / (means[at + 3] + 1e-5);
    means[at] *= scale;
    means[at + 1] *= scale;
    means[at + 2] *= scale;
  }
}

/** Step 6 on a whole picture: RGBA with the matte, colours without the background's share, black where alpha is 0. */
export function estimateForeground(
  rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, alpha: Uint8Array, workingSide = COLOUR_SIDE,
): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray(rgba);
  const reduced = boxReduce(rgba, height, width, workingSide);
  const matteReduced = new BoxReduce(width, height, reduced.kx, reduced.ky, 1);
  matteReduced.push(alpha, height);
  const rows = new ForegroundRows(width, height, reduced, matteReduced);
  for (let y = 0; y < height; y++) rows.row(y, out, y * width * 4, alpha, y * width);
  return out;
}
