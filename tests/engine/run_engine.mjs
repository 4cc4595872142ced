// The smallest host of the engine: run a file on inputs. `node run_engine.mjs engine.wasm model.u2e input.f32 output.f32`
import { readFileSync, writeFileSync } from "node:fs";

const [, , wasm, model, input, output] = process.argv;
const { instance } = await WebAssembly.instantiate(readFileSync(wasm));
const engine = instance.exports;

const file = readFileSync(model);
const place = engine.u2e_reserve(file.length);
if (place === 0) throw new Error("no memory");
new Uint8Array(engine.memory.buffer, place, file.length).set(file);
const status = engine.u2e_load(1);
if (status !== 0) throw new Error(`status ${status} at record ${engine.u2e_fault_place()}`);

const pixels = engine.u2e_input_height() * engine.u2e_input_width();
const bytes = readFileSync(input);
const planes = new Float32Array(bytes.buffer, bytes.byteOffset, 3 * pixels);
new Float32Array(engine.memory.buffer, engine.u2e_input(), 3 * pixels).set(planes);
for (let i = 0; i < Number(process.env.RUNS ?? 1); i++) {
  const begin = performance.now();
  if (engine.u2e_run() !== 0) throw new Error("not loaded");
  if (process.env.RUNS) console.log((performance.now() - begin).toFixed(1));
}
const size = engine.u2e_output_height() * engine.u2e_output_width();
writeFileSync(output, new Float32Array(engine.memory.buffer, engine.u2e_output(), size));
