import { OperationalError } from '@tidemark/kernel'

/** No key was given, and this needs one. */
export class KeyMissingError extends OperationalError {
  override readonly code = 'KEY_MISSING'
  override readonly retry = 'after-operator'
  constructor(what: string) {
    super(`${what} needs the encryption key, and none is configured`, {
      hint: 'set BACKUP_ENCRYPTION_KEY to the key this repository set was made with (64 hex digits or base64 of 32 bytes)',
    })
  }
}

/** The text is no key. The text itself is never shown. */
export class KeyMalformedError extends OperationalError {
  override readonly code = 'KEY_MALFORMED'
  override readonly retry = 'after-operator'
  constructor(where: string) {
    super(`${where} is not a 32-byte key`, {
      hint: 'give 64 hex digits or base64 of 32 bytes; `tidemark key generate` makes one',
    })
  }
}

/** A key was given, but the keyring was wrapped under others. */
export class WrongKeyError extends OperationalError {
  override readonly code = 'KEY_WRONG'
  override readonly retry = 'after-operator'
  constructor(given: readonly string[], wanted: readonly string[]) {
    super('the encryption key is not the one this repository set was sealed with', {
      hint: `the keyring asks for KEK id ${wanted.join(' or ')}; BACKUP_ENCRYPTION_KEY has id ${given.join(', ')}: find the right key, or put the older one in BACKUP_ENCRYPTION_KEY_OLD`,
      facts: { given, wanted },
    })
  }
}

/** The stream names a data key that no keyring here holds. */
export class UnknownDataKeyError extends OperationalError {
  override readonly code = 'KEY_UNKNOWN'
  override readonly retry = 'after-operator'
  constructor(dataKeyId: string) {
    super(`sealed under data key ${dataKeyId}, which is in no keyring of this set`, {
      hint: 'the object belongs to another repository set, or a keyring object under keys/ is missing: restore it from another repository of the set',
      facts: { dataKeyId },
    })
  }
}

/** Everything that makes sealed bytes unacceptable; `reason` says which check failed. */
export type SealFault =
  | 'not-sealed'
  | 'version'
  | 'header'
  | 'identity'
  | 'frame'
  | 'frame-shape'
  | 'truncated'
  | 'trailing-bytes'

const SEAL_FAULTS = {
  'not-sealed': ['SEAL_NOT_SEALED', 'is not a Tidemark sealed stream', 'check that this is the right file or object'],
  version: [
    'SEAL_VERSION',
    'was sealed by another format version',
    'use the Tidemark release that wrote it, or a newer one',
  ],
  header: [
    'SEAL_HEADER_REFUSED',
    'has a header that its key does not confirm',
    'the header was damaged or changed, or another key has the same id; read it from another repository of the set',
  ],
  identity: [
    'SEAL_IDENTITY',
    'holds another object than its name says',
    'objects were renamed or swapped in the store: find out who wrote there, and read from another repository of the set',
  ],
  frame: [
    'SEAL_FRAME_REFUSED',
    'has a frame that was damaged, changed or moved',
    'read it from another repository of the set; verify the backup to see what else is damaged',
  ],
  'frame-shape': [
    'SEAL_FRAME_MALFORMED',
    'has a frame of impossible shape',
    'read it from another repository of the set',
  ],
  truncated: [
    'SEAL_TRUNCATED',
    'ends before its last frame',
    'the object was cut short; read it from another repository of the set',
  ],
  'trailing-bytes': [
    'SEAL_TRAILING_BYTES',
    'goes on after its last frame',
    'bytes were appended; read it from another repository of the set',
  ],
} as const satisfies Record<SealFault, readonly [string, string, string]>

/** Sealed bytes that must not be used. One class: callers treat all of them alike; `code` tells the checks apart. */
export class SealRefusedError extends OperationalError {
  override readonly code: (typeof SEAL_FAULTS)[SealFault][0]
  override readonly retry = 'never'
  constructor(fault: SealFault, what: string, facts: Record<string, unknown> = {}, cause?: unknown) {
    const [code, message, hint] = SEAL_FAULTS[fault]
    super(`${what} ${message}`, { hint, facts, cause })
    this.code = code
  }
}

/** A signed document whose signature does not hold, or whose shape is not that of one. */
export class SignatureRefusedError extends OperationalError {
  override readonly code = 'SIGNATURE_REFUSED'
  override readonly retry = 'never'
  constructor(what: string, why: 'shape' | 'signature' | 'signer' | 'set', cause?: unknown) {
    const said = {
      shape: 'is damaged: it is not a signed document',
      signature: 'was changed after it was signed',
      signer: 'was signed by a key that this set does not trust',
      set: 'belongs to another repository set',
    }[why]
    super(`${what} ${said}`, {
      hint: 'do not trust it; compare with another repository of the set, and find out who can write to this one',
      facts: { why },
      cause,
    })
  }
}
