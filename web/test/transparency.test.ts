/** What a picture's own transparency says: the rules of u2net/decode.py. */
import assert from "node:assert/strict";
import test from "node:test";

import { flatten } from "../src/pixels.js";
import { Transparency } from "../src/transparency.js";

/** RGBA of one grey, opaque where `inside` says and clear elsewhere, told in bands of three rows. */
function told(grey: number, inside: (x: number, y: number) => boolean, side = 40): Transparency {
  const own = new Transparency(side, side);
  for (let y = 0; y < side; y += 3) {
    const rows = Math.min(3, side - y);
    const rgba = new Uint8ClampedArray(rows * side * 4);
    for (let i = 0; i < rows * side; i++) {
      if (inside(i % side, y + Math.floor(i / side))) rgba.set([grey, grey, grey, 255], i * 4);
    }
    own.push(rgba, rows);
  }
  return own;
}

const disc = (x: number, y: number): boolean => (x - 20) ** 2 + (y - 20) ** 2 < 15 ** 2;
const ring = (x: number, y: number): boolean => disc(x, y) && (x - 20) ** 2 + (y - 20) ** 2 > 8 ** 2;

test("light things are laid on black, all others on white", () => {
  assert.equal(told(255, disc).ground, 0);
  assert.equal(told(171, disc).ground, 0);
  assert.equal(told(170, disc).ground, 255);
  assert.equal(told(20, disc).ground, 255);
});

test("a cut-out is told from a picture in a frame", () => {
  assert.equal(told(90, ring).isCutout, true);
  assert.equal(told(90, disc).isCutout, false); // a portrait in a round frame fills its box
  assert.equal(told(90, (x) => x > 10).isCutout, false);
  assert.equal(told(90, () => true).isCutout, false);
  assert.equal(told(90, () => false).isCutout, false);
});

test("a ground shows through as far as a pixel is clear", () => {
  const rgba = Uint8ClampedArray.of(100, 0, 255, 128);
  flatten(rgba, 0);
  assert.deepEqual([...rgba], [50, 0, 128, 128]);
  flatten(rgba.fill(255, 3), 0);
  assert.deepEqual([...rgba], [50, 0, 128, 255]);
});
