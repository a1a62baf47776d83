// A port beside the facade's that leads to it and tells what came. `Host` is as if the browser had asked the other
// port; everything else goes on as it came.
import { createServer, request } from 'node:http'
import { once } from 'node:events'

export class Relay {
  #server = createServer((incoming, response) => this.#passOn(incoming, response))
  #seen = []

  constructor (to) {
    this.to = to
    this.#server.on('upgrade', (incoming, socket) => {
      const there = request(this.#asked(incoming)).end()
      const answered = (answer) => {
        this.#note(incoming, '', answer)
        socket.end(`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\nConnection: close\r\n\r\n`)
      }
      there.on('response', answered).on('upgrade', answered).on('error', () => socket.destroy())
    })
  }

  async open () {
    this.#server.listen(0)
    await once(this.#server, 'listening')
    this.port = this.#server.address().port
    return this
  }

  close () {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  // The bodies that were posted to these names.
  bodies (...hosts) {
    return this.#asking(hosts).map(({ body }) => body)
  }

  // Method, what for, type and answer of everything that came to these names, with how often.
  summary (...hosts) {
    const counts = {}
    for (const { method, headers, status } of this.#asking(hosts)) {
      const dest = headers['sec-fetch-dest'] ?? ''
      const type = headers['content-type']?.split(';')[0] ?? ''
      const kind = headers.upgrade ? 'websocket' : method === 'POST' && dest !== 'document' ? type : `${dest} ${type}`
      const name = `${method} ${kind}`.trim() + ` ${status}`
      counts[name] = (counts[name] ?? 0) + 1
    }
    return counts
  }

  #asking (hosts) {
    return this.#seen.filter(({ headers }) => hosts.includes(headers.host.split(':')[0]))
  }

  #asked ({ method, url: path, headers }) {
    const host = headers.host.replace(`:${this.port}`, `:${this.to}`)
    return { method, path, headers: { ...headers, host }, host: '127.0.0.1', port: this.to, agent: false }
  }

  #passOn (incoming, response) {
    const parts = []
    incoming.on('data', (part) => parts.push(part)).on('end', () => {
      const body = Buffer.concat(parts)
      const there = request(this.#asked(incoming)).end(body)
      there.on('error', () => response.destroy()).on('response', (answer) => {
        this.#note(incoming, body.toString(), answer)
        response.writeHead(answer.statusCode, answer.headers)
        answer.pipe(response)
      })
    })
  }

  #note ({ method, headers }, body, { statusCode: status }) {
    this.#seen.push({ method, headers, body, status })
  }
}
