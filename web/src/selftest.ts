/**
 * The picture that a backend has to get right before it is trusted: WebGPU drivers exist that run without an error and
 * compute something else. Version 1: an orange disc of radius 0.3 on a blue gradient, in integers, so that every
 * language draws the same bytes. The bundle's maker stores the float32 model's answer as a grid of block means.
 */
import type { SelfTest } from "./manifest.js";

export const PICTURE_VERSION = 1;

/** float32 (size, size, 3), whole numbers in [0, 255]. */
export function selfTestPicture(size: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(size * size * 3);
  const shades = Uint8Array.from({ length: size }, (_, x) => Math.floor((255 * x) / (size - 1)));
  for (let y = 0; y < size; y++) drawRow(out.subarray(y * size * 3), 2 * y - (size - 1), shades[y], shades);
  return out;
}

/** A function of its own, for it is drawn once, and engines compile what is called again. `dy`: twice the distance to the centre. */
function drawRow(out: Float32Array, dy: number, v: number, shades: Uint8Array): void {
  const size = shades.length;
  for (let x = 0, at = 0; x < size; x++, at += 3) {
    const u = shades[x];
    const dx = 2 * x - (size - 1);
    if (25 * (dx * dx + dy * dy) <= 9 * size * size) {
      out[at] = 230 - ((v * 60) >> 8);
      out[at + 1] = 80 + ((u * 50) >> 8);
      out[at + 2] = 40;
    } else {
      out[at] = 60 + ((u * 60) >> 8);
      out[at + 1] = 90 + ((v * 60) >> 8);
      out[at + 2] = 140 + (((u + v) * 30) >> 9);
    }
  }
}

/** Mean absolute difference, in [0, 1], between a map and the bundle's expectation. */
export function selfTestDifference(map: Float32Array, size: number, test: SelfTest): number {
  const { grid } = test;
  const expected = Uint8Array.from(atob(test.alpha), (character) => character.charCodeAt(0));
  if (expected.length !== grid * grid) return 1;
  let total = 0;
  for (let j = 0; j < grid; j++) {
    const [top, bottom] = [Math.floor((j * size) / grid), Math.floor(((j + 1) * size) / grid)];
    for (let i = 0; i < grid; i++) {
      const [left, right] = [Math.floor((i * size) / grid), Math.floor(((i + 1) * size) / grid)];
      let sum = 0;
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += map[y * size + x];
      const mean = sum / Math.max(1, (bottom - top) * (right - left));
      const difference = Math.abs(mean - expected[j * grid + i] / 255);
      total += Number.isFinite(difference) ? difference : 1;
    }
  }
  return total / (grid * grid);
}
