#!/bin/sh
# mmdebstrap's customize hook: runs with the new root as $1. Fetches the kernel's package (without
# installing it: its scripts would want an initramfs of their own) and assembles the artifacts.
set -eu
root=$1
chroot "$root" sh -eu -c '
    cd /tmp/recipe
    package=$(apt-cache depends linux-image-amd64 | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)/\1/p" | head -n 1)
    apt-get -q download "$package"
    dpkg-deb -x linux-image-*.deb /tmp/kernel
    dpkg-query -W -f "\${Package} \${Version}\n" > packages.installed
    dpkg-deb -f linux-image-*.deb Package Version | sed "s/^[^:]*: //" | tr "\n" " " >> packages.installed
    python3 -I /tmp/recipe/assemble.py
'
