/**
 * `manifest.json`, what a bundle folder says of itself. Schema version 1; docs/web.md lists every field.
 *
 * Only what the package reads is checked. Other fields (figures, provenance, licences) are for people and for
 * `publish verify`; they are passed through untouched.
 */
import { ManifestError } from "./errors.js";

export const SCHEMA_VERSION = 1;
export const SPECIFICATION_VERSION = 1; // of the pixels: u2net/preprocess.py
const MAX_FILE_BYTES = 512 * 2 ** 20; // `full` in float32 has 176 MB; a lying manifest must not claim the memory
const MAX_SIZE = 2048;

export type Precision = "int8" | "fp16" | "fp32";
export type Provider = "wasm" | "webgpu";

export interface ManifestFile {
  /** Relative to the manifest, below it, with forward slashes. */
  path: string;
  role: "model" | "engine" | "manifest" | (string & {});
  bytes: number;
  /** Lower-case hexadecimal. */
  sha256: string;
  /** Subresource Integrity, "sha384-…" in base64. */
  sri?: string;
  /** Of models. */
  precision?: Precision;
  /** Of models: "u2e" is for this package's own engine, the others for ONNX Runtime Web. */
  format?: "u2e" | "onnx" | "ort";
  /** Of files of role "manifest": the bundle below this one that is meant by the option `quality`. */
  quality?: "video" | "standard" | "best";
  /** Of engine files of ONNX Runtime Web: which of its backends runs them. */
  provider?: Provider;
  /** Of engine files: the onnxruntime-web version that they belong to, exactly. */
  version?: string;
  /** Bytes that travel where the host compresses; from the manifest's `sizes`. */
  transfer?: { gzip?: number; brotli?: number };
}

export interface SelfTest {
  /** Version of the picture in selftest.ts. */
  picture: number;
  /** Side of the grid of block means. */
  grid: number;
  /** Base64 of grid × grid bytes: the float32 model's mask of that picture, 255 is subject. */
  alpha: string;
  /** Largest mean absolute difference, in [0, 1], at which a backend is trusted. */
  tolerance: number;
}

export interface Manifest {
  schema_version: number;
  name: string;
  version: string;
  model: { name: string; parameters?: number };
  input: {
    /** "tensor": float32 (1, 3, size, size) normalised; "image": uint8 (1, size, size, 4) RGBA. */
    interface: "tensor" | "image";
    name: string;
    size: number;
    /** Version of the pixel specification. */
    specification: number;
  };
  /** float32 (1, 1, size, size) in [0, 1]. */
  output: { name: string };
  files: ManifestFile[];
  self_test?: SelfTest;
  licences?: unknown;
  figures?: unknown;
  provenance?: unknown;
  [field: string]: unknown;
}

/** Parse and check. Throws ManifestError, naming the field. */
export function parseManifest(text: string): Manifest {
  let value: any;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ManifestError("manifest.json is not JSON");
  }
  const need = (condition: unknown, field: string): void => {
    if (!condition) throw new ManifestError(`manifest.json: ${field} is missing or wrong`);
  };
  need(value && typeof value === "object" && !Array.isArray(value), "the object");
  if (value.schema_version !== SCHEMA_VERSION) {
    throw new ManifestError(
      `manifest.json has schema version ${JSON.stringify(value.schema_version)}, this package reads ${SCHEMA_VERSION}`,
    );
  }
  const { input, output, files, sizes, self_test: test } = value;
  need(typeof value.name === "string" && value.name, "name");
  need(typeof value.version === "string", "version");
  need(typeof value.model?.name === "string", "model.name");
  need(input?.interface === "tensor" || input?.interface === "image", "input.interface");
  need(typeof input.name === "string", "input.name");
  need(Number.isInteger(input.size) && input.size >= 32 && input.size <= MAX_SIZE, "input.size");
  need(input.specification === SPECIFICATION_VERSION, "input.specification");
  need(typeof output?.name === "string", "output.name");
  need(Array.isArray(files) && files.length, "files");
  files.forEach((file: any, i: number) => {
    const at = `files[${i}]`;
    need(typeof file?.path === "string" && isSafePath(file.path), `${at}.path`);
    need(typeof file.role === "string", `${at}.role`);
    need(Number.isInteger(file.bytes) && file.bytes > 0 && file.bytes <= MAX_FILE_BYTES, `${at}.bytes`);
    need(typeof file.sha256 === "string" && /^[0-9a-f]{64}$/.test(file.sha256), `${at}.sha256`);
    if (file.role === "model") {
      need(["int8", "fp16", "fp32"].includes(file.precision), `${at}.precision`);
      need(["u2e", "onnx", "ort"].includes(file.format ??= "onnx"), `${at}.format`);
    }
    if (file.role === "manifest") need(["video", "standard", "best"].includes(file.quality), `${at}.quality`);
    const { gzip, brotli } = sizes?.[file.path] ?? {};
    const bytes = (size: unknown): number | undefined => (Number.isInteger(size) && (size as number) > 0 ? size as number : undefined);
    file.transfer = { gzip: bytes(gzip), brotli: bytes(brotli) };
    if (file.role === "engine") {
      need(file.provider === "wasm" || file.provider === "webgpu", `${at}.provider`);
      need(typeof file.version === "string", `${at}.version`);
    }
  });
  need(files.some((file: ManifestFile) => file.role === "model"), "a file of role model");
  if (test !== undefined) {
    need(Number.isInteger(test?.picture), "self_test.picture");
    need(Number.isInteger(test.grid) && test.grid > 0 && test.grid <= 256, "self_test.grid");
    need(typeof test.alpha === "string", "self_test.alpha");
    need(typeof test.tolerance === "number" && test.tolerance > 0 && test.tolerance < 1, "self_test.tolerance");
  }
  return value as Manifest;
}

/** Below the bundle, whatever the URL parser makes of it: no scheme, no root, no parent, no escapes. */
function isSafePath(path: string): boolean {
  return /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(path) && !path.split("/").some((part) => /^\.+$/.test(part));
}

/** The first model of the first precision that the bundle has in one of the formats, in their order. */
export function findModel(
  manifest: Manifest, precisions: readonly Precision[], formats: readonly ManifestFile["format"][],
): ManifestFile | undefined {
  for (const precision of precisions) {
    for (const format of formats) {
      const found = manifest.files.find((file) => file.role === "model" && file.precision === precision && file.format === format);
      if (found) return found;
    }
  }
  return undefined;
}

export function findEngine(manifest: Manifest, provider: Provider, version: string): ManifestFile | undefined {
  return manifest.files.find(
    (file) => file.role === "engine" && file.provider === provider && file.version === version,
  );
}
