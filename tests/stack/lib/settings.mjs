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

export const password = (user) => {
  const found = read(settings.secrets)[`user_${user}`]
  if (!found) throw new Error(`no such user: ${user}`)
  return found
}
