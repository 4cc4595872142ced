/**
 * Background removal in the browser.
 *
 *     const remover = await createRemover();
 *     const { image, alpha, subject } = await remover.cutout(file);
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
export { clean, feather, matte } from "./postprocess.js";
export { BALANCED, FAST, PRESETS, refinement } from "./refinement.js";
export { createRemover, preload } from "./remover.js";
export { boxMean } from "./sampling.js";
export type * from "./types.js";
