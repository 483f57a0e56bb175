import { expect, test } from 'vitest'
import { SkippedFiles } from './skipped-files.ts'

test('a file that was left out is told from one with a bad page by never being sent, in any language', () => {
  const skipped = new SkippedFiles()
  skipped.tablespace('/srv/space', 'pg_tblspc/16400')
  skipped.sent('base/5/1249')
  skipped.warned('checksum verification failed in file "./base/5/1249", block 3: calculated 5A21 but expected 1B02')
  skipped.warned('checksum verification failed in file "./base/5/1255", block 0: calculated 5A21 but expected 1B02')
  skipped.sent('base/5/1255')
  skipped.warned('skipping special file "./run/pipe"')
  skipped.warned('überspringe besondere Datei »./postgresql.conf«')
  skipped.warned('fichier spécial « ./sock » ignoré')
  skipped.warned('skipping special file "/srv/space/PG_15_202209061/link"')
  skipped.warned('something without a path')

  expect(skipped.list.map(({ path }) => path)).toEqual([
    'run/pipe',
    'postgresql.conf',
    'sock',
    'pg_tblspc/16400/PG_15_202209061/link',
  ])
  expect(skipped.count).toBe(4)
})

test('names are bounded, their number is not', () => {
  const skipped = new SkippedFiles()
  for (let n = 0; n < 1_500; n += 1) skipped.warned(`skipping special file "./link-${n}"`)
  expect(skipped.list).toHaveLength(1_000)
  expect(skipped.count).toBe(1_500)
})
