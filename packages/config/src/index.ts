export { loadConfig } from './load-config.ts'
export type { LoadConfigOptions } from './load-config.ts'
export type {
  ClusterConfig,
  ClusterNode,
  Config,
  FileRepositoryConfig,
  HookConfig,
  RepositoryConfig,
  S3RepositoryConfig,
  WorkerConfig,
} from './config.ts'
export { ConfigInvalidError } from './errors.ts'
export type { ConfigProblem } from './errors.ts'
export { hostOf } from './host-of.ts'
export type { Environment } from './secrets.ts'
