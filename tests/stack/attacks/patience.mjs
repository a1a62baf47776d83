// Every wait ends.
export const PATIENCE = 30_000

export function within (promise, what, limit = PATIENCE) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${limit / 1000} s for ${typeof what === 'function' ? what() : what}`)), limit)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// Looks until there is something: for what tells nobody.
export async function looking (what, look, limit = PATIENCE) {
  const end = Date.now() + limit
  for (;;) {
    const found = await look()
    if (found) return found
    if (Date.now() > end) throw new Error(`waited ${limit / 1000} s for ${typeof what === 'function' ? what() : what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
