/**
 * Every error that this package raises on purpose. `code` is stable; the message is one readable line.
 *
 *     RemoverError
 *     ├── ConfigError              config             an option that cannot work
 *     ├── DownloadError            download           a file that could not be fetched
 *     ├── ManifestError            manifest           a manifest.json that is not one
 *     ├── IntegrityError           integrity          bytes that are not the ones that were promised
 *     ├── EngineError              engine             ONNX Runtime refuses the model or fails
 *     ├── ImageError               image              a picture that cannot be used
 *     │   ├── EmptyImageError      empty-image        no bytes or no pixels
 *     │   ├── UnsupportedImageError unsupported-image a format that this browser cannot decode, or SVG
 *     │   ├── AnimatedImageError   animated-image     more than one frame, where the first was not asked for
 *     │   ├── CorruptImageError    corrupt-image      a known format with damaged contents
 *     │   └── ImageTooLargeError   image-too-large    more pixels or bytes than the limits allow
 *     ├── EncodeError              encode             a format that this browser cannot write
 *     └── DisposedError            disposed           used after dispose()
 *
 * An abort rejects with the signal's own reason, a DOMException named "AbortError", as fetch does.
 */
export class RemoverError extends Error {
  readonly code: string = "remover";
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}
export class ConfigError extends RemoverError { override readonly code: string = "config"; }
export class DownloadError extends RemoverError { override readonly code: string = "download"; }
export class ManifestError extends RemoverError { override readonly code: string = "manifest"; }
export class IntegrityError extends RemoverError { override readonly code: string = "integrity"; }
export class EngineError extends RemoverError { override readonly code: string = "engine"; }
export class ImageError extends RemoverError { override readonly code: string = "image"; }
export class EmptyImageError extends ImageError { override readonly code: string = "empty-image"; }
export class UnsupportedImageError extends ImageError { override readonly code: string = "unsupported-image"; }
export class AnimatedImageError extends ImageError { override readonly code: string = "animated-image"; }
export class CorruptImageError extends ImageError { override readonly code: string = "corrupt-image"; }
export class ImageTooLargeError extends ImageError { override readonly code: string = "image-too-large"; }
export class EncodeError extends RemoverError { override readonly code: string = "encode"; }
export class DisposedError extends RemoverError { override readonly code: string = "disposed"; }

const CLASSES = {
  RemoverError, ConfigError, DownloadError, ManifestError, IntegrityError, EngineError, ImageError, EmptyImageError,
  UnsupportedImageError, AnimatedImageError, CorruptImageError, ImageTooLargeError, EncodeError, DisposedError,
};
// Minifiers shorten class names; what people read in a log must not depend on them.
for (const [name, type] of Object.entries(CLASSES)) Object.defineProperty(type, "name", { value: name });

/** What crosses from the worker to the page: structured clone would lose the class. */
export interface ErrorMessage { name: string; message: string }

export function toMessage(error: unknown): ErrorMessage {
  return error instanceof Error || error instanceof DOMException
    ? { name: error.name, message: error.message }
    : { name: "Error", message: String(error) };
}

export function fromMessage({ name, message }: ErrorMessage): Error {
  const type = CLASSES[name as keyof typeof CLASSES];
  if (type) return new type(message);
  if (name === "AbortError" || name === "TimeoutError") return new DOMException(message, name);
  return new RemoverError(message);
}
