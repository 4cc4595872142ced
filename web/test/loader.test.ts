/** Downloads, progress, integrity and manifests, on a host of this process. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import { brotliCompressSync, gzipSync } from "node:zlib";

import { openBundle, ProgressReport } from "../src/bundle.js";
import { DownloadError, IntegrityError, ManifestError } from "../src/errors.js";
import { loadFile } from "../src/loader.js";
import { findModel, parseManifest } from "../src/manifest.js";
import type { Progress } from "../src/types.js";

const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 7);
const sha256 = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");
const model = { path: "int8.u2e", role: "model", precision: "int8", format: "u2e", bytes: bytes.length, sha256: sha256(bytes) };
const manifest = (change: object = {}): any => ({
  schema_version: 1, name: "u2net-test", version: "1", model: { name: "test" },
  input: { interface: "tensor", name: "input", size: 320, specification: 1 }, output: { name: "alpha" }, files: [model], ...change,
});

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

async function hosting(paths: Record<string, Answer | string>, work: (base: string, asked: string[]) => Promise<void>): Promise<void> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers.range ?? ""}`.trim());
    const answer = paths[request.url!];
    if (typeof answer === "function") answer(request, response);
    else if (answer === undefined) response.writeHead(404).end();
    else response.end(answer);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, asked);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function load(base: string): Promise<{ data: Uint8Array; seen: Progress[] }> {
  const seen: Progress[] = [];
  const report = new ProgressReport((progress) => seen.push(progress));
  const bundle = await openBundle({ base }, { onBytes: (file, loaded, total) => report.bytes(file, loaded, total) });
  const file = findModel(bundle.manifest, ["int8"], ["u2e"])!;
  report.expect([file]);
  report.report("download");
  const data = await loadFile(file, bundle.load);
  report.report("ready");
  return { data, seen };
}

for (const coding of ["br", "gzip", undefined] as const) {
  test(`progress is in bytes that travel: ${coding ?? "plain"}`, async () => {
    const packed = { br: brotliCompressSync(bytes), gzip: gzipSync(bytes) };
    const sizes = { "int8.u2e": { raw: bytes.length, gzip: packed.gzip.length, brotli: packed.br.length } };
    await hosting({
      "/manifest.json": JSON.stringify(manifest({ sizes })),
      "/int8.u2e": (_, response) => {
        response.writeHead(200, coding ? { "Content-Encoding": coding } : {});
        response.end(coding ? packed[coding] : bytes);
      },
    }, async (base) => {
      const { data, seen } = await load(base);
      assert.deepEqual(data, bytes);
      const expected = coding ? packed[coding].length : bytes.length;
      assert.deepEqual(seen.at(-1), { phase: "ready", loaded: expected, total: expected });
      const loaded = seen.map((step) => step.loaded);
      assert.deepEqual(loaded, [...loaded].sort((a, b) => a - b));
      assert.ok(seen.every((step) => step.loaded <= step.total));
    });
  });
}

test("a connection that drops is taken up where it ended", async () => {
  let first = true;
  await hosting({
    "/manifest.json": JSON.stringify(manifest()),
    "/int8.u2e": (request, response) => {
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
      if (first) {
        first = false;
        response.writeHead(200, { "Content-Length": bytes.length });
        response.write(bytes.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 50));
      } else {
        response.writeHead(206, { "Content-Range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` });
        response.end(bytes.subarray(from));
      }
    },
  }, async (base, asked) => {
    const { data } = await load(base);
    assert.deepEqual(data, bytes);
    assert.equal(asked.length, 3);
    assert.match(asked[2], /^\/int8\.u2e bytes=[1-9]/);
  });
});

test("bytes that are not the promised ones are asked for once more, and refused", async () => {
  const wrong = bytes.slice();
  wrong[1000] ^= 1;
  await hosting({ "/manifest.json": JSON.stringify(manifest()), "/int8.u2e": (_, response) => void response.end(wrong) }, async (base, asked) => {
    await assert.rejects(load(base), IntegrityError);
    assert.equal(asked.filter((path) => path === "/int8.u2e").length, 2);
  });
  await hosting({ "/manifest.json": JSON.stringify(manifest()), "/int8.u2e": (_, response) => void response.end(Buffer.concat([bytes, bytes])) }, async (base) => {
    await assert.rejects(load(base), /longer than/);
  });
});

test("what is not there is named", async () => {
  await hosting({}, async (base) => {
    await assert.rejects(load(base), (error: Error) => error instanceof DownloadError && error.message.includes("manifest.json: HTTP 404"));
  });
  await assert.rejects(load("http://127.0.0.1:9/"), DownloadError);
});

test("quality chooses a bundle below, which the manifest pins", async () => {
  const below = JSON.stringify(manifest({ name: "u2net-better", files: [{ ...model, path: "other.u2e" }] }));
  const entry = (text: string): object => ({
    path: "best/manifest.json", role: "manifest", quality: "best", bytes: Buffer.byteLength(below), sha256: sha256(Buffer.from(text)),
  });
  const top = (text: string): string => JSON.stringify(manifest({ files: [model, entry(text)] }));
  await hosting({ "/manifest.json": top(below), "/best/manifest.json": below }, async (base) => {
    const best = await openBundle({ base, quality: "best" }, {});
    assert.equal(best.manifest.name, "u2net-better");
    assert.equal(best.load.locate("other.u2e"), `${base}best/other.u2e`);
    for (const quality of [undefined, "video"] as const) assert.equal((await openBundle({ base, quality }, {})).manifest.name, "u2net-test");
  });
  await hosting({ "/manifest.json": top("another"), "/best/manifest.json": below }, async (base) => {
    await assert.rejects(openBundle({ base, quality: "best" }, {}), IntegrityError);
  });
});

test("manifests that are none name the field", () => {
  for (const [change, field] of [
    [{ schema_version: 99 }, /schema version 99/], [{ files: [] }, /files/], [{ name: "" }, /name/],
    [{ files: [{ ...model, path: "../evil.u2e" }] }, /files\[0\]\.path/], [{ files: [{ ...model, path: "%2e%2e/evil" }] }, /path/],
    [{ files: [{ ...model, path: "https://example.org/x" }] }, /path/], [{ files: [{ ...model, bytes: 1e12 }] }, /bytes/],
    [{ files: [{ ...model, sha256: "0" }] }, /sha256/], [{ files: [{ ...model, format: "tflite" }] }, /format/],
    [{ files: [{ ...model, role: "manifest" }] }, /quality/], [{ input: { interface: "tensor", name: "i", size: 320, specification: 2 } }, /specification/],
    [{ self_test: { picture: 1 } }, /self_test/],
  ] as const) {
    assert.throws(() => parseManifest(JSON.stringify(manifest(change))), (error: Error) => error instanceof ManifestError && field.test(error.message), String(field));
  }
  assert.throws(() => parseManifest("<html>"), ManifestError);
  assert.throws(() => parseManifest("[]"), ManifestError);
});
