/** The files of a restored directory that are not as the backup has them: recovery settings, and what keeps a copy from hurting its source. */
import { RestoreUnsupportedError } from '../errors.ts'
import type { RestorePlan } from './plan-restore.ts'
import {
  CLONE_HBA,
  CLONE_HBA_TEXT,
  STAND_IN_CONFIGURATION,
  restoredAutoConf,
  withoutUnsafeLines,
} from './recovery-config.ts'
import type { TargetDirectory } from './target-directory.ts'
import { TABLESPACE_MAP, rewrittenMap } from './tablespace-map.ts'

/** Where captured configuration lies, relative to the data directory. */
export const CAPTURED_FOLDER = 'tidemark-configuration'
const AUTO_CONF = 'postgresql.auto.conf'
/** What the server keeps in its own folders is no configuration, whatever it is called; files beside them may be called pg_*. */
const SERVERS_OWN =
  'base|global|pg_(?:commit_ts|dynshmem|logical|multixact|notify|replslot|serial|snapshots|stat|stat_tmp|subtrans|tblspc|twophase|wal|xact)'
/** Configuration that an include directive may reach. */
const CONFIGURATION = new RegExp(`^(?!(?:${SERVERS_OWN})/)(?:.+/)?[^/]+\\.conf$`, 's')
/** Theirs are no settings: who may connect, and as whom. */
const NO_SETTINGS = new Set(['pg_hba.conf', 'pg_ident.conf'])
/** More than anybody's include directory has; a list without end must not become our memory. */
const MOST_FILES = 10_000
const SET_ASIDE = new Set<string>([TABLESPACE_MAP, ...Object.keys(STAND_IN_CONFIGURATION)])

/** Notes while the file list goes by what will have to be looked at, and writes it once the contents are there. */
export class Configuration {
  readonly #backupId: string
  readonly #present = new Set<string>()

  constructor(backupId: string) {
    this.#backupId = backupId
  }

  /** @throws {RestoreUnsupportedError} there are too many. */
  note(path: string): void {
    if (!CONFIGURATION.test(path) && !SET_ASIDE.has(path)) return
    this.#present.add(path)
    if (this.#present.size > MOST_FILES)
      throw new RestoreUnsupportedError(
        this.#backupId,
        `more than ${MOST_FILES} configuration files`,
        'move those that are none (*.conf) out of the data directory of the source, and take a new backup',
      )
  }

  async write(plan: RestorePlan, target: TargetDirectory): Promise<void> {
    const { record, request } = plan
    const present = this.#present.has(AUTO_CONF) ? (await target.readFile(AUTO_CONF)).toString('latin1') : ''
    const directory = Buffer.from(request.targetDirectory).toString('latin1')
    const text = restoredAutoConf(present, directory, request.profile, record)
    await replaceFile(target, AUTO_CONF, Buffer.from(text, 'latin1'))
    for (const file of this.#present) {
      if (file === AUTO_CONF || NO_SETTINGS.has(file) || !file.endsWith('.conf')) continue
      const cleaned = withoutUnsafeLines((await target.readFile(file)).toString('latin1'))
      if (cleaned !== undefined) await replaceFile(target, file, Buffer.from(cleaned, 'latin1'))
    }
    for (const [name, standIn] of Object.entries(STAND_IN_CONFIGURATION)) {
      if (!this.#present.has(name)) await target.writeFile(name, Buffer.from(standIn))
    }
    if (this.#present.has(TABLESPACE_MAP)) {
      const map = rewrittenMap(await target.readFile(TABLESPACE_MAP), plan)
      await replaceFile(target, TABLESPACE_MAP, map)
    }
    if (request.configuration === 'captured') await layCapturedBeside(plan, target)
    if (request.profile === 'clone') await target.writeFile(CLONE_HBA, Buffer.from(CLONE_HBA_TEXT))
    await target.writeFile('recovery.signal', Buffer.alloc(0))
  }
}

/** Files from outside of the source's data directory, for an operator to put back: nothing reads them where they lie. */
async function layCapturedBeside({ source }: RestorePlan, target: TargetDirectory): Promise<void> {
  await target.makeDirectory(CAPTURED_FOLDER, 0o700)
  for (const [i, { kind, path, content }] of source.configuration.entries()) {
    if (content === null) continue
    const name = `${String(i + 1).padStart(3, '0')}-${kind}.conf`
    const head = Buffer.from(
      `# ${kind}: ${path.replaceAll(/[\n\r]/g, '?')} of the source, as it was when the backup was taken\n`,
    )
    await target.writeFile(`${CAPTURED_FOLDER}/${name}`, Buffer.concat([head, Buffer.from(content, 'base64')]))
  }
}

async function replaceFile(target: TargetDirectory, name: string, contents: Buffer): Promise<void> {
  await target.writeFile(`${name}.tidemark`, contents)
  await target.promote(`${name}.tidemark`, name)
}
