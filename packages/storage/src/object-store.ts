/**
 * The port between Tidemark and whatever keeps its objects.
 *
 * A repository never changes an object once it is written, so there is no 'replace' here: `put` is for
 * names that are unique by construction (repeating it offers the same bytes), `putIfAbsent` for the few
 * names that two writers may want. Names are '/'-separated, relative, of [A-Za-z0-9._=-] parts; no
 * object's name is a folder of another's. Whatever else lies there under other names is not ours: it
 * is neither listed nor touched.
 *
 * Every method takes an AbortSignal, has a deadline of its own, and fails with an OperationalError:
 * StoreUnavailableError (retried inside until the budget is spent, `delete` excepted), StoreAccessDeniedError,
 * StoreMissingError, StoreFullError, ObjectNotFoundError, InvalidObjectNameError, AbortedError. A write
 * that failed or was aborted has stored the whole object or nothing; which of the two, only a look tells.
 *
 * `describeObjectStore` in ./testing/conformance states these obligations as a test suite; every driver passes it.
 */
export type ObjectName = string

export interface ObjectEntry {
  readonly name: ObjectName
  readonly size: number
  /** The store's own clock. */
  readonly modifiedAt: Date
}

export interface PutOptions {
  readonly signal: AbortSignal
  /** Hex SHA-256 of the bytes where the caller has it: saves hashing them again on the calling thread. */
  readonly sha256?: string
}

export interface GetOptions {
  readonly signal: AbortSignal
  /** Bytes; `offset` may lie beyond the end, which gives no bytes. */
  readonly range?: { readonly offset: number; readonly length: number }
  /** More than this is refused before it is held, so that nobody's hostile size becomes our memory. */
  readonly maxBytes?: number
  /**
   * Where the bytes go, instead of into a buffer of their own; the result is a view of it. Implies `maxBytes`: its length.
   * After a failure it belongs to nobody: a call that hangs in the system may still write to it.
   */
  readonly into?: Uint8Array
  /**
   * What the store's medium holds and not what this host remembers of it, where that makes a difference and can be done: for a read that is
   * to prove something. `into` from pageAligned, and a `range` that begins at a page's start, are what it takes; what follows the result in `into`, up to the
   * end of its page, is overwritten.
   */
  readonly uncached?: boolean
}

/** The bound of a get in bytes; Infinity where none was asked for. */
export function getBound({ maxBytes = Infinity, into }: GetOptions): number {
  return Math.min(maxBytes, into?.length ?? Infinity)
}

/** A buffer of exactly `length` bytes: the beginning of `into` where there is one. */
export function bufferFor(length: number, into: Uint8Array | undefined): Buffer {
  return into === undefined ? Buffer.allocUnsafe(length) : Buffer.from(into.buffer, into.byteOffset, length)
}

export interface ListOptions {
  readonly signal: AbortSignal
  /** Only names that sort after this one; it need not exist. */
  readonly startAfter?: ObjectName
}

export interface StoreCapabilities {
  /** `putIfAbsent` is decided by the store. Where false, it is a look before the put: a race can slip through. */
  readonly conditionalPut: boolean
  /** The store compares the bytes it got with the checksum it was sent, and refuses a mismatch. */
  readonly checksumAtIngest: boolean
}

export interface ObjectStore extends AsyncDisposable {
  /** For people: the URL without secrets. */
  readonly url: string

  /**
   * Makes `bytes` readable under `name`: all of them or none, and durable once it resolves
   * (file and folder are synced; S3 has answered 200). A reader that starts afterwards sees them.
   * `bytes` is not to change until it has settled, and may be reused by the caller then.
   * @throws {ChecksumRefusedError} the store found other bytes than `sha256` says; nothing was stored.
   */
  put(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<void>

  /**
   * As `put`, unless `name` is taken, which leaves what is there untouched. Of n racing callers one gets
   * 'stored'. Where a lost answer made it try again and it then finds exactly these bytes, they count as
   * its own: 'stored'. So bytes that two writers may race with carry something of the writer (an attempt id).
   */
  putIfAbsent(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<'stored' | 'exists'>

  /**
   * The object's bytes, or those from `offset` for `length` (fewer at its end, none beyond it).
   * A connection that ends early is an error, never a short result.
   * @throws {ObjectNotFoundError} @throws {ObjectTooLargeError} there are more than `maxBytes`.
   */
  get(name: ObjectName, options: GetOptions): Promise<Buffer>

  /** undefined when there is no such object; an unreachable or missing store throws. */
  stat(name: ObjectName, signal: AbortSignal): Promise<ObjectEntry | undefined>

  /** Every object whose name starts with `prefix`, in UTF-8 byte order, page by page as it is consumed. */
  list(prefix: string, options: ListOptions): AsyncIterable<ObjectEntry>

  /**
   * The distinct next name parts below `prefix` ('' or ending in '/'), each as a full prefix ending in '/',
   * in byte order. A folder exists as long as an object below it does.
   */
  listFolders(prefix: string, signal: AbortSignal): AsyncIterable<string>

  /**
   * What the clock says that gives objects their `modifiedAt`, to the second. Ages are the difference of the two: no clock of
   * the caller's takes part. Fails as `put` does.
   */
  storeTime(signal: AbortSignal): Promise<Date>

  /**
   * Removes these objects; absent names are no error. Only maintenance and the capability probe call it.
   *
   * Nothing is repeated inside, unlike every other call: what has been put under one of the names since the caller looked must not be hit by
   * a second request. After a failure any of them may be gone; whoever goes on looks again first. Up to 1,000 names are one request.
   */
  delete(names: readonly ObjectName[], signal: AbortSignal): Promise<void>

  /**
   * Tries out, on scratch objects below `scratch/`, what the store enforces; run at repository init and at
   * every process start. Leaves nothing behind. Fails as `put` does: this is also the write check.
   */
  probe(signal: AbortSignal): Promise<StoreCapabilities>
}
