#!/bin/sh
# Installs or updates one node on a machine with systemd: the binary, manual pages, completions for bash, a user and the unit. Run it
# as root in the folder with `snaphook` and `packaging/`, or pass the binary: packaging/systemd/install.sh target/release/snaphook
set -eu
binary=${1:-./snaphook}
packaging=$(dirname "$0")/..

"$binary" --version
install -m 755 "$binary" /usr/local/bin/snaphook.new
# Atomic, and possible while the old binary runs.
mv /usr/local/bin/snaphook.new /usr/local/bin/snaphook
install -d /usr/local/share/man/man1 /usr/local/share/bash-completion/completions
/usr/local/bin/snaphook man /usr/local/share/man/man1
/usr/local/bin/snaphook completions bash > /usr/local/share/bash-completion/completions/snaphook

if ! id snaphook > /dev/null 2>&1; then
  useradd --system --home-dir /var/lib/snaphook --no-create-home --shell /usr/sbin/nologin snaphook
fi
install -d -o snaphook -g snaphook -m 700 /var/lib/snaphook
install -d -m 750 /etc/snaphook
install -m 644 "$packaging/systemd/snaphook.service" /etc/systemd/system/snaphook.service
if [ ! -e /var/lib/snaphook/config.toml ]; then
  echo "next: write /var/lib/snaphook/config.toml, readable by the group snaphook, then: systemctl enable --now snaphook"
else
  echo "next: systemctl daemon-reload && systemctl restart snaphook"
fi
