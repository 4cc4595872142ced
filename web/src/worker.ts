/** The worker's file. */
import { serve } from "./serve.js";

// A thread of ONNX Runtime that bundlers let begin in this very file is none of ours; onnxruntime.ts sees to it.
if (!(globalThis as { name?: string }).name?.startsWith("em-pthread")) serve();
