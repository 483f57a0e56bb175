import { createHash } from 'node:crypto'
import { KeyEncryptionKey } from '@tidemark/crypto'

/** The key of every repository under fixtures/. A test key: it protects nothing, and anybody can make it. */
export const FIXTURE_TEST_KEY = new KeyEncryptionKey(createHash('sha256').update('tidemark fixture test key').digest())
