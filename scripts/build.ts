/**
 * `npm run build [folder]`: the shipping form. Every app, and every worker thread that one starts, as JavaScript in dist/.
 *
 * Sources run without a build; what ships starts faster and needs less memory, because neither the main thread nor any worker thread strips
 * types or resolves hundreds of modules (docs/adr/0009-bundled-apps.md). All files lie side by side in dist/, so that the one spelling for
 * a thread, `new URL('./x-thread.ts', import.meta.url)`, needs only its ending changed; threads are found by that spelling.
 * What the API serves from its packages' own folders (queue board, OpenAPI) stays outside and is loaded from node_modules.
 */
import { chmod, readFile, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Plugin, build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = resolve(process.argv[2] ?? join(root, 'dist'))
const APPS = {
  tidemark: 'apps/cli/src/main.ts',
  api: 'apps/api/src/main.ts',
  'worker-backup': 'apps/worker-backup/src/main.ts',
  'worker-verify': 'apps/worker-verify/src/main.ts',
  'worker-restore': 'apps/worker-restore/src/main.ts',
  'worker-maintenance': 'apps/worker-maintenance/src/main.ts',
}
const THREAD_URL = /new URL\('\.\/([a-z-]+-thread)\.ts', import\.meta\.url\)/g

/** Notes each thread file that a source starts, and names its bundle instead. */
function threadFinder(found: Map<string, string>): Plugin {
  return {
    name: 'threads',
    setup: (bundler) => {
      bundler.onLoad({ filter: /\/(packages|apps)\/[a-z-]+\/src\/.*\.ts$/ }, async ({ path }) => {
        const source = await readFile(path, 'utf8')
        const contents = source.replaceAll(THREAD_URL, (_, name: string) => {
          const file = join(dirname(path), `${name}.ts`)
          if ((found.get(name) ?? file) !== file) throw new Error(`two threads are called ${name}`)
          found.set(name, file)
          return `new URL('./${name}.js', import.meta.url)`
        })
        return { contents, loader: 'ts' }
      })
    },
  }
}

async function bundle(
  entryPoints: Record<string, string>,
  threads: Map<string, string>,
  write: boolean,
): Promise<void> {
  const { outputFiles = [] } = await build({
    absWorkingDir: root,
    entryPoints,
    outdir: dist,
    write,
    bundle: true,
    splitting: true,
    chunkNames: '[name]-[hash]',
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // CommonJS packages in an ESM bundle still ask for Node's built-ins by `require`.
    banner: {
      js: "import { createRequire as createRequireOfBundle } from 'node:module'\nconst require = createRequireOfBundle(import.meta.url)",
    },
    external: ['@bull-board/*', '@fastify/*', 'fastify', 'pg-native', 'msgpackr-extract'],
    plugins: [threadFinder(threads)],
    logLevel: 'warning',
  })
  const stray = outputFiles.filter(({ path }) => dirname(path) !== dist)
  if (stray.length > 0) throw new Error(`not in one folder: ${stray.map(({ path }) => basename(path)).join(', ')}`)
}

const threads = new Map<string, string>()
// A first pass, to see which threads there are; a thread may start another.
for (let known = -1; known < threads.size;) {
  known = threads.size
  await bundle({ ...APPS, ...Object.fromEntries(threads) }, threads, false)
}
await rm(dist, { recursive: true, force: true })
await bundle({ ...APPS, ...Object.fromEntries(threads) }, threads, true)
await chmod(join(dist, 'tidemark.js'), 0o755)
process.stdout.write(
  `built ${Object.keys(APPS).join(', ')} and the threads ${[...threads.keys()].join(', ')} in ${dist}\n`,
)
