#!/bin/sh
# Puts visaged on a machine with systemd, upgrades it, or removes it. `make install` and `make uninstall` call this.
#
#   PREFIX   folder of the program, with a virtual environment of its own (/opt/visaged)
#   DESTDIR  goes before every path, for packages and images; then nothing is done to the running system
#   PYTHON   the interpreter, 3.11 or newer (python3); not one in a home folder, which the service cannot see
#   EXTRAS   optional parts, such as cuda,s3
#
# Its steps are install, uninstall, and service: the files for systemd alone, for a program that came in another way.
#
# May be run again at any time: it upgrades, and leaves the configuration and what is kept in /var/lib/visaged alone.
set -eu
umask 022
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/opt/visaged}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-python3}
EXTRAS=${EXTRAS:-}
UNITS=/usr/local/lib/systemd/system
SYSUSERS=/usr/local/lib/sysusers.d
LINK=/usr/local/bin/visaged
CONFIG=/etc/visaged

fail() { echo "$1" >&2; exit 1; }
# The service sees nothing of these: homes and temporary folders are kept from it.
is_hidden() { case $1 in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*) true ;; *) false ;; esac; }
is_live() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

case $PREFIX in
    / | /usr | /usr/local | /opt | /etc | /var | /home | /root | [!/]*)
        fail "PREFIX=$PREFIX: the program needs an absolute path of its own, such as /opt/visaged" ;;
    */ | */. | */.. | *//* | */./* | */../*) fail "PREFIX=$PREFIX: without . and .., and no / at the end" ;;
    *[!A-Za-z0-9/._-]*) fail "PREFIX=$PREFIX: letters, digits, / . _ - are possible" ;;
esac
if is_hidden "$PREFIX/"; then fail "PREFIX=$PREFIX: the service cannot see it there; take one such as /opt/visaged"; fi
case $DESTDIR in
    "" | /*) ;;
    *) DESTDIR=$PWD/$DESTDIR ;;
esac
if [ -z "$DESTDIR" ]; then
    [ "$(id -u)" = 0 ] || fail "this takes root: sudo PREFIX=$PREFIX $0 ${1:-install}, or sudo make ${1:-install}"
    command -v systemd-sysusers > /dev/null || fail "this machine has no systemd (systemd-sysusers); set DESTDIR for another"
fi

install_program() {
    command -v "$PYTHON" > /dev/null || fail "there is no $PYTHON; on Debian and Ubuntu: apt install python3-venv"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "visaged needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1). Try: make install PYTHON=python3.12"
    venv=$DESTDIR$PREFIX
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        fail "$venv is there and is no virtual environment; set PREFIX to a folder of its own"
    fi
    base=$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    if is_hidden "$base"; then
        fail "the service cannot see $base, which $PYTHON is; take the system's: make install PYTHON=/usr/bin/python3"
    fi
    # The system's Python may have been replaced by a newer one, which does not find what the old one had installed.
    same='import sys; print(sys.version_info[:2], end="")'
    if [ "$("$venv/bin/python" -c "$same" 2>/dev/null)" != "$("$PYTHON" -c "$same")" ]; then
        "$PYTHON" -m venv --clear "$venv" ||
            fail "$PYTHON -m venv failed; on Debian and Ubuntu: apt install python3-venv"
    fi
    source=.
    [ -z "$EXTRAS" ] || source=".[$EXTRAS]"
    # From a copy: a build leaves its folders in the tree, and a tree of another user's is not written to.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    for part in pyproject.toml README.md LICENSE daemon pipelines models; do cp -R "$part" "$copy"; done
    (cd "$copy" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
        --upgrade --upgrade-strategy only-if-needed "$source")
    if [ -n "$DESTDIR" ]; then # scripts name their interpreter by its path
        for script in "$venv"/bin/* "$venv/pyvenv.cfg"; do
            if [ -f "$script" ] && [ ! -L "$script" ]; then sed -i "s|$DESTDIR$PREFIX|$PREFIX|g" "$script"; fi
        done
    fi
    install -d "$venv/share/doc/visaged"
    install -m 644 README.md CHANGELOG.md SECURITY.md LICENSE configs/visaged.yaml systemd/visaged.service.d/*.example \
        "$venv/share/doc/visaged"
    install -d "$DESTDIR$(dirname $LINK)"
    if [ -e "$DESTDIR$LINK" ] && [ ! -L "$DESTDIR$LINK" ]; then
        echo "$LINK is another program, and stays; the service runs $PREFIX/bin/visaged" >&2
    else
        ln -sfn "$PREFIX/bin/visaged" "$DESTDIR$LINK"
    fi
}

install_service() {
    install -d "$DESTDIR$UNITS" "$DESTDIR$SYSUSERS"
    for file in visaged.service sysusers.d/visaged.conf; do
        to=$UNITS/visaged.service
        [ "$file" = visaged.service ] || to=$SYSUSERS/visaged.conf
        sed "s|/opt/visaged|$PREFIX|g" "systemd/$file" > "$DESTDIR$to.new"
        chmod 644 "$DESTDIR$to.new"
        mv -f "$DESTDIR$to.new" "$DESTDIR$to"
    done
    if [ -z "$DESTDIR" ] && ! getent passwd visaged > /dev/null; then
        systemd-sysusers "$SYSUSERS/visaged.conf"
    fi
    install -d "$DESTDIR$CONFIG"
    if [ ! -e "$DESTDIR$CONFIG/visaged.yaml" ]; then
        sed "s|/opt/visaged|$PREFIX|g" systemd/visaged.yaml > "$DESTDIR$CONFIG/visaged.yaml"
        chmod 640 "$DESTDIR$CONFIG/visaged.yaml"
        [ -n "$DESTDIR" ] || chgrp visaged "$DESTDIR$CONFIG/visaged.yaml"
    fi
    chmod 750 "$DESTDIR$CONFIG"
    [ -n "$DESTDIR" ] || chgrp visaged "$CONFIG"
    [ -d "$DESTDIR$CONFIG/credentials" ] || install -d -m 700 "$DESTDIR$CONFIG/credentials"
    if is_live; then systemctl daemon-reload; fi
}

say_what_is_next() {
    if [ -n "$DESTDIR" ]; then
        echo "visaged is below $DESTDIR; on the machine itself, systemd-sysusers makes its user"
    elif is_live && systemctl --quiet is-active visaged; then
        echo "visaged was upgraded; the old version runs until: systemctl restart visaged"
    else
        echo "visaged is installed. Put your cameras into $CONFIG/visaged.yaml, then: systemctl enable --now visaged"
    fi
}

uninstall() {
    if is_live && [ -e "$UNITS/visaged.service" ]; then systemctl disable --now visaged; fi
    rm -f "$DESTDIR$UNITS/visaged.service" "$DESTDIR$SYSUSERS/visaged.conf"
    if [ "$(readlink "$DESTDIR$LINK" 2>/dev/null)" = "$PREFIX/bin/visaged" ]; then rm -f "$DESTDIR$LINK"; fi
    if [ -e "$DESTDIR$PREFIX/pyvenv.cfg" ]; then rm -rf "$DESTDIR$PREFIX"; fi
    if is_live; then systemctl daemon-reload; fi
    echo "visaged is gone. Left alone: $CONFIG, /var/lib/visaged, drop-ins and the user visaged. To remove them too:"
    echo "  rm -rf $CONFIG /var/lib/visaged /etc/systemd/system/visaged.service.d; userdel visaged"
}

case ${1:-} in
    install) install_program; install_service; say_what_is_next ;;
    service) install_service ;;
    uninstall) uninstall ;;
    *) fail "usage: systemd/install.sh install | service | uninstall" ;;
esac
