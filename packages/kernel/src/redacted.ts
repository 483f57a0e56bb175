import { inspect } from 'node:util'

/** A secret that does not show when printed, logged or serialised; `reveal()` is easy to search for. */
export class Redacted<T> {
  readonly #value: T
  constructor(value: T) {
    this.#value = value
  }
  reveal(): T {
    return this.#value
  }
  toString(): string {
    return '[redacted]'
  }
  toJSON(): string {
    return '[redacted]'
  }
  [inspect.custom](): string {
    return '[redacted]'
  }
}
