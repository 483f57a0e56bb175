import { defineConfig } from 'vitest/config'

/** Real services are slow to come up on a busy machine. */
const slow = { testTimeout: 240_000, hookTimeout: 240_000 }
/** One S3 server for all test files that ask for one. */
const globalSetup = ['./packages/testkit/src/s3-global-setup.ts']

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'scripts/**/*.test.ts'],
          exclude: ['**/*.conformance.test.ts', '**/node_modules/**'],
          testTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['packages/*/src/**/*.conformance.test.ts'],
          fileParallelism: false,
          globalSetup,
          ...slow,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['tests/integration/**/*.test.ts', 'tests/compat/**/*.test.ts'],
          maxWorkers: 2,
          globalSetup,
          ...slow,
        },
      },
      {
        test: {
          name: 'matrix',
          include: ['tests/matrix/**/*.test.ts'],
          fileParallelism: false,
          ...slow,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['tests/e2e/**/*.{test,spec}.ts'],
          fileParallelism: false,
          globalSetup,
          ...slow,
        },
      },
      {
        test: { name: 'chaos', include: ['tests/chaos/**/*.test.ts'], fileParallelism: false, globalSetup, ...slow },
      },
    ],
  },
})
