import { readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
/** An object store's own `delete` takes names and a signal; those of maps and sets take one key. */
const STORE_DELETE = /\bstore\b[\w.?!()]*\.delete\(/i

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    if (['node_modules', 'testkit', 'testing'].includes(name)) return []
    const path = join(folder, name)
    if (statSync(path).isDirectory()) return sources(path)
    return name.endsWith('.ts') && !name.endsWith('.test.ts') ? [path] : []
  })
}

test('only the sweep deletes from a repository, and only worker-maintenance and the command line can start one', () => {
  const files = ['packages', 'apps'].flatMap((folder) => sources(join(root, folder)))
  const having = (pattern: RegExp): string[] =>
    files.filter((file) => pattern.test(readFileSync(file, 'utf8'))).map((file) => relative(root, file))

  expect(files.length).toBeGreaterThan(150)
  expect(having(STORE_DELETE)).toEqual(['packages/operations/src/sweep/delete-looking.ts'])
  expect(having(/\bsweepConfigured\(|\bsweepRepository\(/).filter((file) => file.startsWith('apps/'))).toEqual([
    'apps/cli/src/commands/maintenance.ts',
    'apps/worker-maintenance/src/main.ts',
  ])
})
