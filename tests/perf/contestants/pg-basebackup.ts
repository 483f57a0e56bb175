import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { bytesBelow } from '../meter.ts'
import type { Arena, Contestant } from './contestant.ts'

export async function openPgBasebackup(arena: Arena): Promise<Contestant> {
  const { server } = arena
  const copy = join(arena.folder, 'pg_basebackup')
  const { stdout } = await server.run('pg_basebackup', ['--version'])
  const from = ['-h', server.host, '-p', String(server.port), '-U', server.user]
  const how = ['-D', copy, '-F', 't', '-X', 'stream', '-c', 'fast', '-Z', 'client-zstd:1']
  return {
    name: 'pg_basebackup',
    about: `${stdout.trim()}; -F t -X stream -Z client-zstd:1, not encrypted; restored by zstd and tar, then synced`,
    env: { ...process.env, PGPASSWORD: server.password },
    reset: async () => {
      await rm(copy, { recursive: true, force: true })
      await mkdir(copy)
    },
    backup: [join(server.binDirectory, 'pg_basebackup'), ...from, ...how],
    storedBytes: () => bytesBelow(copy),
    restore: (target) => {
      // -X stream writes the WAL's archive uncompressed.
      const extract = `set -e; zstd -dc '${copy}/base.tar.zst' | tar -xf - -C '${target}'; tar -xf '${copy}/pg_wal.tar' -C '${target}/pg_wal'; sync -f '${target}'`
      return ['sh', '-c', extract]
    },
  }
}
