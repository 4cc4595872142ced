/**
 * Background removal in the browser.
 *
 *     const remover = await createRemover({ base: "/models/lite/" });
 *     const { image, alpha, timings, backend } = await remover.cutout(file, { output: "png" });
 *     await remover.dispose();
 */
export { connectedComponents, fillHoles, keepComponents } from "./components.js";
export { contours, type Polygon, simplify, svgPath } from "./contours.js";
export * from "./errors.js";
export { estimateForeground } from "./foreground.js";
export { guidedCoefficients } from "./guided.js";
export { clearCache } from "./loader.js";
export type { Manifest, ManifestFile, Precision, SelfTest } from "./manifest.js";
export { parseManifest, SCHEMA_VERSION } from "./manifest.js";
export { BALANCED, clean, FAST, feather, matte, PRESETS, refinement } from "./postprocess.js";
export { createRemover } from "./remover.js";
export { boxMean } from "./sampling.js";
export type * from "./types.js";
