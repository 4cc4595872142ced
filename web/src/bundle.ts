/** Which bundle is meant, and its manifest: at `base`, or the one that this package brings. */
import { ConfigError } from "./errors.js";
import { loadFile, loadManifest, type LoadOptions } from "./loader.js";
import { type Manifest, type ManifestFile, parseManifest } from "./manifest.js";
import type { Progress, Quality } from "./types.js";

/** The manifest of the model in this package as JSON text; scripts/build.mjs sets it where that model was built. */
declare const OWN_MANIFEST: string | undefined;

/** `base` is the URL of a folder, ending in a slash; without one this package's own model is meant. */
export interface BundleChoice { base?: string; quality?: Quality; integrity?: string; cache?: boolean }

export interface Bundle { manifest: Manifest; load: LoadOptions }

/** Throws what the loader throws, or ConfigError where there is neither a base nor a model in this build. */
export async function openBundle(choice: BundleChoice, given: Omit<LoadOptions, "locate" | "cache" | "keeping">): Promise<Bundle> {
  const { base, quality = "standard", integrity, cache = true } = choice;
  const load = { ...given, cache, keeping: [] };
  if (base === undefined) {
    if (typeof OWN_MANIFEST === "undefined") throw new ConfigError("name a bundle by `base`: this build of the package brings no model");
    // Written just so, for bundlers recognise it and copy the file.
    const { href } = new URL("./model.u2e", import.meta.url);
    return { manifest: parseManifest(OWN_MANIFEST), load: { ...load, locate: () => href } };
  }
  const within = (folder: string): LoadOptions => ({ ...load, locate: (path) => new URL(path, folder).href });
  const top = within(base);
  const manifest = await loadManifest(top, integrity);
  const other = manifest.files.find((file) => file.role === "manifest" && file.quality === quality);
  if (!other) return { manifest, load: top };
  const text = new TextDecoder().decode(await loadFile(other, top));
  return { manifest: parseManifest(text), load: within(new URL(other.path, base).href) };
}

/** Adds up what travels. */
export class ProgressReport {
  phase: Progress["phase"] = "manifest";
  readonly #files = new Map<ManifestFile, { loaded: number; total: number }>();
  constructor(readonly onProgress: (progress: Progress) => void) {}

  /** Count on these; until a host's answer says more they are taken to be compressed as well as can be. */
  expect(files: ManifestFile[]): void {
    for (const file of files) if (!this.#files.has(file)) this.#files.set(file, { loaded: 0, total: file.transfer?.brotli ?? file.bytes });
  }

  bytes(file: ManifestFile, loaded: number, total: number): void {
    if (file.role === "manifest") return;
    this.#files.set(file, { loaded, total });
    this.report();
  }

  report(phase = this.phase): void {
    this.phase = phase;
    let [loaded, total] = [0, 0];
    for (const file of this.#files.values()) {
      loaded += file.loaded;
      total += file.total;
    }
    this.onProgress({ phase, loaded, total });
  }
}
