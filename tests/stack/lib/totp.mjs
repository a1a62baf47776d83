// Tessa's second factor: an authenticator app (RFC 6238: SHA-1, six digits, thirty seconds).
import { createHmac } from 'node:crypto'

const PERIOD_MILLISECONDS = 30_000

export function totp (key, when = Date.now()) {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(Math.floor(when / PERIOD_MILLISECONDS)))
  const digest = createHmac('sha1', key).update(counter).digest()
  // Dynamic truncation (RFC 4226 section 5.3).
  const number = digest.readUInt32BE(digest.at(-1) & 0xf) & 0x7fffffff
  return String(number % 1_000_000).padStart(6, '0')
}
