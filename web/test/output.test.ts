/** The writers, the crop and what a matte shows. */
import assert from "node:assert/strict";
import test from "node:test";
import { inflateSync } from "node:zlib";

import { CroppedSink, type Sink } from "../src/output.js";
import { crc32, PngWriter } from "../src/png.js";
import { cropBox, cropRows, cropSettings, findSubject } from "../src/subject.js";

const noise = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 13) & 255);

test("CRC-32 is zlib's", () => assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926));

for (const channels of [1, 4] as const) {
  test(`a PNG of ${channels} channels, written in bands, holds the pixels`, async () => {
    const [width, height] = [37, 29];
    const pixels = noise(width * height * channels);
    const png = new PngWriter(width, height, channels);
    for (let y = 0; y < height; y += 8) await png.write(pixels.subarray(y * width * channels, Math.min(height, y + 8) * width * channels));
    const file = Buffer.from(await (await png.finish()).arrayBuffer());
    assert.equal(file.readUInt32BE(16), width);
    assert.equal(file.readUInt32BE(20), height);
    const rows = inflateSync(file.subarray(41, 41 + file.readUInt32BE(33)));
    const row = width * channels;
    const above = Buffer.alloc(row);
    for (let y = 0; y < height; y++) {
      assert.equal(rows[y * (row + 1)], 2);
      for (let x = 0; x < row; x++) above[x] += rows[y * (row + 1) + 1 + x];
      assert.deepEqual(above, Buffer.from(pixels.subarray(y * row, (y + 1) * row)));
    }
  });
}

test("the subject: its box, its part of the picture, and when there is none", () => {
  const alpha = new Uint8Array(50 * 40);
  assert.deepEqual(findSubject(alpha, 50, 40), { found: false, box: null, area: 0 });
  for (let y = 10; y < 20; y++) alpha.fill(255, y * 50 + 5, y * 50 + 25);
  alpha[30 * 50 + 40] = 127; // less than half
  assert.deepEqual(findSubject(alpha, 50, 40).box, { x: 5, y: 10, width: 20, height: 10 });
  assert.ok(Math.abs(findSubject(alpha, 50, 40).area - (200 + 127 / 255) / 2000) < 1e-12);
  alpha.fill(0);
  alpha[0] = 255;
  assert.equal(findSubject(alpha, 50, 40).found, false, "half a thousandth");
});

test("crop boxes stay in the picture, squares may leave it", () => {
  const settings = (crop: object | true) => cropSettings(crop)!;
  const box = { x: 2, y: 10, width: 20, height: 10 };
  assert.deepEqual(cropBox(box, 50, 40, settings({ margin: 0 })), box);
  assert.deepEqual(cropBox(box, 50, 40, settings({ margin: 0.2 })), { x: 0, y: 6, width: 26, height: 18 });
  assert.deepEqual(cropBox(box, 50, 40, settings({ margin: 0.5, square: true })), { x: -8, y: -5, width: 40, height: 40 });
  assert.equal(cropSettings(false), undefined);
  assert.deepEqual(settings(true), { margin: 0.05, square: false });
});

for (const part of [{ x: 3, y: 5, width: 20, height: 300 }, { x: -4, y: -7, width: 40, height: 340 }, { x: 10, y: 100, width: 1, height: 1 }]) {
  test(`a cropped picture is that part, and nothing outside: ${JSON.stringify(part)}`, async () => {
    const [width, height] = [31, 320];
    const pixels = noise(width * height * 4);
    const got = new Uint8Array(part.width * part.height * 4);
    const starts: number[] = [];
    let finished: Uint8Array | undefined;
    const sink: Sink = {
      async write(y, rgba) {
        starts.push(y);
        got.set(rgba, y * part.width * 4);
      },
      async finish(alpha) {
        finished = alpha;
        return new Blob();
      },
    };
    const cropped = new CroppedSink(sink, width, part);
    for (let y = 0; y < height; y += 48) await cropped.write(y, new Uint8ClampedArray(pixels.slice(y * width * 4, Math.min(height, y + 48) * width * 4)));
    const plane = (channel: number): Uint8Array => pixels.filter((_, i) => i % 4 === channel);
    const alpha = cropRows(plane(3), width, height, part);
    await cropped.finish(alpha);
    assert.equal(finished, alpha);
    assert.ok(starts.every((y) => y % 16 === 0), "bands begin where blocks do");
    for (let channel = 0; channel < 4; channel++) {
      assert.deepEqual(got.filter((_, i) => i % 4 === channel), cropRows(plane(channel), width, height, part));
    }
    const inside = cropRows(new Uint8Array(width * height).fill(1), width, height, part).reduce((sum, value) => sum + value, 0);
    const columns = Math.min(width, part.x + part.width) - Math.max(0, part.x);
    assert.equal(inside, columns * (Math.min(height, part.y + part.height) - Math.max(0, part.y)));
  });
}
