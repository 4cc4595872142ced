/** The form: it shows the look of one picture or of all, and changes it. */
import type { Card } from "./card.js";
import { byId } from "./dom.js";
import type { Look } from "./look.js";

const ALL = "all";
const form = byId<HTMLFormElement>("settings");
const whose = form.querySelector<HTMLSelectElement>("[name=for]")!;
let common = read();

function read(): Look {
  const data = new FormData(form);
  const value = (name: string): string => String(data.get(name));
  return {
    task: value("task") as Look["task"], background: value("background"), colour: byId<HTMLInputElement>("colour").value, frame: value("frame"),
    edges: value("edges"), shadow: data.has("shadow"), format: value("format") as Look["format"],
  };
}

function show({ task, background, colour, frame, edges, shadow, format }: Look): void {
  const field = <T extends HTMLElement>(selector: string): T => form.querySelector<T>(selector)!;
  for (const [name, value] of Object.entries({ task, background })) field<HTMLInputElement>(`[name=${name}][value="${value}"]`).checked = true;
  for (const [name, value] of Object.entries({ frame, edges, format })) field<HTMLSelectElement>(`[name=${name}]`).value = value;
  byId<HTMLInputElement>("colour").value = colour;
  field<HTMLInputElement>("[name=shadow]").checked = shadow;
}

/** What the next picture gets. */
export function commonLook(): Look {
  return { ...common };
}

/** Offer each picture by its name where there are several; one that has gone gives the form back to all. */
export function listPictures(cards: Card[]): void {
  const chosen = cards.find((card) => card.id === whose.value);
  whose.replaceChildren(new Option("All pictures", ALL), ...cards.map((card, i) => new Option(`${i + 1}: ${card.file.name}`, card.id)));
  whose.value = cards.length > 1 && chosen ? chosen.id : ALL;
  byId("for-field").hidden = cards.length < 2;
  if (!chosen) show(common);
}

/** `onChange` is told which pictures have another look now, and what of it has changed. */
export function setUpSettings(cards: Card[], onChange: (changed: Card[], name: keyof Look) => void): void {
  const mine = (): Card[] => (whose.value === ALL ? cards : cards.filter((card) => card.id === whose.value));
  const change = (name: keyof Look, more: Partial<Look> = {}): void => {
    const changes: Partial<Look> = { [name]: read()[name], ...more };
    if (whose.value === ALL) Object.assign(common, changes);
    for (const card of mine()) Object.assign(card.look, changes);
    onChange(mine(), name);
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => {
    const { name } = target as HTMLInputElement;
    if (name === "for") show(mine().length === 1 ? mine()[0].look : common);
    else if (name) change(name as keyof Look);
  });
  const colour = byId<HTMLInputElement>("colour");
  colour.addEventListener("input", () => {
    form.querySelector<HTMLInputElement>("[name=background][value=own]")!.checked = true;
    change("background", { colour: colour.value });
  });
  const file = byId<HTMLInputElement>("picture-file");
  form.querySelector('[name=background][value=picture]')!.addEventListener("click", () => file.click());
  file.addEventListener("change", (event) => {
    event.stopPropagation();
    const [chosen] = file.files ?? [];
    if (chosen) {
      const picture = { file: chosen, url: URL.createObjectURL(chosen) };
      byId("picture-swatch").style.backgroundImage = `url(${picture.url})`;
      change("background", { picture });
    }
    file.value = "";
  });
}
