/** Where in an operation a kill struck, as durable state shows it. */
import { readFile } from 'node:fs/promises'
import type { Config } from '@tidemark/config'
import { objectsHere } from '../support/operate.ts'

/** `before`: nothing had been written that stays. `after`: the operation's last word had been. */
export type Landing = 'before' | 'inside' | 'after'

/** Called when the operation begins; the function that comes back is called when whoever carried it out is dead. */
export type LandingProbe = () => Promise<() => Promise<Landing>>

/** @param repositories that the operation writes to. @param records how many more each holds once it is done. */
export function landingInRepositories(config: Config, repositories: readonly string[], records: number): LandingProbe {
  const count = async () => {
    const names = await Promise.all(
      repositories.map(async (name) => [...(await objectsHere(config, name, 'clusters/')).keys()]),
    )
    return names.map((all) => ({ all: all.length, records: all.filter((one) => one.includes('/records/')).length }))
  }
  return async () => {
    const then = await count()
    return async () => {
      const now = await count()
      const more = now.map(({ records }, i) => records - (then[i]?.records ?? 0))
      if (more.every((n) => n >= records)) return 'after'
      return now.every(({ all }, i) => all === then[i]?.all) ? 'before' : 'inside'
    }
  }
}

export function landingInTarget(target: string): LandingProbe {
  const marker = (): Promise<string> => readFile(`${target}/tidemark_restore.json`, 'utf8').catch(() => '')
  return async () => {
    const then = await marker()
    return async () => {
      const now = await marker()
      if (now === then) return 'before'
      return now.includes('"complete"') ? 'after' : 'inside'
    }
  }
}
