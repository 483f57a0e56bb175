/** Which attempts of an operation may be adopted from: docs/repository-format.md, section 11. */
import { openSignedDocument } from '@tidemark/crypto'
import { OperationalError } from '@tidemark/kernel'
import { type ClusterLayout, parseBeginName } from '../layout.ts'
import { MAX_BYTES } from '../records/bounds.ts'
import { beginSchema, parseDocument } from '../records/documents.ts'
import type { Repository } from '../set/repository.ts'

/** Half of the age at which a sweep may begin on a folder, by the same clock. */
const ADOPTABLE_MS = 12 * 3_600_000
/** The newest ones of an operation; it is not tried more often than that within the time. */
const MAX_ATTEMPTS = 8

/** Ids of earlier attempts of this operation that a repository's begin objects tell of, newest first. */
export async function earlierAttempts(
  repository: Repository,
  layout: ClusterLayout,
  publicKey: string,
  operationId: string,
  signal: AbortSignal,
): Promise<string[]> {
  const nowMs = (await repository.store.storeTime(signal)).getTime()
  const newest = new Map<string, { name: string; number: number; modifiedMs: number }>()
  for await (const { name, modifiedAt } of repository.store.list(layout.begins, { signal })) {
    const begin = parseBeginName(name)
    if (begin === undefined || nowMs - modifiedAt.getTime() >= ADOPTABLE_MS) continue
    if ((newest.get(begin.backupId)?.number ?? -1) < begin.number)
      newest.set(begin.backupId, { name, number: begin.number, modifiedMs: modifiedAt.getTime() })
  }
  const ids: string[] = []
  for (const [backupId, { name }] of [...newest].toSorted(([, a], [, b]) => b.modifiedMs - a.modifiedMs)) {
    if (ids.length === MAX_ATTEMPTS) break
    try {
      const what = `begin object ${name} in ${repository.name}`
      const bytes = await repository.store.get(name, { signal, maxBytes: MAX_BYTES.begin })
      const begin = parseDocument(beginSchema, openSignedDocument(bytes, publicKey, what), what)
      if (begin.operationId === operationId && begin.backupId === backupId) ids.push(backupId)
    } catch (error) {
      // One that cannot be read is nobody's to adopt from.
      if (!(error instanceof OperationalError) || error.retry !== 'never') throw error
    }
  }
  return ids
}

/**
 * The packs of an attempt in one repository, by ordinal: their sizes. Undefined where a sweep may have begun on them.
 *
 * To be asked only once one's own begin object names the attempt as a parent.
 */
export async function packsOfAttempt(
  repository: Repository,
  layout: ClusterLayout,
  backupId: string,
  ordinalOf: (name: string) => number | undefined,
  signal: AbortSignal,
): Promise<Map<number, number> | undefined> {
  const nowMs = (await repository.store.storeTime(signal)).getTime()
  const packs = new Map<number, number>()
  let newestMs = Number.NEGATIVE_INFINITY
  const base = layout.base(backupId)
  for await (const { name, size, modifiedAt } of repository.store.list(base, { signal })) {
    newestMs = Math.max(newestMs, modifiedAt.getTime())
    const ordinal = ordinalOf(name.slice(base.length))
    if (ordinal !== undefined) packs.set(ordinal, size)
  }
  for await (const { modifiedAt } of repository.store.list(layout.beginsOf(backupId), { signal }))
    newestMs = Math.max(newestMs, modifiedAt.getTime())
  // Nothing at all: it was never begun here, and what is put here now is young.
  const untouched = newestMs === Number.NEGATIVE_INFINITY
  return untouched || nowMs - newestMs < ADOPTABLE_MS ? packs : undefined
}
