/**
 * Every error that this package raises on purpose. `code` is stable; the message is one readable line.
 *
 *     RemoverError
 *     ├── ConfigError              config             an option that cannot work, or that there is none of
 *     ├── DownloadError            download           a file that could not be fetched
 *     ├── ManifestError            manifest           a manifest.json that is not one
 *     ├── IntegrityError           integrity          bytes that are not the ones that were promised
 *     ├── EngineError              engine             the engine refuses the model or fails
 *     ├── WorkerError              worker             the worker could not be started, or died; the next picture gets a new one
 *     ├── ImageError               image              a picture that cannot be used
 *     │   ├── EmptyImageError      empty-image        no bytes or no pixels
 *     │   ├── UnsupportedImageError unsupported-image a format that cannot be decoded here, or SVG
 *     │   ├── AnimatedImageError   animated-image     more than one frame, where the first was not asked for
 *     │   ├── CorruptImageError    corrupt-image      a known format with damaged contents
 *     │   └── ImageTooLargeError   image-too-large    more pixels or bytes than the limits allow
 *     ├── EncodeError              encode             a format that cannot be written here
 *     └── DisposedError            disposed           used after dispose()
 *
 * An abort rejects with the signal's own reason, a DOMException named "AbortError", as fetch does.
 */
// Names are written out, for minifiers shorten those of classes; as fields, so that what is not used can be left out.
export class RemoverError extends Error {
  override name = "RemoverError";
  readonly code: string = "remover";
}
export class ConfigError extends RemoverError { override name = "ConfigError"; override readonly code = "config"; }
export class DownloadError extends RemoverError { override name = "DownloadError"; override readonly code = "download"; }
export class ManifestError extends RemoverError { override name = "ManifestError"; override readonly code = "manifest"; }
export class IntegrityError extends RemoverError { override name = "IntegrityError"; override readonly code = "integrity"; }
export class EngineError extends RemoverError { override name = "EngineError"; override readonly code = "engine"; }
export class WorkerError extends RemoverError { override name = "WorkerError"; override readonly code = "worker"; }
export class ImageError extends RemoverError { override name = "ImageError"; override readonly code: string = "image"; }
export class EmptyImageError extends ImageError { override name = "EmptyImageError"; override readonly code = "empty-image"; }
export class UnsupportedImageError extends ImageError { override name = "UnsupportedImageError"; override readonly code = "unsupported-image"; }
export class AnimatedImageError extends ImageError { override name = "AnimatedImageError"; override readonly code = "animated-image"; }
export class CorruptImageError extends ImageError { override name = "CorruptImageError"; override readonly code = "corrupt-image"; }
export class ImageTooLargeError extends ImageError { override name = "ImageTooLargeError"; override readonly code = "image-too-large"; }
export class EncodeError extends RemoverError { override name = "EncodeError"; override readonly code = "encode"; }
export class DisposedError extends RemoverError { override name = "DisposedError"; override readonly code = "disposed"; }

/** What crosses from the worker to the page: structured clone would lose the class. */
export interface ErrorMessage { name: string; message: string }

export function toMessage(error: unknown): ErrorMessage {
  return error instanceof Error || error instanceof DOMException
    ? { name: error.name, message: error.message }
    : { name: "Error", message: String(error) };
}

export function fromMessage({ name, message }: ErrorMessage): Error {
  const classes: Record<string, typeof RemoverError> = {
    ConfigError, DownloadError, ManifestError, IntegrityError, EngineError, WorkerError, ImageError, EmptyImageError,
    UnsupportedImageError, AnimatedImageError, CorruptImageError, ImageTooLargeError, EncodeError, DisposedError,
  };
  if (Object.hasOwn(classes, name)) return new classes[name](message);
  if (name === "AbortError" || name === "TimeoutError") return new DOMException(message, name);
  return new RemoverError(message);
}

/** An error in one line of at most 240 characters, for the inside of a sentence. */
export function line(error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
  return text.length > 240 ? `${text.slice(0, 240)}…` : text;
}
