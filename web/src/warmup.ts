/**
 * Small made-up pictures through everything but the network, while the page waits for its first: browsers compile what
 * has run a few times, and the first picture of a person would be the one that waits for it.
 */
import { cutout, type Seer } from "./pipeline.js";

// As pictures are: every grid reduces, has more pixels than the map, and fractions of them in a cell. Code that was
// compiled for whole numbers would be thrown away with the first real picture.
const [WIDTH, HEIGHT] = [400, 200];
const WORKING_SIDE = 133; // for blocks of 3 × 3
const SIZE = 64; // of the map
const ROUNDS = 24;
const REST_MS = 10; // for the compiler to catch up

/** Orange is the subject, blue is not, and what lies between is unsure. */
const COLOURS: Seer = {
  info: { size: SIZE, backend: "engine" },
  async run(picture) {
    const map = new Float32Array(SIZE * SIZE);
    for (let i = 0; i < map.length; i++) map[i] = Math.min(Math.max((picture[i * 3] - picture[i * 3 + 2]) / 256 + 0.4, 0), 1);
    return map;
  },
};

/** Ends when it is done or aborted, never with an error: nothing depends on it, and what fails here is told where it does. */
export async function warmUp(signal: AbortSignal): Promise<void> {
  try {
    signal.throwIfAborted();
    // V8 compiles as if no buffer with two views were ever transferred, and throws away all that reads arrays once one is:
    // that had better be now than with the first matte that is handed to the page.
    const bytes = new Uint8Array(2);
    bytes.subarray(1);
    structuredClone(bytes, { transfer: [bytes.buffer] });
    const canvas = new OffscreenCanvas(WIDTH, HEIGHT);
    const context = canvas.getContext("2d")!;
    const gradient = context.createLinearGradient(0, 0, WIDTH, HEIGHT);
    for (const [at, colour] of [[0.2, "#3c6eb4"], [0.4, "#e67828"], [0.6, "#e67828"], [0.8, "#3c6eb4"]] as const) {
      gradient.addColorStop(at, colour);
    }
    context.fillStyle = gradient;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    const picture = await canvas.convertToBlob({ type: "image/jpeg" });
    for (let round = 0; round < ROUNDS; round++) {
      await cutout(COLOURS, picture, { output: round % 4 ? "png" : "webp", refine: { workingSide: WORKING_SIDE } }, signal);
      await new Promise((wake) => setTimeout(wake, REST_MS));
    }
  } catch {
    // Aborted, or as above.
  }
}
