/** The page's end of the worker: order, aborts, death and new life, threads that fail. */
import assert from "node:assert/strict";
import test from "node:test";

import { ConfigError, DisposedError, EngineError, WorkerError } from "../src/errors.js";
import type { Answer, Request } from "../src/protocol.js";
import { createRemover } from "../src/remover.js";

const INFO = { backend: "engine", precision: "int8", threads: 1, engineVersion: "1", model: "test", modelVersion: "1", size: 320, notes: [] };
type Reply = (request: Request) => Answer | undefined;

/** A worker of this process, which answers as it is told. */
class FakeWorker {
  static all: FakeWorker[] = [];
  onmessage?: (event: { data: Answer }) => void;
  onerror?: (event: { message: string }) => void;
  readonly requests: Request[] = [];
  terminated = false;

  constructor(readonly reply: Reply) {
    FakeWorker.all.push(this);
  }

  postMessage(request: Request): void {
    this.requests.push(request);
    const answer = this.reply(request);
    if (answer) queueMicrotask(() => this.terminated || this.onmessage?.({ data: answer }));
  }

  terminate(): void {
    this.terminated = true;
  }
}

const value: any = { image: new Blob(), width: 1 };
const done: Reply = (request) => request.type === "create" ? { id: request.id, type: "done", value: INFO as any } : { id: request.id, type: "done", value };
const workers = (...replies: Reply[]) => {
  FakeWorker.all = [];
  return () => new FakeWorker(replies.shift() ?? done) as unknown as Worker;
};
const silent: Reply = (request) => (request.type === "create" ? done(request) : undefined);
const picture = new Blob(["x"]);
const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await null;
};

test("what the worker says comes back, and the picture and options go to it", async () => {
  const remover = await createRemover({ worker: workers() });
  assert.equal(remover.info.mode, "worker");
  assert.equal(await remover.cutout(picture, { refine: "fast", signal: new AbortController().signal }), value);
  const [create, cutout] = FakeWorker.all[0].requests as any[];
  assert.deepEqual(create.options, { device: "auto", base: undefined });
  assert.deepEqual(cutout.options, { refine: "fast" });
  assert.equal(cutout.picture, picture);
});

test("an error keeps its class", async () => {
  const failing: Reply = (request) => request.type === "create" ? done(request) : { id: request.id, type: "failed", error: { name: "ConfigError", message: "no" } };
  const remover = await createRemover({ worker: workers(failing) });
  await assert.rejects(remover.cutout(picture), (error: Error) => error instanceof ConfigError && error.message === "no");
});

test("an abort rejects with its reason, tells the worker, and what comes late is dropped", async () => {
  const remover = await createRemover({ worker: workers(silent) });
  const abort = new AbortController();
  const lost = remover.cutout(picture, { signal: abort.signal });
  await turns();
  abort.abort(new Error("enough"));
  await assert.rejects(lost, /enough/);
  assert.equal(FakeWorker.all[0].requests.at(-1)!.type, "abort");
  FakeWorker.all[0].onmessage!({ data: { id: 2, type: "done", value } });
  await assert.rejects(remover.cutout(picture, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("a worker that dies costs what it was doing; the next picture gets a new one", async () => {
  const remover = await createRemover({ worker: workers(silent) });
  const [first, second] = [remover.cutout(picture), remover.cutout(picture)];
  await turns();
  FakeWorker.all[0].onerror!({ message: "out of memory" });
  for (const lost of [first, second]) await assert.rejects(lost, (error: Error) => error instanceof WorkerError && /out of memory/.test(error.message));
  const both = await Promise.all([remover.cutout(picture), remover.cutout(picture)]);
  assert.deepEqual(both, [value, value]);
  assert.equal(FakeWorker.all.length, 2, "one new worker for both");
  assert.ok(FakeWorker.all[0].terminated);
});

test("a new worker that cannot start costs one picture, too", async () => {
  const broken: Reply = (request) => ({ id: request.id, type: "failed", error: { name: "DownloadError", message: "gone" } });
  const remover = await createRemover({ worker: workers(silent, broken) });
  const lost = remover.cutout(picture);
  await turns();
  FakeWorker.all[0].onerror!({ message: "" });
  await assert.rejects(lost, /could not be loaded/);
  await assert.rejects(remover.cutout(picture), /gone/);
  assert.equal(await remover.cutout(picture), value);
});

test("after dispose() nothing is done, and what waits is told", async () => {
  const remover = await createRemover({ worker: workers(silent) });
  const waiting = remover.cutout(picture);
  await turns();
  await remover.dispose();
  await remover.dispose();
  await assert.rejects(waiting, DisposedError);
  await assert.rejects(remover.cutout(picture), DisposedError);
  assert.equal(FakeWorker.all.length, 1);
});

test("threads that fail are given up, with the reason; what is wrong without them is said", async () => {
  const failing: Reply = (request) => ({ id: request.id, type: "failed", error: { name: "EngineError", message: "ONNX Runtime refuses int8.onnx" } });
  await assert.rejects(createRemover({ worker: workers(failing) }), EngineError, "where there are none anyway");
  assert.equal(FakeWorker.all.length, 1);
  Object.assign(globalThis, { crossOriginIsolated: true });
  try {
    const remover = await createRemover({ worker: workers(failing) });
    assert.match(remover.info.threadsReason!, /threads failed: ONNX Runtime refuses/);
    assert.equal((FakeWorker.all[1].requests[0] as any).options.threads, 1);
    await assert.rejects(createRemover({ worker: workers(failing, failing) }), EngineError);
    await assert.rejects(createRemover({ threads: 1, worker: workers(failing) }), EngineError);
    assert.equal(FakeWorker.all.length, 1);
  } finally {
    Reflect.deleteProperty(globalThis, "crossOriginIsolated");
  }
});

test("where no worker can be made the error is typed", async () => {
  const none = (): Worker => {
    throw new Error("no workers here");
  };
  await assert.rejects(createRemover({ worker: none }), (error: Error) => error instanceof WorkerError && /no workers here/.test(error.message));
});
