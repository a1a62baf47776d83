# Sourced in the root of the repository: where downloads and builds are kept, outside it.
: "${KSB_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/keystone-broker}"
export KSB_CACHE CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$KSB_CACHE/target}"
mkdir -p "$KSB_CACHE/log" "$CARGO_TARGET_DIR"
# Cargo takes a build of another clone for one of this clone if the files here are older than that build
# (https://doc.rust-lang.org/cargo/guide/build-cache.html shares dependencies so; sources go by their times).
if [ "$(cat "$CARGO_TARGET_DIR/clone" 2>/dev/null)" != "$PWD" ]; then
  touch src/lib.rs src/main.rs tests/it/main.rs tests/fuzz/bin/*.rs
  printf %s "$PWD" >"$CARGO_TARGET_DIR/clone"
fi
