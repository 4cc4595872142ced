// node remove_background.mjs MODELS_FOLDER MODEL DTYPE PICTURE.png OUT.png
// Cuts out PICTURE with transformers.js's own pipeline, from local files alone.
import { env, pipeline, RawImage } from "@huggingface/transformers";

const [folder, model, dtype, picture, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const remove = await pipeline("background-removal", model, { dtype });
const cutout = await remove(await RawImage.read(picture));
await cutout.save(out);
