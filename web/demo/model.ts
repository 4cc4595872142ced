/** The model's start, and what the page says about it. */
import { createRemover, type Remover } from "../src/index.js";
import { byId } from "./dom.js";
import { describe, megabytes, technicalDetails } from "./words.js";

/** Loads and starts the model; undefined, and said on the page, where that fails. */
export async function loadModel(): Promise<Remover | undefined> {
  const bar = byId<HTMLProgressElement>("load-bar");
  const text = byId("load-text");
  const load = byId("load");
  load.className = "load";
  byId("retry").hidden = true;
  try {
    const remover = await createRemover({
      base: document.querySelector<HTMLMetaElement>('meta[name="bundle"]')!.content,
      onProgress({ phase, loaded, total }) {
        if (total) bar.value = loaded / total;
        text.textContent = phase === "download" && total
          ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB. You can choose pictures already.`
          : phase === "compile" ? "Starting the model …" : "Loading the model …";
      },
    });
    load.className = "load done";
    text.textContent = "Ready.";
    byId("engine").hidden = false;
    byId("engine-facts").replaceChildren(...technicalDetails(remover.info).flatMap(([term, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [term, value];
      return [dt, dd];
    }));
    document.documentElement.dataset.state = "ready";
    return remover;
  } catch (error) {
    load.className = "load failed";
    text.textContent = `The model could not be loaded. ${describe(error)}`;
    byId("retry").hidden = false;
    document.documentElement.dataset.state = "failed";
    return undefined;
  }
}
