// Two or more threads over one memory: `node run_threads.mjs engine-threads.wasm model.u2e input.f32 output.f32 threads`
import { readFileSync, writeFileSync } from "node:fs";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

if (isMainThread) {
  const [, , wasm, model, input, output, threads] = process.argv;
  const module = new WebAssembly.Module(readFileSync(wasm));
  const memory = new WebAssembly.Memory({ initial: 32, maximum: 16384, shared: true });
  const engine = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const file = readFileSync(model);
  new Uint8Array(memory.buffer, engine.u2e_reserve(file.length), file.length).set(file);
  const status = engine.u2e_load(Number(threads));
  if (status !== 0) throw new Error(`status ${status} at record ${engine.u2e_fault_place()}`);
  const helpers = [];
  for (let number = 1; number < threads; number++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { module, memory, number } });
    await new Promise((resolve) => worker.once("message", resolve));
    helpers.push(worker);
  }
  const bytes = readFileSync(input);
  const pixels = engine.u2e_input_height() * engine.u2e_input_width();
  const planes = new Float32Array(bytes.buffer, bytes.byteOffset, 3 * pixels);
  new Float32Array(memory.buffer, engine.u2e_input(), 3 * pixels).set(planes);
  if (process.env.LOSE_HELPERS) await Promise.all(helpers.map((helper) => helper.terminate()));
  const times = [];
  for (let i = 0; i < Number(process.env.RUNS ?? 1); i++) {
    const begin = performance.now();
    const result = engine.u2e_run();
    if (result !== 0) throw new Error(`status ${result}`);
    times.push(performance.now() - begin);
  }
  times.sort((a, b) => a - b);
  console.log(JSON.stringify({ least_ms: times[0], median_ms: times[times.length >> 1] }));
  const size = engine.u2e_output_height() * engine.u2e_output_width();
  writeFileSync(output, new Float32Array(memory.buffer, engine.u2e_output(), size).slice());
  engine.u2e_dismiss();
  for (const helper of helpers) await helper.terminate();
} else {
  const { module, memory, number } = workerData;
  const engine = new WebAssembly.Instance(module, { env: { memory } }).exports;
  engine.__stack_pointer.value = engine.u2e_stack(number);
  parentPort.postMessage("ready");
  engine.u2e_help(number);
}
