/** Results as files: one, all of them in a ZIP, on the clipboard, or shared. */
import { downloadZip } from "client-zip";

import type { Remover } from "../src/index.js";
import type { Card } from "./card.js";
import { save } from "./dom.js";
import { backgroundOf, cropOf, type Format } from "./look.js";

const SUFFIX: Record<Format, string> = { png: ".png", webp: ".webp", jpeg: ".jpg", alpha: "-mask.png" };

/** What is seen, as a file: made from the picture and its matte, for which the network is not asked again. */
async function render(remover: Remover, card: Card, output = card.look.format): Promise<Blob> {
  const { look, matte, file } = card;
  const background = output === "alpha" ? undefined : backgroundOf(look);
  const crop = cropOf(look);
  if (output === "png" && background === "transparent" && !crop) return card.base!;
  if (look.task === "cutout") return (await remover.compose(file, matte!, { output, background, crop, shadow: look.shadow, colours: card.colours, animation: "first-frame" })).image;
  return (await remover.convert(card.base!, { output: output === "alpha" ? "png" : output, background })).image;
}

function nameOf({ file, look: { format, task } }: Card): string {
  const stem = file.name.replace(/\.[^.]+$/, "") || "picture";
  return `${stem}${task === "cutout" && format !== "alpha" ? "-cutout" : ""}${SUFFIX[format]}`;
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
  const format = card.look.format === "alpha" ? "alpha" : "png";
  // The promise is handed over as it is: Safari forgets the press of the button while one waits.
  await navigator.clipboard.write([new ClipboardItem({ "image/png": render(remover, card, format) })]);
}

/** Whether this browser hands pictures to other applications. */
export function canShare(): boolean {
  return Boolean(navigator.canShare?.({ files: [new File([], "picture.png", { type: "image/png" })] }));
}

const prepared = new WeakMap<Card, { key: string; file: File }>();

/** False where the browser wants another press of the button, because making the file took longer than it remembers one. */
export async function share(remover: Remover, card: Card): Promise<boolean> {
  const key = JSON.stringify([card.look, card.edition]);
  let ready = prepared.get(card);
  if (ready?.key !== key) {
    const blob = await render(remover, card);
    ready = { key, file: new File([blob], nameOf(card), { type: blob.type }) };
    prepared.set(card, ready);
  }
  try {
    await navigator.share({ files: [ready.file] });
    return true;
  } catch (error) {
    if ((error as Error).name === "AbortError") return true; // the person has thought better of it
    if ((error as Error).name === "NotAllowedError") return false;
    throw error;
  }
}
