import { defineConfig } from 'vitest/config'

const slow = { testTimeout: 240_000, hookTimeout: 240_000 }

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'scripts/**/*.test.ts'],
          exclude: ['**/*.conformance.test.ts', '**/node_modules/**'],
          testTimeout: 30_000,
        },
      },
      { test: { name: 'conformance', include: ['packages/*/src/**/*.conformance.test.ts'], ...slow } },
      {
        test: {
          name: 'integration',
          include: ['tests/integration/**/*.test.ts', 'tests/compat/**/*.test.ts'],
          ...slow,
        },
      },
      { test: { name: 'e2e', include: ['tests/e2e/**/*.{test,spec}.ts'], fileParallelism: false, ...slow } },
    ],
  },
})
