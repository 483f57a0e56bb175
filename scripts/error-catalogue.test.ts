import { readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
/** Where the code spells a code of its own: a class field, a table of faults, a problem literal, a refused request. */
const SPELLINGS = [
  /readonly code(?:: [^=\n]+)? = '[A-Z_]+'/g,
  /readonly code: (?:'[A-Z_]+'(?: \| )?)+$/gm,
  /\bcode: (?:[^\n?,]*\? )?'[A-Z_]+'(?: : '[A-Z_]+')?/g,
  /^\s+'?[a-z-]+'?: \[\s*'[A-Z_]+',/gm,
  // Refused HTTP requests: status and code are arguments.
  /^\s+\d{3},\s+'[A-Z_]+',$/gm,
]
/** The operating system's codes, which are facts and not ours. */
const SYSTEM = /^E[A-Z]+$/

function sourceFiles(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    if (['node_modules', 'testkit', 'testing'].includes(name)) return []
    const path = join(folder, name)
    if (statSync(path).isDirectory()) return sourceFiles(path)
    return name.endsWith('.ts') && !name.endsWith('.test.ts') ? [path] : []
  })
}

function codesInSource(): string[] {
  const codes = new Set<string>()
  for (const file of [...sourceFiles(join(root, 'packages')), ...sourceFiles(join(root, 'apps'))]) {
    const text = readFileSync(file, 'utf8')
    for (const match of SPELLINGS.flatMap((spelling) => [...text.matchAll(spelling)])) {
      for (const [, code = ''] of match[0].matchAll(/'([A-Z_]+)'/g)) if (!SYSTEM.test(code)) codes.add(code)
    }
  }
  return [...codes].toSorted()
}

test('docs/errors.md has every error code of the code, each once, and no other', () => {
  const page = readFileSync(join(root, 'docs', 'errors.md'), 'utf8')
  const documented = [...page.matchAll(/^\| `([A-Z_]+)` \|/gm)].map((match) => match[1] ?? '')

  expect(codesInSource().length).toBeGreaterThan(70)
  expect(documented.toSorted()).toEqual(codesInSource())
})
