/**
 * Tells which files a server left out of its backup, from the warnings it sends.
 *
 * Links other than those of tablespaces and pg_wal, sockets, pipes and devices are left out with a warning (sendDir,
 * src/backend/backup/basebackup.c). It has no code of its own, and its words are in the server's language. What tells it from a warning
 * about a page's checksum is that its path never comes in the copy. A file is warned of while it is read, so its header
 * is the last one that was received, or is still in a buffer and comes later.
 */
export class SkippedFiles {
  readonly #kept = 1_000
  /** By path; those that come after all are taken out again. */
  readonly #warned = new Map<string, string>()
  readonly #tablespaces: { readonly location: string; readonly path: string }[] = []
  #beyond = 0
  #last = ''

  get list(): { path: string; reason: string }[] {
    return [...this.#warned].map(([path, reason]) => ({ path, reason }))
  }

  get count(): number {
    return this.#warned.size + this.#beyond
  }

  /** Warnings name files of a tablespace by where they lie on the server. */
  tablespace(location: string, path: string): void {
    this.#tablespaces.push({ location, path })
  }

  sent(path: string): void {
    this.#last = path
    if (this.#warned.size > 0) this.#warned.delete(path)
  }

  warned(message: string): void {
    const path = this.#pathIn(message)
    if (path === undefined || path === this.#last || this.#warned.has(path)) return
    if (this.#warned.size < this.#kept) this.#warned.set(path, message)
    else this.#beyond += 1
  }

  /** `./…` of the data directory or an absolute path, up to the quote that closes it, in whatever kind of quotes. */
  #pathIn(message: string): string | undefined {
    const found = /(?<=["'»«„“”]\s?)\.?\/[^"'»«„“”]+?(?=\s?["'»«„“”])/.exec(message)?.[0]
    if (found === undefined) return undefined
    if (found.startsWith('./')) return found.slice(2)
    const space = this.#tablespaces.find(({ location }) => found.startsWith(`${location}/`))
    return space === undefined ? found : space.path + found.slice(space.location.length)
  }
}
