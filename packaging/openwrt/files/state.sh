# What the daemons must find again: in flash, and with option ram in memory while they run. Part of the init script, whose names it uses.
# shellcheck shell=ash

# folders STATE USER makes them. Those who run as root and the node have files in one folder of sockets: none may remove another's.
folders() {
	mkdir -p "$RUN" "$1" "$PARTS"
	chmod 0700 "$1"
	[ -z "$2" ] || chown "root:$2" "$RUN"
	chmod 1770 "$RUN"
	umask 027
}

# allow USER FILE lets the daemons' group read a file.
allow() { [ -z "$1" ] || chown "root:$1" "$2"; }

# own USER FOLDER… gives what lies there to a user; what is his already is not touched, for that would be a write to flash.
own() {
	local user=${1:-root} id folder file
	id=$(id -u "$user")
	shift
	for folder in "$@"; do
		for file in "$folder" "$folder"/*; do
			[ -e "$file" ] || continue
			# shellcheck disable=SC2012
			[ "$(ls -dn "$file" | awk '{print $3}')" = "$id" ] || chown "$user" "$file"
		done
	done
}

# copy FROM TO replaces a file as a whole. A database that is written meanwhile is copied again.
copy() {
	local try
	for try in 1 2 3; do
		cp -p "$1" "$2.new" || break
		cmp -s "$1" "$2.new" && mv "$2.new" "$2" && return 0
	done
	rm -f "$2.new"
	echo "skywire: $1 was not copied to $2 (try $try)" >&2
	return 1
}

# in_memory FILE is whether option ram keeps it in memory. What the vpn, viscript and the messenger keep is in flash at all times.
in_memory() {
	[ -f "$1" ] || return 1
	case "${1##*/}" in
	vpn-* | messenger* | viscript.json | join | *.new) return 1 ;;
	esac
}

# fetch_state FLASH MEMORY is before the first start since boot. The key is made in flash: there is no second chance to keep it.
fetch_state() {
	local file
	"$BIN/skywire" node id --state "$1" --run "$RUN" >/dev/null || return
	[ ! -d "$2" ] || return 0
	mkdir -p "$2" && chmod 0700 "$2" || return
	for file in "$1"/*; do
		in_memory "$file" && copy "$file" "$2/${file##*/}"
	done
	return 0
}

# save_state MEMORY FLASH makes FLASH the same where it differs, and writes nothing else: flash wears out.
save_state() {
	local file bad=0
	for file in "$1"/*; do
		in_memory "$file" || continue
		cmp -s "$file" "$2/${file##*/}" || copy "$file" "$2/${file##*/}" || bad=1
	done
	for file in "$2"/*.json; do # of a cluster that was left
		in_memory "$file" && [ ! -e "$1/${file##*/}" ] && rm -f "$file"
	done
	return $bad
}

# await_end PIDFILE… waits for daemons that were told to end, at most 10 s.
await_end() {
	local file pid left=10
	for file in "$@"; do
		pid=$(cat "$file" 2>/dev/null) || continue
		while [ -d "/proc/$pid" ] && [ $left -gt 0 ]; do
			left=$((left - 1))
			sleep 1
		done
	done
}

# invited FLASH STATE makes the box a member by an invite that somebody left: skywire.node.join of UCI, or a file. It is cleared when the
# node has it.
invited() {
	local invite file
	config_get invite node join
	if [ -n "$invite" ] && hand_over "$invite" "$2"; then
		uci -q delete skywire.node.join
		uci -q commit skywire
	fi
	for file in "$1/join" /boot/skywire-join.txt; do
		[ -s "$file" ] || continue
		hand_over "$(head -n 1 "$file" | tr -d '\r')" "$2" && rm -f "$file"
	done
	return 0
}

# hand_over INVITE STATE gives an invite to the node, by stdin, for others see arguments. A node that does not run yet finds it in its
# state. One that runs goes on trying by itself; nobody waits for that here.
hand_over() {
	local said
	if said=$(printf '%s\n' "$1" | "$BIN/skywire" node join --state "$2" --run "$RUN" --wait 2s - 2>&1); then
		return 0
	fi
	case "$said" in
	*"goes on trying"*) return 0 ;;
	esac
	logger -t skywire -p daemon.err "invite not taken: $said"
	return 1
}
