// The measured part, the same in the browser and in Node: sessions held side by side, each run timed inside the engine's
// own thread, so that the driver's round trip is not in the figures.

/** A model of one node, y = x: what remains of session creation when there is no model to speak of. */
const warmUrl = "/models/identity";

/** Memory that the engine's wasm instances own, and workers that it started: hooks set before the engine loads. */
const memories = [];
let workers = 0;

export function hook(scope) {
  const Memory = scope.WebAssembly.Memory;
  scope.WebAssembly.Memory = new Proxy(Memory, {
    construct(target, args) {
      const memory = Reflect.construct(target, args);
      memories.push(memory);
      return memory;
    },
  });
  if (scope.Worker) {
    scope.Worker = new Proxy(scope.Worker, {
      construct(target, args) {
        workers += 1;
        return Reflect.construct(target, args);
      },
    });
  }
}

/** Bytes that a model of the project's own engine begins with: see docs/engine.md. */
const OWN_MAGIC = "U2E1";

/** A session of the project's own engine that answers as onnxruntime-web's do. */
async function openOwn(model, wasm) {
  const begin = performance.now();
  const module = await WebAssembly.compile(wasm);
  const engine = (await WebAssembly.instantiate(module)).exports;
  const engine_start_ms = performance.now() - begin;
  const place = engine.u2e_reserve(model.length);
  if (!place) throw new Error("the engine has no memory");
  new Uint8Array(engine.memory.buffer, place, model.length).set(model);
  const status = engine.u2e_load(1);
  if (status) throw new Error(`the engine refuses the model: status ${status}`);
  const [height, width] = [engine.u2e_output_height(), engine.u2e_output_width()];
  return {
    engine_start_ms,
    heap_bytes: engine.memory.buffer.byteLength,
    async run(feeds) {
      const { data } = Object.values(feeds)[0];
      new Float32Array(engine.memory.buffer, engine.u2e_input(), data.length).set(data);
      if (engine.u2e_run()) throw new Error("the engine failed");
      const map = new Float32Array(engine.memory.buffer, engine.u2e_output(), height * width).slice();
      return { alpha: { type: "float32", dims: [1, 1, height, width], getData: async () => map, dispose() {} } };
    },
  };
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

export function createBench(ort, origin) {
  const sessions = [];
  const feeds = new Map();
  let options = {};
  let gpu = false;

  async function bytes(path) {
    const response = await fetch(origin + path, { cache: "no-store" });
    if (!response.ok) throw new Error(`${path}: HTTP ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }

  async function feed(index, picture, input) {
    const key = `${index}/${picture}`;
    if (!feeds.has(key)) {
      const raw = await bytes(`/inputs/${key}`);
      const data = input.type === "uint8" ? raw : new Float32Array(raw.buffer);
      feeds.set(key, new ort.Tensor(input.type, data, input.dims));
    }
    return feeds.get(key);
  }

  return {
    /** Start the engine on `provider` with `threads`, and say what it really started on. */
    async start({ provider, threads }) {
      ort.env.wasm.numThreads = threads;
      ort.env.logLevel = "error";
      gpu = provider === "webgpu";
      options = {
        executionProviders: [provider],
        graphOptimizationLevel: "all",
        // Without this the engine runs on the CPU, unasked, what the graphics card cannot.
        ...(gpu ? { extra: { session: { disable_cpu_ep_fallback: "1" } } } : {}),
      };
      const identity = await bytes(warmUrl);
      const begin = performance.now();
      const session = await ort.InferenceSession.create(identity, options);
      const engine_start_ms = performance.now() - begin;
      await session.release();
      return { engine_start_ms };
    },

    /** Create session `index`. */
    async load({ index }) {
      const model = await bytes(`/models/${index}`);
      if (String.fromCharCode(...model.subarray(0, 4)) === OWN_MAGIC) {
        const wasm = await bytes("/own/engine.wasm");
        const begin = performance.now();
        sessions[index] = await openOwn(model, wasm);
        const { engine_start_ms, heap_bytes } = sessions[index];
        return { session_ms: performance.now() - begin - engine_start_ms, engine_start_ms, heap_bytes };
      }
      const begin = performance.now();
      sessions[index] = await ort.InferenceSession.create(model, options);
      return { session_ms: performance.now() - begin };
    },

    /** Run session `index` on `picture` once; with `mask`, bring the output back as base64 of float32. */
    async run({ index, picture, input, mask }) {
      const tensor = await feed(index, picture, input);
      const begin = performance.now();
      const outputs = await sessions[index].run({ [input.name]: tensor }, [input.output]);
      const data = await outputs[input.output].getData();
      const ms = performance.now() - begin;
      const result = { ms };
      if (mask) {
        result.type = outputs[input.output].type;
        result.dims = outputs[input.output].dims;
        result.mask = base64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      }
      for (const output of Object.values(outputs)) output.dispose();
      return result;
    },

    /** What the engine says of itself now. */
    facts() {
      return {
        engine: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`,
        threads: ort.env.wasm.numThreads,
        workers,
        heap_bytes: memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0),
      };
    },
  };
}
