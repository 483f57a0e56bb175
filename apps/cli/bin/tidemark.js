#!/usr/bin/env node
// Plain JavaScript, so that an old Node can still say what is wrong.
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 18)) {
  process.stderr.write(
    `tidemark needs Node 24, this is ${process.versions.node}.\nHINT: run it through \`npx tidemark\` in the project, which brings its own.\n`,
  )
  process.exit(2)
}
await import('../src/main.ts')
