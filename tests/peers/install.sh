#!/usr/bin/env bash
# Installs the servers that the tests in this directory start, OpenDKIM, and a client that tests of the inbox run: Debian
# packages and two npm packages, by name. Needs root.
#
# postfix and exim4-daemon-heavy conflict as packages. Exim is a single program: it is unpacked, not installed, into the
# directory that the tests know too, and so is Haraka: $TRIO_SMTP_PEERS, /var/cache/trio-smtp-peers by default. Other
# users must be able to enter it, since the servers give up root.
#
# What is there already is left alone.
set -euo pipefail

HARAKA=3.3.4
MAILPIT_API=2.1.0
peers=${TRIO_SMTP_PEERS:-/var/cache/trio-smtp-peers}
mkdir -p "$peers"
export DEBIAN_FRONTEND=noninteractive

have() { command -v "$1" >/dev/null || [ -e "/usr/sbin/$1" ]; }
installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

packages=()
for package in postfix libsasl2-modules dovecot-core dovecot-submissiond dovecot-lmtpd haproxy opendkim; do
    installed "$package" || packages+=("$package")
done
unpack=
if ! have exim4 && [ ! -x "$peers/exim/usr/sbin/exim4" ]; then
    unpack=exim4-daemon-heavy
    for package in libidn12 libmariadb3 libspf2-2; do # what Exim needs beside what any system has
        installed "$package" || packages+=("$package")
    done
fi
have npm || packages+=(nodejs npm)

if [ ${#packages[@]} -gt 0 ] || [ -n "$unpack" ]; then
    apt-get update -qq
fi
if [ ${#packages[@]} -gt 0 ]; then
    apt-get install -qq -y --no-install-recommends "${packages[@]}"
fi
if [ -n "$unpack" ]; then
    (cd "$peers" && apt-get download -qq "$unpack" && dpkg -x "$unpack"_*.deb exim && rm "$unpack"_*.deb)
fi
# Debian's Exim looks this user up when it starts, whatever its configuration says.
getent passwd Debian-exim >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin Debian-exim
if ! grep -qs "\"version\": \"$HARAKA\"" "$peers/node_modules/Haraka/package.json"; then
    npm install --prefix "$peers" --no-audit --no-fund --omit=optional --ignore-scripts "Haraka@$HARAKA"
fi
if ! grep -qs "\"version\": \"$MAILPIT_API\"" "$peers/node_modules/mailpit-api/package.json"; then
    npm install --prefix "$peers" --no-audit --no-fund --omit=optional --ignore-scripts "mailpit-api@$MAILPIT_API"
fi
