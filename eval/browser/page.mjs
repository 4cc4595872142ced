// The bench in a page. The driver calls window.bench.<method>(argument); where there is none, the page gets its questions
// from the box that its address names.
import { createBench, hook } from "/bench/bench.mjs";

hook(globalThis);

async function adapter() {
  const found = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!found) return null;
  const { vendor, architecture, device, description } = found.info;
  const software = Boolean(found.info.isFallbackAdapter) || /swiftshader|llvmpipe|lavapipe/i.test(`${architecture} ${description}`);
  return { vendor, architecture, device, description, software };
}

let bench;

window.bench = {
  async start({ provider, threads }) {
    if (provider === "webgpu" && !(await adapter())) throw new Error("this browser has no WebGPU adapter");
    const ort = await import(`/ort/ort.${provider}.min.mjs`);
    ort.env.wasm.wasmPaths = `${location.origin}/ort/`;
    bench = createBench(ort, location.origin);
    return bench.start({ provider, threads });
  },
  adapter,
  load: (argument) => bench.load(argument),
  run: (argument) => bench.run(argument),
  facts: () => ({ ...bench.facts(), cross_origin_isolated: globalThis.crossOriginIsolated, browser: navigator.userAgent }),
};

async function serve(box) {
  const say = (answer) => fetch(`${box}-answer`, { method: "POST", body: JSON.stringify(answer) });
  await say({});
  for (;;) {
    const response = await fetch(`${box}-question`);
    if (response.status === 204) continue;
    const { method, argument } = await response.json();
    try {
      await say({ value: await window.bench[method](argument) });
    } catch (error) {
      await say({ error: String(error?.message ?? error) });
    }
  }
}

const box = location.search.slice(1);
if (box) serve(box);
