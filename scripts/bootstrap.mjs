#!/usr/bin/env node
/**
 * Makes a fresh checkout able to run: Debian packages that are missing, npm packages, Node 24.
 *
 * Uses nothing but Node's built-ins and runs on Node 20 or later, because it runs before anything is installed. What is
 * there already is skipped, in well under a second. Nothing is fetched from anywhere but apt and the npm registry.
 *
 * Usage: node scripts/bootstrap.mjs [demo|test|bench]
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const purpose = process.argv[2] ?? 'demo'
/** A bench needs what a test needs, and measures those of its peers that are there. */
const purposes = purpose === 'bench' ? ['test', 'bench'] : [purpose]
const STAMP = join(root, 'node_modules', '.tidemark-lock')

/** What has to be there, what provides it on Debian, and who needs it. */
const NEEDS = [
  { packages: ['postgresql'], present: () => postgresTool('initdb') && postgresTool('pgbench'), for: ['demo', 'test'] },
  { packages: ['redis-server'], present: () => onPath('redis-server'), for: ['demo', 'test'] },
  {
    packages: ['ceph-mon', 'ceph-osd', 'radosgw', 'ceph-common'],
    present: () =>
      process.env['TIDEMARK_TEST_S3_URL'] ||
      ['ceph-mon', 'ceph-osd', 'radosgw', 'ceph-authtool', 'radosgw-admin'].every(onPath),
    for: ['test'],
  },
  { packages: ['openssl'], present: () => onPath('openssl'), for: ['test'] },
  { packages: ['python3'], present: () => onPath('python3'), for: ['test'] },
  { packages: ['curl'], present: () => onPath('curl'), for: ['test'] },
  { packages: ['zstd'], present: () => onPath('zstd'), for: ['test'] },
  { packages: ['pgbackrest'], present: () => onPath('pgbackrest'), for: ['bench'], optional: true },
  { packages: ['barman'], present: () => onPath('barman'), for: ['bench'], optional: true },
]

function onPath(tool) {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
  return folders.some((folder) => isExecutable(join(folder, tool)))
}

/** Debian keeps server tools out of PATH, below a folder per version. */
function postgresTool(tool) {
  const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql') : []
  return versions.some((version) => isExecutable(`/usr/lib/postgresql/${version}/bin/${tool}`)) || onPath(tool)
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function fail(message) {
  process.stderr.write(`\n${message}\n`)
  process.exit(1)
}

function run(command, args, options = {}) {
  process.stdout.write(`> ${[command, ...args].join(' ')}\n`)
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], cwd: root, ...options })
  return error === undefined && status === 0
}

function installSystemPackages() {
  const missing = missingPackages(false)
  const wished = missingPackages(true)
  if (missing.length > 0) installRequired(missing)
  if (wished.length > 0) installWished(wished)
}

/** @param optional those that are only compared with, or those that have to be there. */
function missingPackages(optional) {
  const needs = NEEDS.filter((need) => need.for.some((name) => purposes.includes(name)))
  return needs
    .filter((need) => (need.optional ?? false) === optional && !need.present())
    .flatMap(({ packages }) => packages)
}

/** Without root, apt or the package: said, not an error. */
function installWished(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const asRoot = process.getuid?.() === 0
  const done =
    asRoot &&
    onPath('apt-get') &&
    run('apt-get', ['update', '-qq'], { env }) &&
    run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...packages], { env })
  if (!done) process.stdout.write(`not installed, and so not compared with: ${packages.join(', ')}\n`)
}

function installRequired(missing) {
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`
  if (!onPath('apt-get')) {
    fail(
      `This machine lacks what these Debian packages provide: ${missing.join(', ')}.\nInstall the same with this system's package manager, then run the command again.`,
    )
  }
  const asRoot = process.getuid?.() === 0
  const sudo = asRoot ? [] : ['sudo', '-n']
  if (!asRoot && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status !== 0) {
    fail(`These packages are missing and this user may not install them: ${missing.join(', ')}.\nRun: sudo ${command}`)
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const apt = (...args) => run(...splitHead([...sudo, 'apt-get', ...args]), { env })
  apt('update', '-qq')
  if (!apt('install', '-y', '-qq', '--no-install-recommends', ...missing))
    fail(`apt could not install ${missing.join(', ')}. Run: sudo ${command}`)
  const still = missingPackages(false)
  if (still.length > 0) fail(`Still missing after the installation: ${still.join(', ')}.`)
}

function splitHead([head, ...rest]) {
  return [head, rest]
}

function installNodePackages() {
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock) return
  // No dependency needs its install script: what they would build or fetch is optional.
  if (!run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']))
    fail('npm ci failed; see its messages above.')
  writeFileSync(STAMP, lock)
}

function checkNode() {
  const node = join(root, 'node_modules', '.bin', 'node')
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  if (!(stdout ?? '').startsWith('v24.')) {
    fail(
      `Node 24 did not come with the npm packages (optional dependency node-${process.platform}-${process.arch}).\nRun npm ci again without --omit=optional; supported are Linux on x64 and arm64.`,
    )
  }
}

if (Number(process.versions.node.split('.')[0]) < 20)
  fail(`Node 20 or later is needed to begin with; this is ${process.versions.node}.`)
installSystemPackages()
installNodePackages()
checkNode()
