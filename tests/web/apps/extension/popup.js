import { createRemover } from "./u2net-remover/standalone.js";

const input = document.querySelector("input");
const remover = await createRemover();
input.disabled = false;
input.onchange = async () => {
  const { image } = await remover.cutout(input.files[0]);
  document.body.append(Object.assign(new Image(), { src: URL.createObjectURL(image), alt: "Without its background" }));
};
