// The Chromium that the tests of one process share (lib/shared.mjs): on the Unix socket given last, until the
// standard input ends, and so with the process that started it.
import { once } from 'node:events'
import { serve } from './lib/shared.mjs'

await serve(process.argv.at(-1), once(process.stdin.resume(), 'end'))
process.exit()
