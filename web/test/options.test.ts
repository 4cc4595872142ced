/** Options are refused by name, before anything is done. */
import assert from "node:assert/strict";
import test from "node:test";

import { ConfigError } from "../src/errors.js";
import { createRemover, preload } from "../src/index.js";
import { checkBundle, checkConvert, checkCutout, checkRemover } from "../src/options.js";
import { folderUrl } from "../src/remover.js";

const refused = (check: (options: any) => void, options: unknown, text: RegExp): void =>
  assert.throws(() => check(options), (error: Error) => error instanceof ConfigError && text.test(error.message) && !/undefined|\n/.test(error.message), JSON.stringify(options));

test("options that there are none of are named", () => {
  refused(checkRemover, { bass: "/m/" }, /createRemover has no option "bass"/);
  refused(checkBundle, { threads: 2 }, /preload has no option "threads"/);
  refused(checkCutout, { format: "png" }, /cutout has no option "format"/);
  refused(checkConvert, { refine: "fast" }, /convert has no option "refine"/);
  refused(checkCutout, { refine: { fether: 2 } }, /refine has no setting "fether"/);
  refused(checkCutout, { refine: { toString: 2 } }, /refine has no setting "toString"/);
  refused(checkCutout, { crop: { size: 2 } }, /crop has no setting "size"/);
  refused(checkCutout, { shadow: { colour: "red" } }, /shadow has no setting "colour"/);
  refused(checkCutout, { background: { stops: ["red", "blue"], angel: 3 } }, /background has no option "angel"/);
});

test("values that cannot work say what could", () => {
  refused(checkRemover, { base: 7 }, /base must be a URL/);
  refused(checkRemover, { device: "gpu" }, /device must be "auto" or "wasm" or "webgpu", not "gpu"/);
  refused(checkRemover, { quality: 0.8 }, /quality must be "video" or "standard" or "best"/);
  refused(checkRemover, { threads: 0 }, /threads must be a whole number from 1/);
  refused(checkRemover, { maxPixels: 1.5 }, /maxPixels/);
  refused(checkRemover, { integrity: "md5-x", base: "/m/" }, /sha256/);
  refused(checkRemover, { integrity: "sha384-x" }, /no base/);
  refused(checkRemover, { signal: {} }, /AbortSignal/);
  refused(checkRemover, null, /object/);
  refused(checkCutout, { quality: 90 }, /quality must be 0 to 1, not 90/);
  refused(checkCutout, { output: "tiff" }, /output must be "png"/);
  refused(checkCutout, { animation: "all" }, /animation/);
  refused(checkCutout, { background: { stops: ["red"] } }, /two stops/);
  refused(checkCutout, { background: {} }, /CSS colour/);
  refused(checkCutout, { crop: "yes" }, /crop/);
  refused(checkCutout, { shadow: 1 }, /shadow must be true, false or/);
  refused(checkCutout, { shadow: { opacity: 2 } }, /opacity of the shadow must be 0 to 1/);
  refused(checkCutout, { crop: { margin: 2 } }, /margin of crop must be 0 to 1/);
  refused(checkCutout, { maskOnly: true, output: "png" }, /maskOnly/);
  refused(checkCutout, { refine: "best" }, /Python runner/);
  refused(checkCutout, { refine: { threshold: 0 } }, /threshold must be above 0 and at most 1, got 0/);
  refused(checkCutout, { refine: { epsilon: 2 } }, /epsilon must be above 0 and at most 1, got 2/);
  refused(checkCutout, { refine: 5 }, /refine/);
  refused(checkConvert, { output: "alpha" }, /alpha/);
});

test("what works passes", () => {
  checkRemover({});
  checkRemover({ base: new URL("https://example.org/m/"), quality: "video", device: "wasm", threads: 2, maxPixels: 5, mode: "main" });
  checkCutout({});
  checkCutout({ output: "bitmap", crop: { margin: 0, square: true }, refine: { preset: "fast", threshold: 1 }, background: { stops: ["red", "blue"], angle: 90 } });
  checkCutout({ maskOnly: true, crop: true, refine: "fast" });
  checkConvert({ output: "webp", quality: 0.5, background: "navy" });
});

test("they are the functions' own", async () => {
  await assert.rejects(createRemover({ bass: 1 } as any), ConfigError);
  await assert.rejects(preload({ threads: 1 } as any), ConfigError);
});

test("a bundle may lie wherever there are folders", () => {
  for (const scheme of ["https", "http", "chrome-extension", "moz-extension", "app", "tauri", "capacitor", "file"]) {
    assert.equal(folderUrl(`${scheme}://place/a/model?x=1#y`), `${scheme}://place/a/model/`);
  }
  for (const none of ["data:text/plain,x", "blob:https://example.org/1", "about:blank", "javascript:1", "relative/"]) {
    assert.throws(() => folderUrl(none), ConfigError, none);
  }
});
