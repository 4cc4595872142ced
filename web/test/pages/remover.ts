/** For pages of the tests, with ONNX Runtime as the reference. */
import "../../src/onnxruntime.js";

export * from "../../src/index.js";
