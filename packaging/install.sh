#!/bin/sh
# Installs skywire from the folder of a release, without a network and without a package manager. It needs a POSIX shell and sha256sum,
# shasum or openssl. See: sh install.sh --help
set -eu

usage() {
	cat <<'END'
usage: sh install.sh [--from DIR] [--prefix DIR] [--mini] [--init NAME] [--no-service] [--dry-run]
       sh install.sh --uninstall [--prefix DIR] [--purge] [--dry-run]

Takes the program for this machine out of the folder of a release (this script's, or DIR), compares it with SHA256SUMS, and puts it
into PREFIX/bin with a link for each of its names. With the rights for it, it makes a service of the init system that runs here:
skywire-node under systemd; viscript with the apps of /etc/skywire/config.yaml under OpenRC, procd and runit.

  --prefix DIR   default /usr/local, or ~/.local without root
  --mini         the small build
  --init NAME    systemd, openrc, procd, runit or none, instead of what is found
  --no-service   program and links alone
  --uninstall    takes away what was installed, nothing else; --purge also keys, databases and config
  --dry-run      says what it would do

A file that is there and was not installed by this script is never overwritten: then nothing is changed at all.
END
}

say() { echo "install: $*" >&2; }
die() {
	say "$*"
	exit 1
}

from='' prefix='' mini='' init='' service=yes uninstall='' purge='' dry=''
while [ $# -gt 0 ]; do
	case $1 in
	--from | --prefix | --init)
		[ $# -gt 1 ] || { usage >&2; exit 2; }
		case $1 in
		--from) from=$2 ;;
		--prefix) prefix=$2 ;;
		--init) init=$2 ;;
		esac
		shift
		;;
	--mini) mini=-mini ;;
	--no-service) service='' ;;
	--uninstall) uninstall=yes ;;
	--purge) purge=yes ;;
	--dry-run) dry=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		say "unknown word $1"
		usage >&2
		exit 2
		;;
	esac
	shift
done

[ -n "$from" ] || from=$(dirname "$0")
root=''
[ "$(id -u)" != 0 ] || root=yes
if [ -z "$prefix" ]; then
	if [ -n "$root" ]; then prefix=/usr/local; else prefix=${HOME:?}/.local; fi
fi
case $prefix in
/*) ;;
*) die "--prefix $prefix: say an absolute path" ;;
esac
# What was installed, a path a line: the memory of this script.
list=$prefix/lib/skywire/installed

# do runs a command, or says it.
do_() {
	if [ -n "$dry" ]; then echo "$*"; else "$@"; fi
}

# arch prints the platform of this machine as releases name it.
platform() {
	os=$(uname -s) cpu=$(uname -m)
	case $os in
	Linux) ;;
	Darwin)
		case $cpu in
		arm64) echo darwin-arm64 ;;
		x86_64) echo darwin-amd64 ;;
		*) die "no program for $os on $cpu" ;;
		esac
		return
		;;
	*) die "no program for $os: there are Linux and macOS, and a zip for Windows" ;;
	esac
	case $cpu in
	x86_64 | amd64) echo linux-amd64 ;;
	i?86) echo linux-386 ;;
	aarch64 | arm64) echo linux-arm64 ;;
	armv8* | armv7*) arm 7 ;;
	armv6*) arm 6 ;;
	arm*) echo linux-arm-5 ;;
	riscv64) echo linux-riscv64 ;;
	loongarch64) echo linux-loong64 ;;
	mips*)
		# The name is the same for both byte orders; the sixth byte of any program says which.
		case $(dd if=/proc/self/exe bs=1 skip=5 count=1 2>/dev/null | od -An -tu1 | tr -d ' ') in
		1) echo linux-mipsle-softfloat ;;
		2) echo linux-mips-softfloat ;;
		*) die "mips, of an order of bytes that can't be found out" ;;
		esac
		;;
	*) die "no program for $os on $cpu" ;;
	esac
}

# arm prints the variant, 5 where there is no floating point unit.
arm() {
	if grep -q '^Features.*vfp' /proc/cpuinfo 2>/dev/null; then echo "linux-arm-$1"; else echo linux-arm-5; fi
}

found_init() {
	if [ -d /run/systemd/system ]; then
		echo systemd
	elif [ -f /etc/rc.common ] && [ -x /sbin/procd ]; then
		echo procd
	elif [ -x /sbin/openrc-run ]; then
		echo openrc
	elif [ -d /etc/runit ] || [ -d /run/runit ]; then
		echo runit
	else
		echo none
	fi
}

sum() {
	if command -v sha256sum >/dev/null 2>&1; then
		sha256sum "$1" | cut -d' ' -f1
	elif command -v shasum >/dev/null 2>&1; then
		shasum -a 256 "$1" | cut -d' ' -f1
	else
		openssl dgst -sha256 "$1" | sed 's/.*= *//'
	fi
}

# checked NAME: the file of the release is the one of SHA256SUMS.
checked() {
	[ -f "$from/$1" ] || die "$from has no $1"
	want=$(awk -v name="$1" '$2 == name || $2 == "*" name { print $1 }' "$from/SHA256SUMS")
	[ -n "$want" ] || die "SHA256SUMS has no $1"
	[ "$(sum "$from/$1")" = "$want" ] || die "$1 is not what SHA256SUMS says: the folder is damaged, or somebody has changed it"
}

ours() { [ -f "$list" ] && grep -qxF "$1" "$list"; }

# free PATH: nothing is there, or we have put it there.
free() {
	if [ -e "$1" ] || [ -L "$1" ]; then
		ours "$1" || die "$1 is there and not by this script; nothing was changed. Remove it, or choose another --prefix"
	fi
}

note() {
	[ -z "$dry" ] || return 0
	ours "$1" || echo "$1" >>"$list"
}

# put FILE PATH MODE: in place in one step, so that a program that runs is not cut.
put() {
	do_ mkdir -p "$(dirname "$2")"
	do_ cp "$1" "$2.new"
	do_ chmod "$3" "$2.new"
	do_ mv -f "$2.new" "$2"
	note "$2"
}

# fill FILE PATH MODE: put, with the prefix filled in.
fill() {
	if [ -n "$dry" ]; then
		echo "write $2 from $1"
		return
	fi
	sed "s#/usr/bin/#$prefix/bin/#g; s#/usr/lib/skywire/#$prefix/lib/skywire/#g" "$1" >"$work/fill"
	put "$work/fill" "$2" "$3"
}

units() { for u in "$from"/files/systemd/*; do echo "${u##*/}"; done; }

# targets prints every path that a service needs.
targets() {
	case $init in
	systemd)
		units | sed 's#^#/etc/systemd/system/#'
		echo "$prefix/lib/skywire/first-boot"
		;;
	openrc | procd) echo /etc/init.d/skywire ;;
	runit) echo /etc/sv/skywire/run ;;
	esac
}

make_service() {
	case $init in
	none)
		say "no init system that this script knows: start it with $prefix/bin/viscript run --headless"
		return
		;;
	systemd)
		user
		for u in $(units); do fill "$from/files/systemd/$u" "/etc/systemd/system/$u" 644; done
		sed "s#:-/usr/bin}#:-$prefix/bin}#" "$from/files/first-boot" >"$work/first-boot"
		do_ systemctl daemon-reload
		put "$work/first-boot" "$prefix/lib/skywire/first-boot" 755
		do_ systemctl enable skywire-update-resume.service
		do_ systemctl enable --now skywire-node.service
		do_ systemctl try-restart skywire-vpn.service skywire-socks.service skywire-exit.service skywire-messenger.service skywire-manager.service viscript.service
		;;
	openrc)
		fill "$from/files/openrc/skywire" /etc/init.d/skywire 755
		do_ rc-update add skywire default
		do_ rc-service skywire restart
		;;
	procd)
		fill "$from/files/procd/skywire" /etc/init.d/skywire 755
		do_ /etc/init.d/skywire enable
		do_ /etc/init.d/skywire restart
		;;
	runit)
		fill "$from/files/runit/run" /etc/sv/skywire/run 755
		for d in /etc/service /var/service; do # where it is looked for
			[ -d "$d" ] || continue
			[ -e "$d/skywire" ] || [ -L "$d/skywire" ] || { do_ ln -s /etc/sv/skywire "$d/skywire" && note "$d/skywire"; }
			break
		done
		;;
	esac
}

# user makes the user that the units name.
user() {
	if grep -q '^skywire:' /etc/passwd; then return; fi
	if command -v useradd >/dev/null 2>&1; then
		do_ useradd --system --user-group --home-dir /var/lib/skywire --no-create-home --shell /usr/sbin/nologin skywire
	else
		do_ adduser -S -D -H -h /var/lib/skywire -s /bin/false skywire
	fi
}

install_all() {
	[ -f "$from/SHA256SUMS" ] || die "$from is no folder of a release: it has no SHA256SUMS (say --from DIR)"
	name=skywire-$(platform)$mini
	checked "$name"
	[ -n "$root" ] || service=''
	[ -n "$init" ] || init=$(found_init)
	case $init in
	systemd | openrc | procd | runit | none) ;;
	*) die "--init $init: systemd, openrc, procd, runit or none" ;;
	esac
	free "$prefix/bin/skywire"
	if [ -n "$service" ]; then
		if [ "$init" != none ]; then
			for f in $(cd "$from" && find files -type f); do checked "$f"; done
		fi
		for t in $(targets); do free "$t"; done
	fi
	# The links are looked at by the program itself, in a folder where they can't harm.
	chmod +x "$from/$name" 2>/dev/null || true
	cp "$from/$name" "$work/skywire" && chmod 755 "$work/skywire"
	"$work/skywire" --version >/dev/null || die "$name does not run on this machine"
	links=$("$work/skywire" install-links "$work") || die "the names of the program can't be found out"
	for l in $links; do free "$prefix/bin/${l##*/}"; done
	do_ mkdir -p "$prefix/lib/skywire"
	put "$work/skywire" "$prefix/bin/skywire" 755
	for l in $links; do
		do_ ln -sf skywire "$prefix/bin/${l##*/}"
		note "$prefix/bin/${l##*/}"
	done
	if [ -n "$service" ]; then
		if [ ! -e /etc/skywire/config.yaml ]; then
			put "$from/files/config.yaml" /etc/skywire/config.yaml 644
		fi
		make_service
	fi
	say "$("$work/skywire" --version) is in $prefix/bin${dry:+ (dry run: nothing was changed)}"
	case :$PATH: in
	*:"$prefix/bin":*) ;;
	*) say "$prefix/bin is not on the PATH" ;;
	esac
}

stop_service() {
	case $init in
	systemd)
		sed -n 's#^/etc/systemd/system/##p' "$list" | while IFS= read -r u; do do_ systemctl disable --now "$u" || true; done
		;;
	openrc)
		do_ rc-service skywire stop || true
		do_ rc-update del skywire default || true
		;;
	procd)
		do_ /etc/init.d/skywire stop || true
		do_ /etc/init.d/skywire disable || true
		;;
	runit) do_ sv down skywire || true ;;
	esac
}

uninstall_all() {
	[ -f "$list" ] || die "nothing was installed under $prefix: $list is not there"
	[ -n "$init" ] || init=$(found_init)
	if [ -n "$root" ] && grep -qE '^/etc/(systemd|init\.d|sv)/' "$list"; then stop_service; fi
	while IFS= read -r path; do
		case $path in
		/etc/skywire/*) [ -n "$purge" ] || continue ;;
		esac
		do_ rm -f "$path"
	done <"$list"
	do_ rm -f "$prefix/bin/skywire.old" "$prefix/bin/skywire.new" "$list"
	[ -n "$dry" ] || rmdir /etc/sv/skywire "$prefix/lib/skywire" 2>/dev/null || true
	if [ "$init" = systemd ] && [ -n "$root" ]; then do_ systemctl daemon-reload || true; fi
	if [ -n "$purge" ] && [ -n "$root" ]; then
		do_ rm -rf /var/lib/skywire /run/skywire /etc/skywire
	elif [ -n "$root" ]; then
		say "keys and databases (/var/lib/skywire) and /etc/skywire stay; --purge takes them too"
	fi
	say "uninstalled${dry:+ (dry run: nothing was changed)}"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
if [ -n "$uninstall" ]; then uninstall_all; else install_all; fi
