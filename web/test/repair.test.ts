/** The demo's repair of a matte, without a page. */
import assert from "node:assert/strict";
import test from "node:test";

import { EditedMatte } from "../demo/repair/matte.js";

const [WIDTH, HEIGHT] = [120, 80];

/** A matte with rectangles [x, y, width, height, value] on nothing. */
function matte(...parts: number[][]): EditedMatte {
  const data = new Uint8Array(WIDTH * HEIGHT);
  for (const [x, y, width, height, value] of parts) for (let row = y; row < y + height; row++) data.fill(value, row * WIDTH + x, row * WIDTH + x + width);
  return new EditedMatte(data, WIDTH, HEIGHT);
}

const at = ({ data }: EditedMatte, x: number, y: number): number => data[y * WIDTH + x];

test("a stroke erases or restores what it covers, and every step can be undone and done again", () => {
  const edited = matte([0, 0, 60, HEIGHT, 255]);
  const first = edited.data.slice();
  for (const restore of [false, true]) {
    const x = restore ? 90 : 30;
    edited.begin({ radius: 10, restore });
    assert.deepEqual(edited.paint({ x, y: 20 }, { x, y: 60 }), { x: x - 10, y: 10, width: 20, height: 60 });
    assert.ok(edited.end());
    for (const y of [20, 40, 60]) assert.equal(at(edited, x, y), restore ? 255 : 0);
    assert.equal(at(edited, x + 11, 40), restore ? 0 : 255, "outside nothing changes");
    assert.ok(at(edited, x + 8, 40) > 0 && at(edited, x + 8, 40) < 255, "the rim is soft");
  }
  const last = edited.data.slice();
  edited.undo();
  assert.ok(edited.canUndo && edited.canRedo);
  edited.undo();
  assert.deepEqual(edited.data, first);
  assert.equal(edited.undo(), undefined);
  edited.redo();
  edited.redo();
  assert.deepEqual(edited.data, last);
  edited.undo();
  edited.begin({ radius: 5, restore: true });
  edited.paint({ x: 90, y: 40 }, { x: 90, y: 40 });
  edited.end();
  assert.equal(edited.canRedo, false, "a new step leaves nothing to do again");
  edited.begin({ radius: 5, restore: false });
  const before = edited.data.slice();
  edited.paint({ x: 10, y: 40 }, { x: 20, y: 40 });
  edited.cancel();
  assert.deepEqual(edited.data, before);
  edited.begin({ radius: 5, restore: false });
  assert.equal(edited.paint({ x: -50, y: 40 }, { x: -40, y: 40 }), undefined, "beside the picture");
  assert.equal(edited.end(), undefined);
});

test("a stroke that follows edges stops where the picture has one", () => {
  // Red to the left of column 60, blue to the right; the matte lacks the red's right part, and the stroke is careless.
  const rgba = new Uint8ClampedArray(WIDTH * HEIGHT * 4);
  for (let i = 0; i < WIDTH * HEIGHT; i++) rgba.set(i % WIDTH < 60 ? [200 + (i * 7) % 20, 40, 40, 255] : [40, 40, 200 + (i * 7) % 20, 255], i * 4);
  const guide = (box: { x: number; y: number; width: number; height: number }): Uint8ClampedArray => {
    const out = new Uint8ClampedArray(box.width * box.height * 4);
    for (let row = 0; row < box.height; row++) out.set(rgba.subarray(((box.y + row) * WIDTH + box.x) * 4, ((box.y + row) * WIDTH + box.x + box.width) * 4), row * box.width * 4);
    return out;
  };
  for (const radius of [16, 30]) {
    const restored = matte([0, 0, 45, HEIGHT, 255]);
    restored.begin({ radius, restore: true });
    restored.paint({ x: 52, y: 20 }, { x: 52, y: 60 });
    restored.end(guide);
    for (const x of [46, 52, 57]) assert.ok(at(restored, x, 40) > 200, `column ${x} is red: ${at(restored, x, 40)}`);
    for (const x of [63, 66]) assert.ok(at(restored, x, 40) < 60, `column ${x} is blue: ${at(restored, x, 40)}`);
    const erased = matte([0, 0, 75, HEIGHT, 255]);
    erased.begin({ radius, restore: false });
    erased.paint({ x: 69, y: 20 }, { x: 69, y: 60 });
    erased.end(guide);
    for (const x of [64, 69, 73]) assert.ok(at(erased, x, 40) < 60, `column ${x} is blue: ${at(erased, x, 40)}`);
    for (const x of [54, 57]) assert.ok(at(erased, x, 40) > 200, `column ${x} is red: ${at(erased, x, 40)}`);
  }
});

test("where all is of one colour a stroke that follows edges covers what one does that does not", () => {
  for (const restore of [false, true]) {
    const edited = restore ? matte() : matte([0, 0, WIDTH, HEIGHT, 255]);
    edited.begin({ radius: 20, restore });
    edited.paint({ x: 30, y: 40 }, { x: 90, y: 40 });
    const plain = edited.data.slice();
    edited.end(({ width, height }) => new Uint8ClampedArray(width * height * 4).map((_, i) => 120 + (i * 7919) % 13)); // grain
    const difference = edited.data.reduce((most, value, i) => Math.max(most, Math.abs(value - plain[i])), 0);
    assert.ok(difference < 64, `${difference}`);
  }
});

test("one subject is kept, with its soft edge; where there is none nothing is", () => {
  const edited = matte([10, 10, 30, 30, 255], [40, 10, 1, 30, 20], [70, 10, 20, 20, 200], [70, 50, 5, 5, 10]);
  assert.equal(edited.keepOnly({ x: 60, y: 70 }), undefined);
  assert.deepEqual(edited.keepOnly({ x: 20, y: 20 }), { x: 70, y: 10, width: 20, height: 45 });
  assert.deepEqual([at(edited, 20, 20), at(edited, 40, 20), at(edited, 80, 20), at(edited, 72, 52)], [255, 20, 0, 0]);
  assert.equal(edited.keepOnly({ x: 20, y: 20 }), undefined, "there is no other");
  edited.undo();
  assert.equal(at(edited, 80, 20), 200);
});

test("holes are filled with their rim, and what is open is no hole", () => {
  const edited = matte([10, 10, 60, 60, 255], [30, 30, 10, 10, 0], [29, 30, 1, 10, 180], [60, 30, 10, 10, 0]);
  assert.deepEqual(edited.fillHoles(), { x: 29, y: 30, width: 11, height: 10 });
  assert.deepEqual([at(edited, 35, 35), at(edited, 29, 35), at(edited, 65, 35), at(edited, 5, 5)], [255, 255, 0, 0]);
  assert.equal(edited.fillHoles(), undefined);
});
