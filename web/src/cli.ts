#!/usr/bin/env node
/// <reference types="node" />
/** `npx u2net-remover verify DIR`: whether a bundle folder is what its manifest says, byte by byte, and its model answers right. */
import { createHash } from "node:crypto";
import { lstat, readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";

import { createRemover } from "./node.js";
import { ManifestError } from "./errors.js";
import { type Manifest, parseManifest } from "./manifest.js";

const USAGE = `usage: u2net-remover verify DIR [--json]

Checks that the bundle in DIR is what its manifest.json says: every byte of every file, nothing missing, nothing added, and a
model that answers the self-test picture as promised. Exit status: 0 where it is, 1 where it is not, 2 for wrong usage.`;
/** Beside the files that the manifest lists: itself, its signature, and compressed copies. */
const UNLISTED = /^(manifest\.json|model\.sig|manifest\.json\.sig)$/;
const COMPRESSED = /\.(br|gz)$/;

async function faultsOf(folder: string, manifest: Manifest): Promise<string[]> {
  const faults: string[] = [];
  const listed = new Set(manifest.files.map((file) => file.path));
  for (const file of manifest.files) {
    const path = join(folder, file.path);
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile()) faults.push(`${file.path} is missing`);
    else if (found.size !== file.bytes) faults.push(`${file.path} has ${found.size} bytes, not ${file.bytes}`);
    else if (createHash("sha256").update(await readFile(path)).digest("hex") !== file.sha256) faults.push(`${file.path} is not the file that the manifest lists (sha256 differs)`);
  }
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const name = join(entry.parentPath ?? entry.path, entry.name).slice(folder.length + 1).replaceAll("\\", "/");
    if (!entry.isFile()) faults.push(`${JSON.stringify(name)} is no plain file`);
    else if (!listed.has(name) && !UNLISTED.test(name) && !listed.has(name.replace(COMPRESSED, "")) && !UNLISTED.test(name.replace(COMPRESSED, ""))) {
      faults.push(`${JSON.stringify(name)} is not in the manifest`);
    }
  }
  return faults;
}

async function verify(folder: string): Promise<{ name: string; version: string; files: number; bytes: number; model?: string; selfTestDifference?: number }> {
  const text = await readFile(join(folder, "manifest.json"), "utf8").catch(() => {
    throw new ManifestError(`${folder} holds no manifest.json that can be read`);
  });
  const manifest = parseManifest(text);
  const faults = await faultsOf(folder, manifest);
  if (faults.length) throw new ManifestError(`${faults.slice(0, 5).join("; ")}${faults.length > 5 ? ` (and ${faults.length - 5} more)` : ""}`);
  const found = { name: manifest.name, version: manifest.version, files: manifest.files.length, bytes: manifest.files.reduce((sum, file) => sum + file.bytes, 0) };
  if (!manifest.files.some((file) => file.role === "model" && file.format === "u2e")) return found;
  const remover = await createRemover({ base: folder }); // fails where the self-test does
  const { model, selfTestDifference } = remover.info;
  await remover.dispose();
  return { ...found, model, selfTestDifference };
}

const [command, ...rest] = process.argv.slice(2);
const [folder, ...more] = rest.filter((one) => one !== "--json");
if (command !== "verify" || !folder || more.length) {
  (command === "--help" || command === "-h" ? console.log : console.error)(USAGE);
  process.exitCode = command === "--help" || command === "-h" ? 0 : 2;
} else {
  try {
    const found = await verify(resolve(folder));
    console.log(rest.includes("--json") ? JSON.stringify(found, null, 2) : Object.entries(found).map(([key, value]) => `${key}: ${value}`).join("\n"));
  } catch (error) {
    console.error(`u2net-remover: ${(error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ")}`);
    process.exitCode = 1;
  }
}
