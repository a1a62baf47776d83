// Numbered screenshots in a directory, one for each page that looks new. Without a directory, none.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

const PATIENCE_MILLISECONDS = 2000

export function camera (page, directory) {
  let count = 0
  let last
  return async (name) => {
    if (!directory || name === last) return
    last = name
    mkdirSync(directory, { recursive: true })
    const file = `${String(++count).padStart(2, '0')}-${name.replace(/[^a-z0-9]+/gi, '-').slice(0, 60)}.png`
    // A page that moves on while its picture is taken may never give it: the user goes on.
    const picture = page.screenshot({ path: join(directory, file) }).catch(() => {})
    await Promise.race([picture, new Promise((resolve) => setTimeout(resolve, PATIENCE_MILLISECONDS))])
  }
}
