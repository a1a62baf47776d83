// Cookies by host, name and path (RFC 6265; ports share them), for a browser without a screen.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export class Jar {
  constructor (cookies = []) {
    this.cookies = cookies
  }

  take (url, header) {
    const [pair, ...attributes] = header.split(';').map((part) => part.trim())
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const find = (attribute) => attributes.find((each) => each.toLowerCase().startsWith(attribute + '='))?.slice(attribute.length + 1)
    const path = find('path') ?? '/'
    const ended = Number(find('max-age') ?? 1) <= 0 || Date.parse(find('expires') ?? '') < Date.now()
    this.cookies = this.cookies.filter((known) => known.name !== name || known.domain !== url.hostname || known.path !== path)
    if (!ended) this.cookies.push({ name, value, domain: url.hostname, path })
  }

  header (url) {
    const sent = this.cookies.filter(({ domain, path }) => domain === url.hostname && url.pathname.startsWith(path))
    return sent.length ? { cookie: sent.map(({ name, value }) => `${name}=${value}`).join('; ') } : {}
  }
}

// The cookies of a profile (a directory that stays), or of a fresh one.
export function jarOf (profile) {
  const file = profile && join(profile, 'http-cookies.json')
  const jar = new Jar(file && existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [])
  jar.save = () => {
    if (!file) return
    mkdirSync(profile, { recursive: true })
    writeFileSync(file, JSON.stringify(jar.cookies), { mode: 0o600 })
  }
  return jar
}
