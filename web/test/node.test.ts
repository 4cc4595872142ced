/** The package in Node, with whatever bundle it is given; the engine is the browser's. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { ConfigError, CorruptImageError, DisposedError, EngineError, IntegrityError } from "../src/errors.js";
import { createRemover } from "../src/node.js";
import { parseManifest } from "../src/manifest.js";

const folder = process.env.U2NET_TEST_BUNDLE; // with a packed probe: redder than blue
const options = { skip: folder ? false : "no bundle is named by U2NET_TEST_BUNDLE" };

function picture(width = 60, height = 40): { data: Uint8ClampedArray; width: number; height: number } {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) data.set(i % width < width / 2 ? [220, 60, 40, 255] : [40, 60, 220, 255], i * 4);
  return { data, width, height };
}

test("the engine cuts out plain pixels, without sharp", options, async () => {
  const remover = await createRemover({ base: folder });
  assert.equal(remover.info.backend, "engine");
  assert.equal(remover.info.mode, "main");
  assert.ok(remover.info.selfTestDifference! < 0.02);
  const { alpha, subject, image, backend } = await remover.cutout(picture(), { refine: "fast" });
  assert.equal(backend, "engine");
  assert.equal(image.type, "image/png");
  assert.equal(subject.found, true);
  assert.ok(Math.abs(subject.area - 0.5) < 0.05);
  assert.ok(alpha.data[20 * 60 + 10] > 250 && alpha.data[20 * 60 + 50] < 5);
  const mask = await remover.cutout(picture(), { refine: "fast", maskOnly: true, crop: { margin: 0 } });
  assert.ok(!("image" in mask));
  assert.deepEqual([mask.width, mask.height], [mask.subject.box!.width, mask.subject.box!.height]);
  const half = { data: new Uint8Array(60 * 40).fill(255, 0, 60 * 20), width: 60, height: 40 }; // somebody has painted another matte
  const composed = await remover.compose(picture(), half, { crop: { margin: 0 }, shadow: { drop: 0.1 } });
  assert.deepEqual(composed.subject.box, { x: 0, y: 0, width: 60, height: 20 });
  assert.equal(composed.timings.inferenceMs + composed.timings.secondLookMs, 0);
  assert.ok(!("backend" in composed) && composed.image.type === "image/png");
  await assert.rejects(remover.compose(picture(50, 40), half), /the matte is 60×40, and its picture 50×40/);
  await assert.rejects(remover.compose(picture(), half, { refine: "fast" } as object), ConfigError);
  const nothing = await remover.cutout({ data: new Uint8ClampedArray(400 * 4).fill(255), width: 20, height: 20 }, { crop: true });
  assert.equal(nothing.width, 20);
  assert.match(nothing.notes.join(), /nothing was found|found/);
  await remover.dispose();
  await assert.rejects(remover.cutout(picture()), DisposedError);
});

test("files are decoded and written by sharp", options, async () => {
  const remover = await createRemover({ base: folder });
  const { image } = await remover.cutout(picture(), { refine: "fast" });
  for (const output of ["webp", "jpeg", "png", "alpha"] as const) {
    const again = await remover.cutout(image, { output, background: output === "jpeg" ? "navy" : "transparent", refine: "fast" });
    assert.equal(again.image.type, output === "alpha" ? "image/png" : `image/${output}`);
    assert.ok(again.image.size > 60);
  }
  const bytes = new Uint8Array(await image.arrayBuffer());
  assert.equal((await remover.cutout(bytes)).width, 60);
  assert.equal((await remover.cutout(bytes.buffer)).width, 60);
  await assert.rejects(remover.cutout(bytes.slice(0, 100)), CorruptImageError);
  await assert.rejects(remover.cutout(image, { background: "no colour" }), ConfigError);
  await assert.rejects(remover.cutout(image, { background: { stops: ["red", "blue"] } }), ConfigError);
  assert.equal((await remover.cutout(image)).width, 60, "and the next picture works");
  await remover.dispose();
});

test("files that are not what they should be have one typed error each", options, async () => {
  const copy = mkdtempSync(join(tmpdir(), "u2net-"));
  const manifest = JSON.parse(readFileSync(join(folder!, "manifest.json"), "utf8"));
  const model = readFileSync(join(folder!, "int8.u2e"));
  const { createHash } = await import("node:crypto");
  const withModel = (bytes: Buffer): void => {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const files = manifest.files.map((file: any) => ({ ...file, bytes: bytes.length, sha256 }));
    parseManifest(JSON.stringify({ ...manifest, files }));
    writeFileSync(join(copy, "manifest.json"), JSON.stringify({ ...manifest, files }));
    writeFileSync(join(copy, "int8.u2e"), bytes);
  };
  withModel(model.subarray(0, model.length - 8));
  await assert.rejects(createRemover({ base: copy }), (error: Error) => error instanceof EngineError && /cut off/.test(error.message));
  const damaged = Buffer.from(model);
  damaged[damaged.length - 9] ^= 64;
  withModel(damaged);
  await assert.rejects(createRemover({ base: copy }), (error: Error) => error instanceof EngineError && /damaged/.test(error.message));
  withModel(Buffer.from("<p>no model</p>"));
  await assert.rejects(createRemover({ base: copy }), EngineError);
  withModel(model);
  writeFileSync(join(copy, "int8.u2e"), damaged);
  await assert.rejects(createRemover({ base: copy }), IntegrityError);
  writeFileSync(join(copy, "int8.u2e"), model);
  assert.equal((await createRemover({ base: copy })).info.backend, "engine");
});
