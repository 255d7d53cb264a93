#!/usr/bin/env bash
# Makes DIR/bin/pythonVt: the free-threaded CPython of version V (3.13, 3.14, 3.15), built from source.
#
#     compat/free_threaded.sh VERSION DIR [SOURCE]
#     TQSHIM_PYTHONS=DIR/bin/python3.13t python -m compat.interpreters --only 3.13t    # the quick suite on it
#     DIR/bin/python3.13t -m compat.threads --minutes 10                               # 50 threads on one handle
#
# SOURCE: an unpacked CPython; by default Debian's source package, from the first suite that has it, or the newest of
# the archive's pool. Needs a C compiler, make, dpkg-dev, and the headers of zlib, libffi and OpenSSL. Nothing of the
# system is changed: apt runs with lists and package status of its own, from the mirror that this machine's apt sources
# name. Ended halfway, it goes on where it was; once it is done a second call only prints.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,11p "$0"; exit 2; }
V=$1; mkdir -p "$2"; D=$(cd "$2" && pwd); P=$D/bin/python${V}t; B=$D/.build

if [ ! -f "$D/.done" ]; then
  mkdir -p "$B"/{lists,cache/archives}/partial; touch "$B/status"
  if [ -n "${3:-}" ] && [ ! -e "$B/source" ]; then
    cp -r "$3" "$B/source"
  elif [ ! -e "$B/source" ]; then
    MIRROR=$( { sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
                sed -nE 's/^URIs: *([^ ]+).*/\1/p' /etc/apt/sources.list.d/*.sources; } 2>/dev/null | grep -i debian | grep -v security | head -1 || true)
    [ -n "$MIRROR" ] || { echo "no Debian mirror in this machine's apt sources" >&2; exit 1; }
    apt() { apt-get -q -o Dir::Etc::sourcelist="$B/list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
      -o Dir::State="$B" -o Dir::State::lists="$B/lists" -o Dir::State::status="$B/status" -o Dir::Cache="$B/cache" \
      -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@" >>"$B/log" 2>&1; }
    ok=
    for suite in trixie testing sid; do
      echo "deb-src $MIRROR $suite main" > "$B/list"
      (cd "$B" && apt update && apt source --download-only "python$V") && { ok=1; break; }
    done
    if [ "$ok" ]; then
      dpkg-source --no-check --skip-patches -x "$B"/*.dsc "$B/unpacked" >>"$B/log" 2>&1
    else   # a mirror may list a source that it has not got yet: the newest that it has
      for release in "$V".{20..0} "$V".0~rc{3..1}; do
        /usr/lib/apt/apt-helper download-file "$MIRROR/pool/main/p/python$V/python${V}_$release.orig.tar.xz" "$B/tar.xz" >>"$B/log" 2>&1 && { ok=1; break; }
      done
      [ "$ok" ] || { tail "$B/log" >&2; exit 1; }
      mkdir -p "$B/unpacked" && tar -x -f "$B/tar.xz" -C "$B/unpacked" --strip-components 1
    fi
    mv "$B/unpacked" "$B/source"
  fi
  cd "$B/source"
  [ -f Makefile ] || ./configure --quiet --disable-gil --prefix="$D" --with-ensurepip=install >>"$B/log" 2>&1 || { tail "$B/log" >&2; exit 1; }
  make -s -j "${JOBS:-2}" >>"$B/log" 2>&1 || { tail "$B/log" >&2; exit 1; }
  make -s install >>"$B/log" 2>&1 || { tail "$B/log" >&2; exit 1; }
  "$P" -c "import sys, ctypes, zlib, ssl, test._test_multiprocessing; assert not sys._is_gil_enabled()"
  cd "$D" && rm -rf "$B" && touch "$D/.done"
fi
echo "$P"
