// What `stack up` left for the browsers: where puppeteer-core, the secrets and the trusted authority lie.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'

const cache = process.env.KSB_CACHE ||
  join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'keystone-broker')

const read = (path) => JSON.parse(readFileSync(path, 'utf8'))

export const settings = read(process.env.KSB_STACK_SETTINGS || join(cache, 'stack', 'settings.json'))

export const puppeteer = createRequire(join(settings.node_modules, 'index.js'))('puppeteer-core')

const secret = (name, what) => {
  const found = read(settings.secrets)[name]
  if (!found) throw new Error(what)
  return found
}

export const password = (user) => secret(`user_${user}`, `no such user: ${user}`)

// The letters of the key are its bytes (cloud/keycloak.py).
export const totpKey = (user) => secret(`totp_${user}`, `${user} has no authenticator app`)
