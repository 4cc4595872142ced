/**
 * The edge of a stroke, brought to where the picture has one.
 *
 * What is near the stroke's middle line is meant; what lies outside stays. In between a guided filter (as in step 3 of
 * u2net/postprocess.py) decides by colour: it is fitted to what is sure on both sides and asked about the rest. What it leaves in doubt is painted.
 */
import { guidedCoefficients } from "../../src/guided.js";
import { BoxReduce } from "../../src/pixels.js";
import { boxMean, clip, Stretch, toUnit } from "../../src/sampling.js";
import { fade } from "./matte.js";

const GRID_RADIUS = 12; // of the brush, on the grid of the fit
const WINDOW = 2; // brushes: nearly every window sees both sides
const UNKNOWN = 128;
const EPSILON = 4e-4; // less would follow the picture's noise
const [OUTER, INNER] = [0.65 * 255, 0.85 * 255]; // of the cover: from the one on it is less, from the other on not at all in doubt
// How much the pixel's colour speaks against the stroke, of all that it could: up to the one it is meant, from the other on it is not.
const [DOUBT, SURE] = [0.35, 0.75];
const LITTLE = 0.05; // where next to nothing could be said, nothing is

/**
 * The values of a part of the matte after a stroke: `rgba`, `before` and `cover` are of that part, `cover` falls from 255 on the
 * stroke's middle line to 0 at `radius`. What is restored never sinks, what is erased never rises.
 */
export function snap(
  rgba: Uint8ClampedArray, width: number, height: number, before: Uint8Array, cover: Uint8Array, radius: number, restore: boolean,
): Uint8Array<ArrayBuffer> {
  const k = Math.max(1, Math.floor(radius / GRID_RADIUS));
  const picture = new BoxReduce(width, height, k, k, 3);
  picture.push(rgba, height);
  const target = restore ? 255 : 0;
  const known = new BoxReduce(width, height, k, k, 1);
  known.push(before.map((value, i) => (cover[i] >= INNER ? target : cover[i] && value !== target ? UNKNOWN : value)), height);
  const { width: w, height: h } = picture;
  const guide = toUnit(picture.pixels);
  const p = Float32Array.from(known.pixels, (value) => (value === UNKNOWN ? 0.5 : value / 255)); // which then counts for nothing
  const window = Math.ceil((WINDOW * radius) / k);
  const coefficients = guidedCoefficients(guide, p, h, w, { radius: window, epsilon: EPSILON, confidence: 1, needed: new Uint8Array(w * h).fill(1) });
  const fitted = new Stretch(coefficients, h, w, 4, height, width, 1 / k, 1 / k);
  const expected = new Stretch(means(p, h, w, window), h, w, 1, height, width, 1 / k, 1 / k);
  const { left, right, weight } = fitted.horizontal;
  const out = new Uint8Array(before);
  for (let y = 0, i = 0; y < height; y++) {
    const line = fitted.line(y);
    const mean = expected.line(y);
    for (let x = 0; x < width; x++, i++) {
      if (!cover[i]) continue;
      const [l, r, share] = [left[x] * 4, right[x] * 4, weight[x]];
      const at = (c: number): number => line[l + c] + (line[r + c] - line[l + c]) * share;
      const q = (at(0) * rgba[i * 4] + at(1) * rgba[i * 4 + 1] + at(2) * rgba[i * 4 + 2]) / 255 + at(3);
      // What the colour says is how far it moves the guess from the one without it: where all is of one colour, nowhere.
      const m = mean[left[x]] + (mean[right[x]] - mean[left[x]]) * share;
      const against = restore ? (m - q) / (m + LITTLE) : (q - m) / (1 - m + LITTLE);
      const spared = clip((against - DOUBT) / (SURE - DOUBT)) * (1 - clip((cover[i] - OUTER) / (INNER - OUTER)));
      out[i] = Math.round(before[i] + fade(cover[i]) * (1 - spared) * (target - before[i]));
    }
  }
  return out;
}

/** What is to be guessed of a pixel whose colour is not known: means over windows, and over those again, as of the coefficients. */
function means(p: Float32Array, height: number, width: number, radius: number): Float32Array {
  const weighted = new Float32Array(p.length * 2);
  for (let i = 0; i < p.length; i++) {
    weighted[2 * i + 1] = Math.abs(2 * p[i] - 1) + 1e-3;
    weighted[2 * i] = weighted[2 * i + 1] * p[i];
  }
  const sums = boxMean(weighted, height, width, 2, radius);
  return boxMean(p.map((_, i) => sums[2 * i] / sums[2 * i + 1]), height, width, 1, radius);
}
