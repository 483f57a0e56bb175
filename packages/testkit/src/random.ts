import { randomInt } from 'node:crypto'

/** A seeded source: the same seed gives the same sequence on every machine. Not for keys. */
export interface Random {
  /** In [0, 1). */
  next(): number
  /** In [min, max], both included. */
  integer(min: number, max: number): number
  bytes(length: number): Buffer
  pick<T>(choices: readonly T[]): T
  /** A new array, the same members in another order. */
  shuffle<T>(members: readonly T[]): T[]
}

/** The seed of this run: env TIDEMARK_TEST_SEED, or a fresh one. Printed, so that a failure can be repeated. */
export function seed(): number {
  const given = process.env['TIDEMARK_TEST_SEED']
  const value = given === undefined || given === '' ? randomInt(2 ** 31) : Number(given)
  if (!Number.isSafeInteger(value)) throw new Error(`TIDEMARK_TEST_SEED is to be a whole number, not '${given}'`)
  process.stderr.write(`TIDEMARK_TEST_SEED=${value}\n`)
  return value
}

/** xoshiro128** (Blackman and Vigna), its state filled by splitmix32. */
export function random(seed: number): Random {
  let mix = seed >>> 0
  const fill = (): number => {
    mix = (mix + 0x9e3779b9) >>> 0
    let z = mix
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
  let [a, b, c, d] = [fill(), fill(), fill(), fill()]
  const uint32 = (): number => {
    const result = Math.imul(rotl(Math.imul(b, 5), 7), 9) >>> 0
    const t = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= t
    d = rotl(d, 11)
    return result
  }
  const next = (): number => uint32() / 2 ** 32
  const integer = (min: number, max: number): number => min + Math.floor(next() * (max - min + 1))
  return {
    next,
    integer,
    bytes: (length) => {
      const words = new Uint32Array(Math.ceil(length / 4))
      for (let i = 0; i < words.length; i += 1) words[i] = uint32()
      return Buffer.from(words.buffer, 0, length)
    },
    pick: (choices) => {
      if (choices.length === 0) throw new Error('nothing to pick from')
      return choices[integer(0, choices.length - 1)]!
    },
    shuffle: (members) => {
      const shuffled = [...members]
      for (let i = shuffled.length - 1; i > 0; i -= 1) {
        const j = integer(0, i)
        ;[shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!]
      }
      return shuffled
    },
  }
}

function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k))
}
