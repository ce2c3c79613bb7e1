#!/usr/bin/env bash
# What the machine must have: installed by apt as root on Debian and Ubuntu, elsewhere named. Silent when all is there.
#   system.sh run PYTHON    Python with venv, Java 17, Maven
#   system.sh test PYTHON   clickhouse-server, for the tests over the native protocol; chromium and poppler-utils, for those that look at
#                           the report (without them they are skipped)
#   system.sh chaos         Go 1.23, which builds toxiproxy, and clickhouse-server: for `make chaos`
#   system.sh peers FOLDER   Postfix and OpenDKIM, unpacked likewise, which `make bench-peers` measures beside
#   system.sh go FOLDER     helm and docker-compose, built by Go into FOLDER, for the tests of the chart and of compose.yaml (without
#                           them they are skipped)
#   system.sh prometheus FOLDER   promtool and amtool out of Debian's packages into FOLDER, for the tests of alerts and dashboards;
#                           nothing is installed or started (without them they are skipped)
#   system.sh image         debootstrap, for `make image-steps`
#   system.sh delivery FOLDER   mail servers, rspamd and swaks, unpacked into FOLDER and not installed: for `make check-delivery`, `make check-doors`
set -euo pipefail
what=$1 python=${2:-}
missing=()
PATH=$PATH:/usr/sbin  # where servers are, which a user may not have in the path

go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }
go_builds() { [ "$(printf '%s\n' 1.23 "$(go_version)" | sort -V | head -1)" = 1.23 ]; }

# Postfix, Exim and OpenSMTPD exclude each other as packages, and a server that is installed is also started: each is unpacked
# with the libraries that a plain Debian lacks. loadtest/delivery/debian.py runs them.
unpack() {
  local folder=$1/$2 debs; shift 2
  [ -e "$folder/.complete" ] && return
  debs=$(mktemp -d) && chmod 755 "$debs"
  if ! (cd "$debs" && apt-get download "$@" >download.log 2>&1); then
    tail -3 "$debs/download.log" >&2
    rm -rf "$debs"
    return 1
  fi
  rm -rf "$folder" && mkdir -p "$folder/usr" "$folder/etc" "$folder/var"
  for deb in "$debs"/*.deb; do dpkg -x "$deb" "$folder"; done
  if [ -d "$folder/lib" ]; then cp -a "$folder/lib" "$folder/usr/"; fi  # /lib is a link to /usr/lib on the machine
  rm -rf "$debs"
  touch "$folder/.complete"
}

if [ "$what" = delivery ]; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "Debian's packages of Postfix, Exim, OpenSMTPD, postgrey and rspamd are needed: no apt-get here" >&2
    exit 1
  fi
  into=$2
  complete() { for one in postfix exim opensmtpd postgrey rspamd relay swaks; do [ -e "$into/$one/.complete" ] || return 1; done; }
  complete && exit 0
  echo "apt-get download of mail servers and clients into $into (once)"
  if [ "$(id -u)" = 0 ]; then apt-get update >/dev/null 2>&1 || true; fi  # as it is, otherwise
  failed=0
  unpack "$into" postfix postfix || failed=1
  unpack "$into" exim exim4-daemon-light exim4-base exim4-config libidn12 || failed=1
  unpack "$into" opensmtpd opensmtpd libevent-2.1-7 || failed=1
  unpack "$into" postgrey postgrey libberkeleydb-perl libnetaddr-ip-perl libnet-dns-perl libnet-server-perl \
    libnet-ip-perl libio-multiplex-perl || failed=1
  unpack "$into" rspamd rspamd libluajit-5.1-2 libluajit-5.1-common libhyperscan5 libunwind8 libsodium23 || failed=1
  # Clients of SMTP submission: Postfix that signs in, swaks
  unpack "$into" relay postfix libsasl2-modules || failed=1
  unpack "$into" swaks swaks libnet-ssleay-perl libio-socket-ssl-perl libnet-dns-perl || failed=1
  exit $failed
fi

# A package that is installed is also a server that is started: the two tools alone are taken out of theirs.
if [ "$what" = prometheus ]; then
  into=$2
  mkdir -p "$into"
  [ -x "$into/promtool" ] && [ -x "$into/amtool" ] && exit 0
  command -v promtool >/dev/null && command -v amtool >/dev/null && exit 0
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    echo "promtool and amtool out of Debian's packages into $into (once)"
    if [ "$(id -u)" = 0 ]; then apt-get update >/dev/null 2>&1 || true; fi  # as it is, otherwise
    unpack "$unpacked" debian prometheus prometheus-alertmanager || true
  fi
  if [ -e "$unpacked/debian/.complete" ]; then
    install "$unpacked/debian/usr/bin/promtool" "$unpacked/debian/usr/bin/amtool" "$into"
  else
    echo "no promtool and amtool (Debian's packages prometheus and prometheus-alertmanager): tests of alerts are skipped without" >&2
  fi
  exit 0
fi

if [ "$what" = peers ]; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "Debian's packages of Postfix and OpenDKIM are needed: no apt-get here" >&2
    exit 1
  fi
  into=$2
  [ -e "$into/peers/.complete" ] && exit 0
  echo "apt-get download of Postfix and OpenDKIM into $into (once)"
  if [ "$(id -u)" = 0 ]; then apt-get update >/dev/null 2>&1 || true; fi  # as it is, otherwise
  unpack "$into" peers postfix opendkim libopendkim11 libmilter1.0.1 libopendbx1 libvbr2 librbl1 libmemcached11 libhashkit2 \
    libunbound8 libevent-2.1-7 liblua5.3-0 || exit 1
  exit 0
fi

# Tools by versions that Go's checksum database knows. Compose excludes modules in its go.mod, so it is built in its own folder.
if [ "$what" = go ]; then
  into=$2
  mkdir -p "$into"
  if ! command -v go >/dev/null || ! go_builds; then
    echo "Go 1.23 or later would build helm and docker-compose: tests of the chart and of compose.yaml are skipped without" >&2
    exit 0
  fi
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if [ ! -x "$into/helm" ]; then
    echo "helm by Go into $into (once, some minutes)"
    GOBIN=$(realpath "$into") GOFLAGS=-trimpath nice go install helm.sh/helm/v3/cmd/helm@v3.22.0 >"$log" 2>&1 || tail -3 "$log" >&2
  fi
  if [ ! -x "$into/docker-compose" ]; then
    echo "docker-compose by Go into $into (once, some minutes)"
    module=$(cd / && go mod download -json github.com/docker/compose/v2@v2.40.3 2>"$log" | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
    if [ -z "$module" ] || ! (cd "$module" && nice go build -trimpath -o "$(cd "$OLDPWD" && realpath "$into")/docker-compose" ./cmd) >"$log" 2>&1; then
      tail -3 "$log" >&2
    fi
  fi
  exit 0
fi

if [ "$what" = chaos ]; then
  command -v clickhouse-server >/dev/null || missing+=(clickhouse-server)
  if ! command -v go >/dev/null; then
    missing+=(golang-go)
  elif ! go_builds; then
    echo "Go 1.23 or later is needed to build toxiproxy, $(command -v go) is $(go_version): put a newer one into the PATH" >&2
    exit 1
  fi
elif [ "$what" = image ]; then
  command -v debootstrap >/dev/null || missing+=(debootstrap)
elif [ "$what" = test ]; then
  command -v clickhouse-server >/dev/null || missing+=(clickhouse-server)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v pdftotext >/dev/null || missing+=(poppler-utils)
else
  if [ -z "$python" ]; then
    missing+=(python3 python3-venv)
  elif ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
    echo "Python 3.11 or 3.12 is needed, $python is $("$python" -V 2>&1): install one, or name it: make PYTHON=/path/to/python" >&2
    exit 1
  elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
  fi
  # The compiler too: a test builds a producer in Java.
  java=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p' || true)
  [ "${java:-0}" -ge 17 ] || missing+=(openjdk-17-jdk-headless)
  command -v mvn >/dev/null || missing+=(maven)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing on this machine: ${missing[*]} (names of Debian's packages)" >&2
  echo "get it with: sudo apt-get install ${missing[*]}; elsewhere by your system's package manager" >&2
  [ "$what" = test ] && exit 0 || exit 1
fi

echo "apt-get install ${missing[*]} (once)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if [ "$what" = test ]; then
  wanted=("${missing[@]}") missing=()
  for one in "${wanted[@]}"; do
    if apt-cache show "$one" >/dev/null 2>&1; then
      missing+=("$one")
    else
      echo "$one is not among this system's packages: its tests are skipped" >&2
    fi
  done
  [ ${#missing[@]} -gt 0 ] || exit 0
fi
apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if [ "$what" = chaos ] && ! go_builds; then
  echo "this system's package golang-go is Go $(go_version), toxiproxy needs 1.23: put a newer one into the PATH" >&2
  exit 1
fi
