import {
  InvalidObjectNameError,
  StoreAccessDeniedError,
  StoreFullError,
  StoreMissingError,
  StoreUnavailableError,
} from '../errors.ts'

export interface FileErrorContext {
  readonly what: string
  readonly url: string
  readonly name?: string
}

/** The OperationalError that a system call's errno stands for; anything else is returned as it came. */
export function translateFileError(error: unknown, { what, url, name }: FileErrorContext): unknown {
  const code = errnoOf(error)
  const facts = { errno: code, ...(name !== undefined && { name }) }
  switch (code ?? '') {
    case 'ENOSPC':
    case 'EDQUOT':
      return new StoreFullError(what, url, { cause: error, facts })
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new StoreAccessDeniedError(what, url, {
        cause: error,
        facts,
        hint:
          code === 'EROFS'
            ? 'the file system is mounted read-only: the kernel does that after disk errors, look at dmesg'
            : 'check owner and mode of the folder against the user that Tidemark runs as',
      })
    case 'ELOOP':
      return new StoreAccessDeniedError(what, url, {
        cause: error,
        facts,
        hint: 'there is a symbolic link inside the repository; mount or bind-mount the other disk instead',
      })
    case 'ENOENT':
      return new StoreMissingError(url, { cause: error, facts })
    case 'ENOTDIR':
    case 'EISDIR':
    case 'ENAMETOOLONG':
      return new InvalidObjectNameError(
        name ?? what,
        'a file or folder of that name is in its way, or it is too long',
        error,
      )
    case 'EIO':
    case 'ESTALE':
    case 'ETIMEDOUT':
    case 'EHOSTDOWN':
    case 'ENOTCONN':
    case 'EBUSY':
    case 'EAGAIN':
    case 'EMFILE':
    case 'ENFILE':
      return new StoreUnavailableError(what, url, {
        cause: error,
        facts,
        hint: 'check the disk (dmesg, smartctl) or the mount; EMFILE and ENFILE: raise the limit of open files',
      })
    default:
      return error
  }
}

export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
