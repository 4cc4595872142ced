/** Bundled as bytes by scripts/build.mjs. */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
