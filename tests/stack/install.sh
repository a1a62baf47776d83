#!/usr/bin/env bash
# Installs Debian packages for the stack: those that are missing. Nothing is enabled or started.
# Usage: install.sh [SET…]             these sets, or all of them
#        install.sh --missing [SET…]   installs nothing: prints the megabytes to download, and the missing packages
set -euo pipefail

# What is needed together. `stack up` installs one set while it already works with those before it.
declare -A sets=(
  [build]="gcc libc6-dev python3 python3-venv ca-certificates curl openssl procps iproute2 util-linux"
  [java]="openjdk-17-jre-headless maven"
  [servers]="postgresql memcached apache2 libapache2-mod-auth-openidc"
  [browser]="chromium libnss3-tools fonts-dejavu-core"
  [tests]="firefox-esr restic ruby-fog-openstack build-essential pkg-config strace openssh-client openssh-server tmux
    gnome-keyring dbus systemd"
)

list=
if [ "${1:-}" = --missing ]; then
  list=yes
  shift
fi
[ $# -gt 0 ] || set -- "${!sets[@]}"
for name in "$@"; do
  [ -n "${sets[$name]:-}" ] || { echo "install.sh: no set '$name'; there are: ${!sets[*]}" >&2; exit 2; }
done

installed() {
  dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' | sort -u
}

find_missing() {
  local wanted name
  mapfile -t wanted < <(for name in "$@"; do echo "${sets[$name]}"; done | xargs -n 1 | sort -u)
  mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}") <(installed "${wanted[@]}"))
  # As good from elsewhere: Debian's is asked for only when the command is not there.
  if command -v mvn >/dev/null; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sed '/^maven$/d; /^$/d')
  fi
}
find_missing "$@"
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install.sh: needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

cache=${KSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keystone-broker}
mkdir -p "$cache"
# One at a time: what the next lines arrange is for the whole machine.
exec 9>"$cache/apt.lock"
flock 9
find_missing "$@"
[ ${#missing[@]} -gt 0 ] || exit 0

apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
if [ -z "$(find "$cache/apt.updated" -mmin -60 2>/dev/null)" ]; then
  "${apt[@]}" -qq update >&2
  touch "$cache/apt.updated"
fi

if [ -n "$list" ]; then
  # Each line: 'URI' FILE BYTES DIGEST
  apt-get -q --print-uris --no-install-recommends install "${missing[@]}" |
    awk -v names="${missing[*]}" '/^\047/ { bytes += $3 } END { printf "%d %s\n", bytes / 1e6 + 0.5, names }'
  exit 0
fi

# Debian starts what it installs. A policy of "never" for the length of this installation prevents it;
# one that was there before is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

# Packages also enable their services for the next boot: that is undone below, for those that are new.
services=()
for name in "${missing[@]}"; do
  case $name in
    apache2) services+=(apache2 apache-htcacheclean) ;;
    openssh-server) services+=(ssh) ;;
    postgresql | memcached) services+=("$name") ;;
  esac
done

echo "stack: installing ${missing[*]}" >&2
"${apt[@]}" install --no-install-recommends "${missing[@]}" >&2

for service in "${services[@]}"; do
  if command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl disable "$service.service" >/dev/null 2>&1 || true
  else
    "${as_root[@]}" update-rc.d "$service" disable >/dev/null 2>&1 || true
  fi
done
