/** The golden tensors of the pixel specification, which the Python runner is tested with, too. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

import { connectedComponents, fillHoles, keepComponents } from "../src/components.js";
import { estimateForeground } from "../src/foreground.js";
import { lookAgain, mergeWindows, mirror, type Part, PartResize, putBack, sampleBox, subjectBox, windows } from "../src/look.js";
import { BoxReduce, NetworkResize, resizeBilinear, toImage, toTensor } from "../src/pixels.js";
import { clean, matte, MatteRows } from "../src/postprocess.js";
import { type Refinement, refinement } from "../src/refinement.js";
import { boxMean, toAlpha, workingFactor } from "../src/sampling.js";

interface Tensor { dtype: string; shape: number[]; offset: number; length: number }
interface Case {
  name: string; function: string; parameters: Record<string, any>; inputs: Record<string, Tensor>; output: Tensor; tolerance: number;
}

const folder = join(process.cwd(), "..", "tests", "golden");
const book: { version: number; cases: Case[] } = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
const data = new Uint8Array(readFileSync(join(folder, "golden.bin")));

function read({ dtype, offset, length }: Tensor): any {
  const bytes = data.slice(offset, offset + length);
  const types: Record<string, any> = { uint8: Uint8Array, float32: Float32Array, float64: Float64Array, int32: Int32Array };
  return dtype === "uint8" ? bytes : new types[dtype](bytes.buffer);
}

/** RGB to RGBA, opaque or with a matte. */
function rgba(rgb: Uint8Array, alpha?: Uint8Array): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray((rgb.length / 3) * 4);
  for (let i = 0; i < rgb.length / 3; i++) {
    out.set(rgb.subarray(i * 3, i * 3 + 3), i * 4);
    out[i * 4 + 3] = alpha ? alpha[i] : 255;
  }
  return out;
}

function rgb(pixels: Uint8ClampedArray): number[] {
  return [...pixels].filter((_, i) => i % 4 !== 3);
}

const CAMEL: Record<string, keyof Refinement> = {
  keep_largest: "keepLargest", min_area: "minArea", fill_holes: "fillHoles", working_side: "workingSide",
};

function settingsOf(parameters: Record<string, any>): Refinement {
  return refinement(Object.fromEntries(Object.entries(parameters).map(([key, value]) => [CAMEL[key] ?? key, value])));
}

function resized(inputs: Record<string, any>, shape: number[], size: number): Float32Array {
  const [height, width] = shape;
  const resize = new NetworkResize(width, height, size);
  const pixels = rgba(inputs.rgb);
  for (let y = 0; y < height; y += 7) { // in bands, as the pipeline does
    const rows = Math.min(7, height - y);
    resize.push(pixels.subarray(y * width * 4, (y + rows) * width * 4), rows);
  }
  return resize.finish();
}

const partOf = ([left, top, right, bottom]: number[]): Part => ({ left, top, right, bottom });

/** The stand-in for the network of tests/golden/generate.py. */
function stubbed(pixels: Uint8ClampedArray, width: number, height: number, size: number, part: Part, mirrored: boolean): Float32Array<ArrayBuffer> {
  const view = new PartResize(part, size);
  for (let y = 0; y < height; y += 7) {
    const rows = Math.min(7, height - y);
    view.push(pixels.subarray(y * width * 4, (y + rows) * width * 4), y, rows, width);
  }
  const input = mirrored ? mirror(view.finish(), size, 3) : view.finish();
  const found = new Float32Array(size * size);
  for (let i = 0; i < found.length; i++) {
    const left = i % size ? i - 1 : i;
    found[i] = Math.min(1, Math.max(0, Math.fround(input[left * 3] - input[left * 3 + 1]) / 192));
  }
  return mirrored ? mirror(found, size, 1) : found;
}

type Run = (inputs: Record<string, any>, one: Case) => ArrayLike<number> | undefined | Promise<ArrayLike<number>>;

const RUN: Record<string, Run> = {
  async look_twice(inputs, { parameters: { size, width, height, looks, box, windows: expected } }) {
    const pixels = rgba(inputs.rgb);
    const parts = windows(width, height);
    assert.deepEqual(parts, expected.map(partOf));
    const look = (part: Part, mirrored: boolean) => stubbed(pixels, width, height, size, part, mirrored);
    const first = mergeWindows(parts.map((part) => look(part, false)), parts, size, width, height);
    const seen = await lookAgain(first, parts.length, width, height, size, async (part, mirrored) => look(part, mirrored));
    assert.equal(seen.looks, looks);
    assert.deepEqual(seen.box, box ? partOf(box) : undefined);
    return seen.values;
  },
  merge_windows: (inputs, { parameters: { size, width, height, windows: parts } }) => {
    const maps = parts.map((_: unknown, i: number) => inputs.maps.slice(i * size * size, (i + 1) * size * size));
    return mergeWindows(maps, parts.map(partOf), size, width, height).values;
  },
  subject_box: (inputs, { inputs: { saliency: { shape: [height, width] } }, parameters }) => {
    const { left, top, right, bottom } = subjectBox({ values: inputs.saliency, height, width }, parameters.width, parameters.height)!;
    return [left, top, right, bottom];
  },
  sample_box: (inputs, { inputs: { saliency: { shape: [height, width] } }, parameters }) =>
    sampleBox({ values: inputs.saliency, height, width }, partOf(parameters.box), parameters.width, parameters.height, parameters.size),
  put_back: (inputs, { inputs: { saliency: { shape: [height, width] } }, parameters }) =>
    putBack({ values: inputs.saliency, height, width }, inputs.seen, parameters.size, partOf(parameters.box), parameters.width, parameters.height).values,
  resize_for_network: (inputs, one) => resized(inputs, one.inputs.rgb.shape, one.parameters.size),
  to_tensor: (inputs, one) => toTensor(resized(inputs, one.inputs.rgb.shape, one.parameters.size)),
  to_pixels: (inputs, one) => toImage(resized(inputs, one.inputs.rgb.shape, one.parameters.size)).filter((_, i) => i % 4 !== 3),
  upsample_map: (inputs, { inputs: { saliency: { shape } }, parameters: { height, width } }) =>
    resizeBilinear(inputs.saliency, shape[0], shape[1], height, width),
  to_alpha: (inputs) => Array.from(inputs.values as Float32Array, toAlpha),
  connected_components: (inputs, { inputs: { mask: { shape } }, parameters }) =>
    connectedComponents(inputs.mask, shape[0], shape[1], parameters.diagonal).labels,
  keep_components: (inputs, { inputs: { saliency: { shape } }, parameters }) =>
    keepComponents(inputs.saliency, shape[0], shape[1], parameters.largest, parameters.min_area),
  fill_holes: (inputs, { inputs: { saliency: { shape } }, parameters }) =>
    fillHoles(inputs.saliency, shape[0], shape[1], parameters.fraction),
  box_mean: (inputs, { inputs: { planes: { shape: [count, height, width] } }, parameters }) => Array.from({ length: count }, (_, i) =>
    [...boxMean(inputs.planes.subarray(i * height * width, (i + 1) * height * width), height, width, 1, parameters.radius)]).flat(),
  refine_guided: (inputs, { inputs: { rgb: { shape: [height, width] }, saliency: { shape: [h, w] } }, parameters }) => {
    const settings = settingsOf(parameters);
    const pixels = rgba(inputs.rgb);
    const k = workingFactor(height, width, settings.workingSide);
    const reduced = new BoxReduce(width, height, k, k, 3);
    reduced.push(pixels, height);
    const rows = new MatteRows(width, height, clean(inputs.saliency, h, w, settings), h, w, settings, reduced);
    const out = new Float32Array(height * width);
    for (let y = 0; y < height; y++) rows.row(y, pixels, y * width * 4, out.subarray(y * width, (y + 1) * width));
    return out;
  },
  matte: (inputs, { inputs: { rgb: { shape: [height, width] }, saliency: { shape: [size] } }, parameters }) =>
    matte(rgba(inputs.rgb, inputs.alpha), height, width, inputs.saliency, size, settingsOf(parameters)),
  estimate_foreground: (inputs, { inputs: { rgb: { shape: [height, width] } }, parameters }) =>
    rgb(estimateForeground(rgba(inputs.rgb), height, width, inputs.alpha, parameters.working_side)),
};
/** Done by the browser's canvas (tests/web/test_package.py looks at it), and what only the Python runner has. */
const ELSEWHERE = ["composite", "min_max"];

test("the specification is the one that this package follows", () => assert.equal(book.version, 1));

for (const one of book.cases) {
  if (ELSEWHERE.includes(one.function)) continue;
  test(`golden: ${one.name}`, async () => {
    const run = RUN[one.function];
    assert.ok(run, `nothing runs ${one.function}`);
    const inputs = Object.fromEntries(Object.entries(one.inputs).map(([key, tensor]) => [key, read(tensor)]));
    const actual = (await run(inputs, one))!;
    const expected = read(one.output);
    assert.equal(actual.length, expected.length);
    let worst = 0;
    for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
    assert.ok(worst <= one.tolerance, `differs by ${worst}, over ${one.tolerance}`);
  });
}
