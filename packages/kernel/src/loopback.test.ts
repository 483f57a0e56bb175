import { expect, test } from 'vitest'
import { hostNameOf } from './loopback.ts'

test.each([
  ['localhost', 'localhost'],
  ['LocalHost:8080', 'localhost'],
  ['127.0.0.1:80', '127.0.0.1'],
  ['[::1]:8080', '::1'],
  ['[::1]', '::1'],
])('%j names %j', (header, name) => expect(hostNameOf(header)).toBe(name))

test.each([
  undefined,
  '',
  ':80',
  '::1',
  '[::1',
  '127.0.0.1:80:80',
  '127.0.0.1/x',
  'user@127.0.0.1',
  '127.0.0.1 ',
  '127.0.0.1,evil.example',
])('%j names nothing', (header) => expect(hostNameOf(header)).toBeUndefined())
