/**
 * WebP with transparency, put together from a lossy opaque WebP by the browser and an alpha plane compressed here.
 *
 * Browsers compress alpha with libwebp's full search, which takes as long as the colours. A matte is mostly runs: "as
 * the pixel above" and "as the pixel to the left" are the only two references that this encoder looks for, which is
 * ten times faster and within a few kilobytes. RFC 9649: the container is section 2, ALPH 2.7.1.2, lossless coding 3.
 */
import { EncodeError } from "./errors.js";

/** An opaque lossy WebP and an alpha plane (of `encodeAlpha`) as one file. Throws EncodeError where the former is not lossy. */
export async function withAlpha(opaque: Blob, plane: Uint8Array<ArrayBuffer>, width: number, height: number): Promise<Blob> {
  const colours = await findChunk(opaque, "VP8 ");
  if (!colours) throw new EncodeError("this browser writes no lossy WebP, so transparency cannot be added");
  const extended = new Uint8Array(10);
  extended[0] = 0x10; // has alpha
  for (let i = 0; i < 3; i++) {
    extended[4 + i] = (width - 1) >> (8 * i);
    extended[7 + i] = (height - 1) >> (8 * i);
  }
  const chunks = [...riffChunk("VP8X", extended), ...riffChunk("ALPH", plane), ...riffChunk("VP8 ", colours)];
  const bytes = chunks.reduce((sum, part) => sum + part.size, 0);
  return new Blob([...riffChunk("RIFF", new Blob(["WEBP"]), bytes), ...chunks], { type: "image/webp" });
}

function riffChunk(name: string, body: Uint8Array<ArrayBuffer> | Blob, extra = 0): Blob[] {
  const size = body instanceof Blob ? body.size : body.length;
  const header = new Uint8Array(8);
  header.set(Array.from(name, (character) => character.charCodeAt(0)));
  new DataView(header.buffer).setUint32(4, size + extra, true);
  return [new Blob([header, body, new Uint8Array(size & 1)])];
}

async function findChunk(file: Blob, name: string): Promise<Blob | undefined> {
  for (let at = 12; at + 8 <= file.size;) {
    const view = new DataView(await file.slice(at, at + 8).arrayBuffer());
    const size = view.getUint32(4, true);
    if (String.fromCharCode(...new Uint8Array(view.buffer, 0, 4)) === name) return file.slice(at + 8, at + 8 + size);
    at += 8 + size + (size & 1);
  }
  return undefined;
}

const LITERALS = 256;
const MAX_LENGTH = 4096;
const LENGTH_PREFIXES = 24;
const MIN_RUN = 3; // shorter copies cost more than literals
const MAX_CODE_BITS = 15;

/** The payload of an ALPH chunk: one byte of header (no filter, lossless), then a VP8L stream without its own header. */
export function encodeAlpha(alpha: Uint8Array, width: number, height: number): Uint8Array<ArrayBuffer> {
  const count = width * height;
  // Tokens: a literal is its value; a copy is 1 << 31 | from above << 30 | length.
  let tokens = new Uint32Array(1 << 16);
  let used = 0;
  const frequencies = new Uint32Array(LITERALS + LENGTH_PREFIXES);
  for (let i = 0; i < count;) {
    if (used === tokens.length) {
      const larger = new Uint32Array(used * 2);
      larger.set(tokens);
      tokens = larger;
    }
    const limit = Math.min(count, i + MAX_LENGTH);
    let left = i;
    if (i > 0) {
      const value = alpha[i - 1];
      while (left < limit && alpha[left] === value) left++;
    }
    let above = i;
    if (i >= width && left < limit) while (above < limit && alpha[above] === alpha[above - width]) above++;
    const length = Math.max(left, above) - i;
    if (length >= MIN_RUN) {
      tokens[used++] = (0x80000000 | (above > left ? 0x40000000 : 0) | length) >>> 0;
      frequencies[LITERALS + prefixOf(length)]++;
      i += length;
    } else {
      tokens[used++] = alpha[i];
      frequencies[alpha[i++]]++;
    }
  }

  const bits = new BitWriter(used + 1024);
  bits.write(1, 8); // ALPH: no preprocessing, no filter, lossless
  bits.write(0, 3); // VP8L: no transform, no colour cache, one group of prefix codes
  const lengths = codeLengths(frequencies, MAX_CODE_BITS);
  const codes = writeCode(bits, lengths, LITERALS + LENGTH_PREFIXES);
  for (let channel = 0; channel < 3; channel++) bits.write(1, 4); // red, blue, alpha: one symbol, 0, of no bits
  // Distances: two symbols, 0 (the pixel above, distance code 1) and 1 (the pixel to the left, code 2), one bit each.
  bits.write(0b11, 2); // simple code, two symbols
  bits.write(0, 1); // the first has one bit
  bits.write(0, 1);
  bits.write(1, 8);
  for (let t = 0; t < used; t++) {
    const token = tokens[t];
    if (token < LITERALS) {
      bits.write(codes[token], lengths[token]);
      continue;
    }
    const length = token & 0xffff;
    const prefix = prefixOf(length);
    bits.write(codes[LITERALS + prefix], lengths[LITERALS + prefix]);
    if (prefix >= 4) {
      const extra = (prefix - 2) >> 1;
      bits.write(length - 1 - ((2 + (prefix & 1)) << extra), extra);
    }
    bits.write(token & 0x40000000 ? 0 : 1, 1);
  }
  return bits.finish();
}

/** Prefix of a length from 1 up (RFC 9649, 5.2.2). */
function prefixOf(length: number): number {
  const value = length - 1;
  if (value < 4) return value;
  const top = 31 - Math.clz32(value);
  return 2 * top + ((value >> (top - 1)) & 1);
}

/** Huffman code lengths of at most `limit` bits; a lone symbol gets one bit. */
export function codeLengths(frequencies: Uint32Array, limit: number): Uint8Array {
  const lengths = new Uint8Array(frequencies.length);
  const symbols = Array.from(frequencies.keys()).filter((symbol) => frequencies[symbol]);
  if (symbols.length < 2) {
    for (const symbol of symbols) lengths[symbol] = 1;
    return lengths;
  }
  // Leaves by weight, then the nodes that join two of them, which come into being by weight: two queues, no more sorting.
  symbols.sort((a, b) => frequencies[a] - frequencies[b]);
  const count = symbols.length, root = 2 * count - 2;
  const weights = new Float64Array(root + 1), parents = new Uint16Array(root + 1), depths = new Uint8Array(root + 1);
  // Raising the floor under rare symbols flattens the tree until it fits; the loss is far below a percent.
  for (let floor = 1; ; floor *= 2) {
    symbols.forEach((symbol, i) => (weights[i] = Math.max(frequencies[symbol], floor)));
    let leaf = 0, joined = count;
    const least = (end: number) => (leaf < count && (joined === end || weights[leaf] <= weights[joined]) ? leaf++ : joined++);
    for (let node = count; node <= root; node++) {
      const a = least(node), b = least(node);
      weights[node] = weights[a] + weights[b];
      parents[a] = parents[b] = node;
    }
    for (let node = root - 1; node >= 0; node--) depths[node] = depths[parents[node]] + 1;
    if (depths.every((depth) => depth <= limit)) break;
  }
  symbols.forEach((symbol, i) => (lengths[symbol] = depths[i]));
  return lengths;
}

/** Write code lengths as VP8L's "normal" prefix code; returns the codes, bit-reversed as the stream wants them. */
function writeCode(bits: BitWriter, lengths: Uint8Array, size: number): Uint16Array {
  const symbols = Array.from(lengths.keys()).filter((symbol) => lengths[symbol]);
  if (symbols.length === 1 && symbols[0] < 256) {
    bits.write(1, 1); // simple code, one symbol, of no bits
    bits.write(0, 1);
    bits.write(1, 1);
    bits.write(symbols[0], 8);
    lengths[symbols[0]] = 0;
    return new Uint16Array(size);
  }
  const ORDER = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
  // Lengths as they are, except that runs of zeros use symbols 17 (3 to 10) and 18 (11 to 138).
  const runs: [number, number, number][] = []; // symbol, extra value, extra bits
  for (let i = 0; i < size;) {
    let zeros = 0;
    while (i + zeros < size && zeros < 138 && !lengths[i + zeros]) zeros++;
    if (zeros >= 11) runs.push([18, zeros - 11, 7]);
    else if (zeros >= 3) runs.push([17, zeros - 3, 3]);
    else {
      runs.push([lengths[i], 0, 0]);
      zeros = 1;
    }
    i += zeros;
  }
  const frequencies = new Uint32Array(19);
  for (const [symbol] of runs) frequencies[symbol]++;
  const own = codeLengths(frequencies, 7);
  if (own.reduce((sum, length) => sum + (length ? 1 : 0), 0) === 1) own[own[0] ? 1 : 0] = 1; // a code needs two
  bits.write(0, 1); // normal code
  bits.write(ORDER.length - 4, 4);
  for (const symbol of ORDER) bits.write(own[symbol], 3);
  bits.write(0, 1); // as many symbols as the alphabet has
  const ownCodes = canonicalCodes(own);
  for (const [symbol, value, extra] of runs) {
    bits.write(ownCodes[symbol], own[symbol]);
    bits.write(value, extra);
  }
  return canonicalCodes(lengths);
}

function canonicalCodes(lengths: Uint8Array): Uint16Array {
  const codes = new Uint16Array(lengths.length);
  let code = 0;
  for (let length = 1; length <= MAX_CODE_BITS; length++) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++) if (code & (1 << bit)) reversed |= 1 << (length - 1 - bit);
      codes[symbol] = reversed;
      code++;
    }
    code <<= 1;
  }
  return codes;
}

class BitWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #at = 0;
  #hold = 0;
  #held = 0;
  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** Least significant bit first; at most 24 bits at a time. */
  write(value: number, bits: number): void {
    this.#hold |= value << this.#held;
    this.#held += bits;
    while (this.#held >= 8) {
      if (this.#at === this.#bytes.length) {
        const larger = new Uint8Array(this.#at * 2);
        larger.set(this.#bytes);
        this.#bytes = larger;
      }
      this.#bytes[this.#at++] = this.#hold;
      this.#hold >>>= 8;
      this.#held -= 8;
    }
  }

  finish(): Uint8Array<ArrayBuffer> {
    this.write(0, 7); // fill the last byte
    return this.#bytes.slice(0, this.#at);
  }
}
