// The bench in a page. The driver calls window.bench.<method>(argument).
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
  facts: () => ({ ...bench.facts(), cross_origin_isolated: globalThis.crossOriginIsolated }),
};
