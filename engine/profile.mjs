// Least time of every step over some rounds, as JSON: `node profile.mjs engine.wasm model.u2e rounds`
import { readFileSync } from "node:fs";

const [, , wasm, model, rounds] = process.argv;
const { exports: engine } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(wasm)));
const file = readFileSync(model);
const place = engine.u2e_reserve(file.length);
if (!place) throw new Error("no memory");
new Uint8Array(engine.memory.buffer, place, file.length).set(file);
const status = engine.u2e_load(1);
if (status) throw new Error(`status ${status} at record ${engine.u2e_fault_place()}`);

// waves instead of noise: a stem's time does not depend on what it sees, and nothing overflows
const planes = new Float32Array(engine.memory.buffer, engine.u2e_input(), 3 * engine.u2e_input_height() * engine.u2e_input_width());
for (let i = 0; i < planes.length; i++) planes[i] = 2 * Math.sin(i / 17) * Math.sin(i / 5003);
const steps = Array.from({ length: engine.u2e_steps() }, (_, i) => ({ kind: engine.u2e_step_kind(i), ms: Infinity }));
for (let round = 0; round < Number(rounds); round++)
  for (const [i, step] of steps.entries()) {
    const begin = performance.now();
    engine.u2e_run_steps(i, i + 1);
    step.ms = Math.min(step.ms, performance.now() - begin);
  }
console.log(JSON.stringify(steps));
