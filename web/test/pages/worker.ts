import "../../src/onnxruntime.js";
import "../../src/worker.js";
