/** A thread of the engine: a worker that waits, asleep, for its part of each picture in a memory that all share. */
export const HELPER_NAME = "u2net-remover-helper";

export interface HelperTask { module: WebAssembly.Module; memory: WebAssembly.Memory; number: number }

interface HelperExports {
  __stack_pointer: WebAssembly.Global;
  u2e_stack(number: number): number;
  u2e_help(number: number): number;
}

/** Called once, in the worker. */
export function help(): void {
  const scope = globalThis as unknown as { onmessage: (event: MessageEvent<HelperTask>) => void; postMessage(message: string): void };
  scope.onmessage = ({ data: { module, memory, number } }) => {
    const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as HelperExports;
    exports.__stack_pointer.value = exports.u2e_stack(number);
    scope.postMessage("ready");
    exports.u2e_help(number);
  };
}
