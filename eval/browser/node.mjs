// The bench in Node: one JSON request per line on standard input, one JSON answer per line on standard output.
import { createInterface } from "node:readline";

import { createBench, hook } from "./bench.mjs";

hook(globalThis);
const ort = await import("onnxruntime-web"); // the main entry: onnxruntime-web/wasm fails in Node with threads
const bench = createBench(ort.default ?? ort, process.argv[2]);

for await (const line of createInterface({ input: process.stdin })) {
  const { method, argument } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await bench[method](argument) };
    if (method === "facts") answer.value.node = process.version;
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
