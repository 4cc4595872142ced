/** ZIP without compression (pictures are compressed already): PKWARE's APPNOTE, 4.3, with UTF-8 names. */
import { crc32 } from "../src/png.js";

export interface Entry { name: string; blob: Blob }

export async function zip(entries: Entry[]): Promise<Blob> {
  const parts: (Blob | Uint8Array<ArrayBuffer>)[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let offset = 0;
  for (const { name, blob } of entries) {
    const title = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const fields = (view: DataView, at: number): void => {
      view.setUint16(at, 20, true); // version needed
      view.setUint16(at + 2, 0x0800, true); // names are UTF-8
      view.setUint16(at + 8, 0x21, true); // 1 January 1980
      view.setUint32(at + 10, crc, true);
      view.setUint32(at + 14, blob.size, true);
      view.setUint32(at + 18, blob.size, true);
      view.setUint16(at + 22, title.length, true);
    };
    const local = new Uint8Array(30 + title.length);
    const localView = new DataView(local.buffer);
    localView.setUint32(0, 0x04034b50, true);
    fields(localView, 4);
    local.set(title, 30);
    const central = new Uint8Array(46 + title.length);
    const centralView = new DataView(central.buffer);
    centralView.setUint32(0, 0x02014b50, true);
    centralView.setUint16(4, 20, true);
    fields(centralView, 6);
    centralView.setUint32(42, offset, true);
    central.set(title, 46);
    parts.push(local, blob);
    directory.push(central);
    offset += local.length + blob.size;
  }
  const end = new Uint8Array(22);
  const view = new DataView(end.buffer);
  view.setUint32(0, 0x06054b50, true);
  view.setUint16(8, entries.length, true);
  view.setUint16(10, entries.length, true);
  view.setUint32(12, directory.reduce((sum, entry) => sum + entry.length, 0), true);
  view.setUint32(16, offset, true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
