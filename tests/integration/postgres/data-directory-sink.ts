import type { BackupFile, BaseBackupSink, BaseBackupStart } from '@tidemark/postgres'
import { mkdir, open, symlink, writeFile, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Writes a base backup into a folder as pg_basebackup would, manifest included. */
export class DataDirectorySink implements BaseBackupSink {
  readonly files: BackupFile[] = []
  readonly #folder: string
  readonly #manifest: Buffer[] = []
  readonly #onStart: (start: BaseBackupStart) => void | Promise<void>
  started: BaseBackupStart | undefined
  lastProgress = 0
  #file: FileHandle | undefined

  constructor(folder: string, onStart: (start: BaseBackupStart) => void | Promise<void> = () => {}) {
    this.#folder = folder
    this.#onStart = onStart
  }

  async onStart(start: BaseBackupStart): Promise<void> {
    this.started = start
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    await this.#onStart(start)
  }

  async onFile(file: BackupFile): Promise<void> {
    this.files.push(file)
    const path = join(this.#folder, file.path)
    if (file.type === 'directory') await mkdir(path, { recursive: true, mode: file.mode })
    else if (file.type === 'symlink') await symlink(file.linkTarget ?? '', path)
    else {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      this.#file = await open(path, 'wx', file.mode)
    }
  }

  async onFileChunk(chunk: Buffer): Promise<void> {
    await this.#file?.write(chunk)
  }

  async onFileEnd(): Promise<void> {
    await this.#file?.close()
    this.#file = undefined
  }

  onManifestChunk(chunk: Buffer): void {
    this.#manifest.push(Buffer.from(chunk))
  }

  onProgress(bytesDone: number): void {
    this.lastProgress = bytesDone
  }

  get manifest(): Buffer {
    return Buffer.concat(this.#manifest)
  }

  async writeManifest(): Promise<void> {
    await writeFile(join(this.#folder, 'backup_manifest'), this.manifest, { mode: 0o600 })
  }
}

/** Takes everything and keeps nothing; override what a test is about. */
export function sinkWith(overrides: Partial<BaseBackupSink>): BaseBackupSink {
  return { onStart() {}, onFile() {}, onFileChunk() {}, onFileEnd() {}, onManifestChunk() {}, ...overrides }
}
