import type { ObjectName, ObjectStore } from '../object-store.ts'

export type StoreMethod = Exclude<keyof ObjectStore, 'url' | symbol>

interface ScriptedFault {
  readonly error: Error
  readonly when: 'before' | 'after'
  readonly name: RegExp | undefined
  remaining: number
}

export interface FaultOptions {
  /** 'after': the call takes effect and only its answer is lost. Default 'before'. */
  readonly when?: 'before' | 'after'
  /** Only for names (or prefixes, in listings) that match. */
  readonly name?: RegExp
  /** How often it strikes; default once. */
  readonly times?: number
}

/** Failures that a test scripts for a MemoryObjectStore. */
export class Faults {
  readonly #scripted = new Map<StoreMethod, ScriptedFault[]>()

  /**
   * Awaited before each call takes effect: delays it, lets others in between, throws, or never resolves.
   * The call's signal and deadline end the wait.
   */
  latency: ((method: StoreMethod, name: ObjectName | undefined) => Promise<void> | void) | undefined

  /** The next (`times`) calls of `method` reject with `error`. */
  next(method: StoreMethod, error: Error, options: FaultOptions = {}): void {
    const { when = 'before', name, times = 1 } = options
    const faults = this.#scripted.get(method) ?? []
    faults.push({ error, when, name, remaining: times })
    this.#scripted.set(method, faults)
  }

  /** Every call of `method` rejects with `error`, until `clear`. */
  always(method: StoreMethod, error: Error, options: Omit<FaultOptions, 'times'> = {}): void {
    this.next(method, error, { ...options, times: Number.POSITIVE_INFINITY })
  }

  clear(): void {
    this.#scripted.clear()
    this.latency = undefined
  }

  /** @internal */
  strike(method: StoreMethod, name: ObjectName | undefined, when: 'before' | 'after'): void {
    const faults = this.#scripted.get(method) ?? []
    const fault = faults.find(
      (candidate) => candidate.when === when && (candidate.name === undefined || candidate.name.test(name ?? '')),
    )
    if (fault === undefined) return
    fault.remaining -= 1
    if (fault.remaining <= 0) faults.splice(faults.indexOf(fault), 1)
    throw fault.error
  }
}
