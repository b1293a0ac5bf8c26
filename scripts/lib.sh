# shellcheck shell=bash
# Shared by dev and scripts/*: progress lines, privileges, Debian packages. Sourced, never run.

if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then _bold=$'\e[1m' _red=$'\e[31m' _plain=$'\e[0m'; else _bold='' _red='' _plain=''; fi

say() { printf '%s==>%s %s\n' "$_bold" "$_plain" "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$_red" "$_plain" "$*" >&2; }
# die MESSAGE [LINE…]: what is wrong, then what to do about it.
die() {
    printf '%serror:%s %s\n' "$_red" "$_plain" "$1" >&2
    shift
    local line
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Root, or sudo that asks nothing: a set-up without a terminal must not hang on a password.
can_root() { ((EUID == 0)) || { have sudo && sudo -n true 2>/dev/null; }; }
as_root() { if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi; }

_apt_updated=0
apt_update() {
    ((_apt_updated)) && return 0
    say "updating the package lists"
    # One unreachable third-party source must not end the set-up: the install below tells whether it mattered.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update || warn "apt-get update had errors; going on with the lists at hand"
    _apt_updated=1
}

# apt_candidate PACKAGE: the upstream version apt would install, without epoch; empty when there is none.
apt_candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9]*:\)\{0,1\}//p' | grep -v '^(none)$' || true
}

# apt_install WHY PACKAGE…: as root or with passwordless sudo; otherwise says the command to run.
apt_install() {
    local why=$1 status=0 policy=/usr/sbin/policy-rc.d
    shift
    have apt-get || die "missing: $* ($why)" "This is no Debian or Ubuntu: install what these packages hold, then run ./dev setup again."
    can_root || die "missing: $* ($why)" "Run:  sudo apt-get install -y $*" "then:  ./dev setup"
    apt_update
    say "installing $* ($why)"
    # Packages with a daemon (asterisk, postgresql) would start it on the machine's real ports: we run our own, privately.
    if [[ ! -e $policy ]]; then
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
        # shellcheck disable=SC2064
        trap "as_root rm -f $policy; exit 130" INT
        # shellcheck disable=SC2064
        trap "as_root rm -f $policy; exit 143" TERM
    else
        policy=''
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null || status=$?
    if [[ -n $policy ]]; then
        as_root rm -f "$policy"
        trap 'exit 130' INT
        trap 'exit 143' TERM
    fi
    ((status == 0)) || die "apt-get could not install: $* ($why)" "Its messages are above. Mend that, then run ./dev setup again."
}

# install_locked PYTHON LOCK: into PYTHON's environment. Nothing unlocked is fetched: hashes are required, dependencies are
# not looked up. uv does it in seconds; where it cannot (an index known only to pip's configuration), pip does.
install_locked() {
    local pip=("$1" -m pip install -qq --disable-pip-version-check --require-hashes --no-deps) bin
    bin=$(dirname -- "$1")
    "${pip[@]}" -r requirements-build.lock || return
    VIRTUAL_ENV=$(dirname -- "$bin") "$bin/uv" pip install -q --no-config --require-hashes --no-deps -r "$2" && return 0
    note "uv could not install them; trying pip"
    "${pip[@]}" -r "$2"
}
