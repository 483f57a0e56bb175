import { existsSync } from 'node:fs'
import type { CommitRecord, SourceDocument } from '@tidemark/repository'
import { expect, test } from 'vitest'
import { checkHost } from './host-checks.ts'

type Database = SourceDocument['databases'][number]

const database = (facts: Partial<Database>): Database =>
  ({ name: 'app', provider: 'libc', collate: 'C', ctype: 'C', collationVersion: null, ...facts }) as Database
const sourceWith = (databases: readonly Database[]): SourceDocument => ({ databases }) as unknown as SourceDocument
const ofVersion = (versionNum: number): CommitRecord => ({ server: { versionNum } }) as unknown as CommitRecord
const has15 = existsSync('/usr/lib/postgresql/15/bin/pg_ctl')
if (!has15) process.stderr.write('no PostgreSQL 15 in /usr/lib/postgresql: its libraries are not looked for\n')

test('what a restored server would lack on this host is named, and what it has is not', async () => {
  const { pgCtl, findings } = await checkHost(
    ofVersion(990_001),
    sourceWith([
      database({ name: 'plain' }),
      database({ name: 'built in', collate: 'C.UTF-8', ctype: 'C.UTF-8', collationVersion: '1.0' }),
      database({ name: 'far', collate: 'xx_YY.UTF-8', ctype: 'xx_YY.UTF-8' }),
      database({ name: 'old', collate: 'en_US.UTF-8', ctype: 'C', collationVersion: '1.999' }),
      database({ name: 'icu', provider: 'icu', collate: 'en_US.UTF-8', collationVersion: '153.14' }),
    ]),
    [],
  )
  expect(pgCtl).toBeUndefined()
  const messages = findings.map(({ check, message }) => `${check}: ${message}`)
  expect(messages.find((each) => each.startsWith('binaries: no pg_ctl of PostgreSQL 99'))).toBeDefined()
  expect(messages.find((each) => each.startsWith('locales: locale xx_YY.UTF-8 is not installed'))).toBeDefined()
  expect(
    messages.find((each) => each.startsWith('collations: database old was sorted by glibc 1.999, this host has ')),
  ).toBeDefined()
  expect(messages.find((each) => each.startsWith('collations: database icu sorts by ICU 153.14'))).toBeDefined()
  expect(messages.filter((each) => /plain|built in/.test(each))).toEqual([])
})

test.runIf(has15)('preload libraries are looked for where the server of that version would load them', async () => {
  const libraries = ['auto_explain', '$libdir/pg_stat_statements', 'nobody_has_this']
  const { pgCtl, findings } = await checkHost(ofVersion(150_004), sourceWith([database({})]), libraries)
  expect(pgCtl).toBe('/usr/lib/postgresql/15/bin/pg_ctl')
  expect(findings.filter(({ check }) => check === 'libraries').map(({ message }) => message)).toEqual([
    expect.stringContaining('nobody_has_this'),
  ])
})

test.runIf(has15)('a server that was built with ICU takes databases of ICU’s', async () => {
  const { findings } = await checkHost(ofVersion(150_004), sourceWith([database({ provider: 'icu' })]), [])
  expect(findings.filter(({ check }) => check === 'locales')).toEqual([])
})
