/**
 * PNG (ISO/IEC 15948), written in bands of rows: for grey pictures, which a canvas cannot write, and for pictures
 * larger than a canvas may be. Rows are filtered with Up, then compressed by the browser's own zlib.
 */
const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(...parts: Uint8Array[]): number {
  let crc = -1;
  for (const part of parts) for (let i = 0; i < part.length; i++) crc = CRC[(crc ^ part[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

export class PngWriter {
  readonly #row: number;
  readonly #above: Uint8Array;
  readonly #deflate = new CompressionStream("deflate");
  readonly #writer = this.#deflate.writable.getWriter();
  readonly #compressed: Promise<Uint8Array<ArrayBuffer>[]>;

  constructor(readonly width: number, readonly height: number, readonly channels: 1 | 4) {
    this.#row = width * channels;
    this.#above = new Uint8Array(this.#row);
    this.#compressed = collect(this.#deflate.readable);
  }

  async write(pixels: Uint8Array | Uint8ClampedArray): Promise<void> {
    const row = this.#row;
    const rows = pixels.length / row;
    const out = new Uint8Array(rows * (row + 1));
    const above = this.#above;
    for (let y = 0, p = 0, at = 0; y < rows; y++) {
      out[at++] = 2; // Up
      for (let x = 0; x < row; x++, p++, at++) {
        out[at] = pixels[p] - above[x];
        above[x] = pixels[p];
      }
    }
    await this.#writer.write(out);
  }

  async finish(): Promise<Blob> {
    await this.#writer.close();
    const header = new Uint8Array(13);
    const view = new DataView(header.buffer);
    view.setUint32(0, this.width);
    view.setUint32(4, this.height);
    header.set([8, this.channels === 1 ? 0 : 6], 8); // 8 bits; grey or RGBA
    const parts = [Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a), ...chunk("IHDR", [header])];
    return new Blob([...parts, ...chunk("IDAT", await this.#compressed), ...chunk("IEND", [])], { type: "image/png" });
  }
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array<ArrayBuffer>[]> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = stream.getReader();
  for (let step = await reader.read(); !step.done; step = await reader.read()) parts.push(step.value as Uint8Array<ArrayBuffer>);
  return parts;
}

function chunk(type: string, parts: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer>[] {
  const name = Uint8Array.from(type, (character) => character.charCodeAt(0));
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [bigEndian(length), name, ...parts, bigEndian(crc32(name, ...parts))];
}

function bigEndian(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}
