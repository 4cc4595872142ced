/** The worker's file, and that of the workers that help it. */
import { help, HELPER_NAME } from "./helper.js";
import { serve } from "./serve.js";

const { name = "" } = globalThis as { name?: string };
if (name === HELPER_NAME) help();
// A thread of ONNX Runtime that bundlers let begin in this very file is none of ours; onnxruntime.ts sees to it.
else if (!name.startsWith("em-pthread")) serve();
