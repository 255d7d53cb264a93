#!/usr/bin/env bash
# Makes DIR/bin/python3.13 for musl, as Alpine has it: built from Debian's source packages of CPython, libffi and zlib.
#
#     compat/musl.sh DIR
#     DIR/bin/python3.13 -m venv ENVIRONMENT, and the tests of compat/interpreters.py (QUICK) in it
#
# Needs musl-tools, make, dpkg-dev. Nothing of the system is changed: apt runs with lists and package status of its own,
# from the mirror that this machine's apt sources name. Ended halfway, it goes on where it was; once it is done a second
# call only prints.
set -euo pipefail
[ $# = 1 ] || { sed -n 2,9p "$0"; exit 2; }
mkdir -p "$1"; D=$(cd "$1" && pwd); P=$D/bin/python3.13; B=$D/.build

if [ ! -f "$D/.done" ]; then
  mkdir -p "$B"/{lists,cache/archives}/partial "$D"/{include,lib}; touch "$B/status"
  exec 3>>"$B/log"
  trap '[ $? = 0 ] || tail "$B/log" >&2' EXIT
  if [ ! -e "$B/unpacked" ]; then
    MIRROR=$( { sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
                sed -nE 's/^URIs: *([^ ]+).*/\1/p' /etc/apt/sources.list.d/*.sources; } 2>/dev/null | grep -i debian | grep -v security | head -1 || true)
    for suite in trixie bookworm; do
      echo "deb-src ${MIRROR:?no Debian mirror in the apt sources of this machine} $suite main"
    done > "$B/list"
    apt() { apt-get -q -o Dir::Etc::sourcelist="$B/list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
      -o Dir::State="$B" -o Dir::State::lists="$B/lists" -o Dir::State::status="$B/status" -o Dir::Cache="$B/cache" \
      -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@" >&3 2>&1; }
    (cd "$B" && apt update && apt source --download-only python3.13/trixie libffi/bookworm zlib/bookworm)
    for name in python3.13 libffi zlib; do
      rm -rf "$B/$name"; dpkg-source --no-check --skip-patches -x "$B/$name"_*.dsc "$B/$name" >&3 2>&1
    done
    touch "$B/unpacked"
  fi
  # What the kernel says of itself, which musl has none of.
  for name in linux asm-generic mtd; do ln -sfn "/usr/include/$name" "$D/include/$name"; done
  ln -sfn "/usr/include/$(gcc -dumpmachine)/asm" "$D/include/asm"
  # CPython's configure wants the compiler to know for what system it is.
  printf '#!/bin/sh\n[ "$1" = --print-multiarch ] && exec echo %s-linux-musl\nexec musl-gcc "$@"\n' "$(uname -m)" > "$B/cc"
  chmod +x "$B/cc"
  export CC="$B/cc" CFLAGS="-O2 -fPIC -I$D/include" CPPFLAGS="-I$D/include" LDFLAGS="-L$D/lib" JOBS="${JOBS:-2}"
  [ -f "$D/lib/libz.a" ] || (cd "$B/zlib" && ./configure --static --prefix="$D" && make -j "$JOBS" libz.a && make install) >&3 2>&1
  [ -f "$D/lib/libffi.a" ] || (cd "$B/libffi" && ./configure --prefix="$D" --libdir="$D/lib" --disable-shared --with-pic --disable-docs \
    --disable-multi-os-directory && make -j "$JOBS" && make install) >&3 2>&1
  cd "$B/python3.13"
  # Nor must it hear of libraries of the system: those are glibc's.
  export PKG_CONFIG_LIBDIR="$D/lib/pkgconfig"
  export LIBFFI_CFLAGS="-I$D/include" LIBFFI_LIBS="-L$D/lib -lffi" ZLIB_CFLAGS="-I$D/include" ZLIB_LIBS="-L$D/lib -lz"
  [ -f Makefile ] || ./configure --quiet --prefix="$D" --with-ensurepip=install >&3 2>&1
  make -s -j "$JOBS" >&3 2>&1
  make -s install >&3 2>&1
  "$P" -c "import ctypes, zlib, test._test_multiprocessing; ctypes.CDLL(None).syscall"
  cd "$D" && rm -rf "$B" && touch "$D/.done"
fi
echo "$P"
