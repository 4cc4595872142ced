/** Results as files: one, all of them in a ZIP, or on the clipboard. */
import { downloadZip } from "client-zip";

import type { CutoutOptions, Remover } from "../src/index.js";
import type { Card } from "./card.js";
import { save } from "./dom.js";
import { type Format, settings } from "./settings.js";

const SUFFIX: Record<Format, string> = { png: ".png", webp: ".webp", jpeg: ".jpg", alpha: "-mask.png" };

async function render(remover: Remover, card: Card, format = settings.format): Promise<Blob> {
  const { background, frame } = settings;
  const crop = card.task === "cutout" ? frame : undefined;
  if (crop || format === "alpha") {
    const options: CutoutOptions = { output: format, refine: card.refine, animation: "first-frame", crop };
    return (await remover.cutout(card.file, format === "alpha" ? options : { ...options, background })).image;
  }
  if (format === "png" && background === "transparent") return card.base!;
  return (await remover.convert(card.base!, { output: format, background })).image;
}

function nameOf(card: Card): string {
  const { format } = settings;
  const stem = card.file.name.replace(/\.[^.]+$/, "") || "picture";
  return `${stem}${card.task === "cutout" && format !== "alpha" ? "-cutout" : ""}${SUFFIX[format]}`;
}

export async function download(remover: Remover, card: Card): Promise<void> {
  save(await render(remover, card), nameOf(card));
}

/** `onStep` is told which picture is being made. Files of one name are numbered. */
export async function downloadAll(remover: Remover, cards: Card[], onStep: (text: string) => void): Promise<void> {
  const names = new Map<string, number>();
  const entries = [];
  for (const [i, card] of cards.entries()) {
    onStep(`${i + 1} of ${cards.length}`);
    const name = nameOf(card);
    const seen = names.get(name) ?? 0;
    names.set(name, seen + 1);
    entries.push({ name: seen ? name.replace(/(\.[^.]+)$/, `-${seen + 1}$1`) : name, input: await render(remover, card) });
  }
  if (entries.length === 1) save(entries[0].input, entries[0].name);
  else save(await downloadZip(entries).blob(), "cutouts.zip");
}

/** As a PNG, which is what clipboards take. */
export async function copy(remover: Remover, card: Card): Promise<void> {
  const format = settings.format === "alpha" ? "alpha" : "png";
  // The promise is handed over as it is: Safari forgets the press of the button while one waits.
  await navigator.clipboard.write([new ClipboardItem({ "image/png": render(remover, card, format) })]);
}
