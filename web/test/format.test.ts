/** What a file is and how large its picture is, from its first bytes. */
import assert from "node:assert/strict";
import test from "node:test";

import { EmptyImageError, ImageTooLargeError, UnsupportedImageError } from "../src/errors.js";
import { checkSize, inspect, sniff } from "../src/format.js";

const ascii = (text: string): number[] => Array.from(text, (letter) => letter.charCodeAt(0));
const be32 = (value: number): number[] => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
const le32 = (value: number): number[] => be32(value).reverse();
const pngChunk = (type: string, data: number[]): number[] => [...be32(data.length), ...ascii(type), ...data, 0, 0, 0, 0];
const PNG = [0x89, ...ascii("PNG\r\n\x1a\n"), ...pngChunk("IHDR", [...be32(640), ...be32(480), 8, 6, 0, 0, 0])];
const apng = (frames: number): Uint8Array =>
  Uint8Array.from([...PNG, ...pngChunk("acTL", [...be32(frames), ...be32(0)]), ...pngChunk("IDAT", [1, 2, 3])]);
const riffChunk = (type: string, data: number[]): number[] => [...ascii(type), ...le32(data.length), ...data, ...(data.length % 2 ? [0] : [])];
const webp = (frames: number, flags = 2): Uint8Array => {
  const chunks = [...riffChunk("VP8X", [flags, 0, 0, 0, 99, 0, 0, 49, 0, 0]), ...riffChunk("ANIM", [0, 0, 0, 0, 0, 0])];
  for (let i = 0; i < frames; i++) chunks.push(...riffChunk("ANMF", [1, 2, 3, 4, 5]));
  return Uint8Array.from([...ascii("RIFF"), ...le32(chunks.length + 4), ...ascii("WEBP"), ...chunks]);
};

test("an APNG of one frame is a picture, of two an animation", () => {
  assert.deepEqual(sniff(apng(1)), { format: "png", width: 640, height: 480, animated: false });
  assert.equal(sniff(apng(2)).animated, true);
});

test("an animated WebP of one frame is a picture", () => {
  assert.deepEqual(sniff(webp(1)), { format: "webp", width: 100, height: 50, animated: false });
  assert.equal(sniff(webp(2)).animated, true);
  const long = webp(1);
  assert.equal(sniff(long, long.length + 5000).animated, true, "more that cannot be seen counts as animated");
});

test("formats that no browser decodes have names", async () => {
  for (const head of ["II*\0", "MM\0*", "II+\0"]) {
    await assert.rejects(inspect(new Blob([Uint8Array.from(ascii(`${head}\0\0\0\0`))])), (error: Error) => error instanceof UnsupportedImageError && /TIFF/.test(error.message));
  }
  assert.equal(sniff(Uint8Array.from([0xff, 0x0a, ...Array(20).fill(0)])).format, "jxl");
  assert.equal(sniff(Uint8Array.from([0, 0, 0, 12, ...ascii("JXL \r\n\x87\n"), 0, 0, 0])).format, "jxl");
});

test("empty files, text and SVG", async () => {
  await assert.rejects(inspect(new Blob([])), EmptyImageError);
  await assert.rejects(inspect(new Blob(["hello, I am no picture"])), UnsupportedImageError);
  await assert.rejects(inspect(new Blob(["<svg xmlns='http://www.w3.org/2000/svg'/>"])), /SVG/);
});

test("sizes of today's cameras pass, and the limit can be moved", () => {
  checkSize(12032, 9024); // 108 megapixels
  assert.throws(() => checkSize(20_000, 15_000), (error: Error) => error instanceof ImageTooLargeError && /300 megapixels, over the limit of 150/.test(error.message));
  checkSize(20_000, 15_000, 300e6);
  assert.throws(() => checkSize(1000, 1001, 1e6), ImageTooLargeError);
  assert.throws(() => checkSize(70_000, 1), /too long/);
  assert.throws(() => checkSize(0, 5), EmptyImageError);
});

test("no head of any length is read beyond its end", () => {
  for (const whole of [apng(2), webp(2), Uint8Array.from([0xff, 0xd8, 0xff, 0xe0, 0, 16, ...Array(40).fill(255)])]) {
    for (let length = 0; length <= whole.length; length++) sniff(whole.subarray(0, length), whole.length);
  }
});
