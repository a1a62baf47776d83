#!/usr/bin/env bash
# Installs the Debian packages that the stack is made of. Only what is missing; nothing is enabled or started.
set -euo pipefail

wanted=(python3 python3-venv apache2 libapache2-mod-auth-openidc openjdk-17-jre-headless postgresql memcached chromium firefox-esr
  restic ruby-fog-openstack libnss3-tools build-essential pkg-config procps iproute2 strace openssh-client openssh-server openssl curl
  ca-certificates fonts-dejavu-core tmux gnome-keyring dbus systemd util-linux)

installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
# Tools that are just as good from elsewhere: Debian's are asked for only when the command is not there.
command -v mvn >/dev/null || missing+=(maven)
node_major=$(node --version 2>/dev/null | sed -E 's/^v([0-9]+).*/\1/' || true)
[ "${node_major:-0}" -ge 18 ] || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "stack: needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

# Debian starts what it installs. A policy of "never" for the length of this installation prevents it;
# one that was there before is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

# Packages also enable their services for the next boot: that is undone below, unless they were here before us.
services=()
installed apache2 || services+=(apache2 apache-htcacheclean)
installed openssh-server || services+=(ssh)
installed postgresql || services+=(postgresql)
installed memcached || services+=(memcached)

echo "stack: installing ${missing[*]}" >&2
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
"${apt[@]}" update >&2
"${apt[@]}" install --no-install-recommends "${missing[@]}" >&2

for service in "${services[@]}"; do
  if command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl disable "$service.service" >/dev/null 2>&1 || true
  else
    "${as_root[@]}" update-rc.d "$service" disable >/dev/null 2>&1 || true
  fi
done
