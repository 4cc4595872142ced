/** For React: one remover for the life of a component. */
import { useEffect, useState } from "react";

import { createRemover } from "./remover.js";
import type { Progress, Remover, RemoverOptions } from "./types.js";

export interface RemoverState {
  /** Undefined until it is ready. */
  remover?: Remover;
  /** Why there will be none. */
  error?: Error;
  progress?: Progress;
}

export type UseRemoverOptions = Omit<RemoverOptions, "onProgress" | "signal">;

/**
 * Creates a remover, and disposes of it with the component; one download serves the double effects of StrictMode, too. Options
 * that change make another remover; `worker` is read once.
 */
export function useRemover(options: UseRemoverOptions = {}): RemoverState {
  const [state, setState] = useState<RemoverState>({});
  const { worker, ...rest } = options;
  const key = JSON.stringify({ ...rest, base: rest.base === undefined ? undefined : String(rest.base) });
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    setState({});
    const made = createRemover({ ...options, signal, onProgress: (progress) => void (signal.aborted || setState((state) => ({ ...state, progress }))) });
    made.then(
      (remover) => void (signal.aborted || setState((state) => ({ ...state, remover }))),
      (error) => void (signal.aborted || setState((state) => ({ ...state, error }))),
    );
    return () => {
      abort.abort();
      void made.then((remover) => remover.dispose(), () => {});
    };
  }, [key]);
  return state;
}
