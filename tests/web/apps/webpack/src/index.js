import { createRemover } from "u2net-remover";

const input = document.querySelector("input");
const made = createRemover();
made.then(() => input.removeAttribute("disabled"), (error) => document.body.append(String(error)));
input.onchange = async () => {
  const { image } = await (await made).cutout(input.files[0]);
  document.body.append(Object.assign(new Image(), { src: URL.createObjectURL(image), alt: "Without its background" }));
};
