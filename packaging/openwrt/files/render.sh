#!/bin/sh
# Prints config.yaml as /etc/config/skywire says. It needs functions.sh of OpenWrt, which calls what block defines.
# shellcheck disable=SC2317

# What UCI writes as 1 and YAML as true.
booleans=" open plain no_punch no_lan no_port_mapping exit allow_private client_to_client closed no_nat stay kill_switch"
booleans="$booleans lan optimistic no_udp proxy_header no_vpn approve autostart daemon ram"
booleans="$booleans discreet keep_for_contacts "
# What is for the init script alone.
ours=" enabled join "

# scalar KEY VALUE prints a value as YAML: numbers and truths bare, all else in quotes.
scalar() {
	case "$booleans" in
	*" $1 "*)
		case "$2" in
		1 | on | true | yes | enabled) echo true ;;
		*) echo false ;;
		esac
		return
		;;
	esac
	case "$2" in
	'' | *[!0-9]*) printf "'%s'\n" "$(printf %s "$2" | sed "s/'/''/g")" ;;
	*) echo "$2" ;;
	esac
}

# wanted SECTION is whether it is not switched off. Its options are those of an earlier config_load.
wanted() {
	local enabled
	config_get_bool enabled "$1" enabled 1
	[ "$enabled" -eq 1 ]
}

# block TYPE INDENT NAME prints the sections of one type below NAME.
block() {
	want=$1 indent=$2 head=$3 on='' list='' begun=''
	config_cb() {
		on='' list=''
		[ "$1" = "$want" ] && wanted "$2" && on=1
		return 0
	}
	begin() {
		[ -n "$begun" ] || echo "$indent$head:"
		begun=1
	}
	option_cb() {
		[ -n "$on" ] || return 0
		case "$ours" in *" $1 "*) return 0 ;; esac
		begin
		list=''
		echo "$indent  $1: $(scalar "$1" "$2")"
	}
	list_cb() {
		[ -n "$on" ] || return 0
		begin
		[ "$list" = "$1" ] || echo "$indent  $1:"
		list=$1
		echo "$indent    - $(scalar "$1" "$2")"
	}
	config_load skywire
	reset_cb
}

# under NAME TYPE… prints blocks below a common head, if there are any.
under() {
	name=$1
	shift
	text=$(for type in "$@"; do block "$type" '  ' "${type#"${name}"_}"; done)
	own=$(block "$name" '' "$name")
	[ -n "$own$text" ] || return 0
	echo "${own:-$name:}"
	[ -z "$text" ] || echo "$text"
}

# apps prints what viscript may start: each section app, by its name.
apps() {
	local on='' list='' begun=''
	config_cb() {
		on='' list=''
		[ "$1" = app ] && wanted "$2" || return 0
		on=1
		[ -n "$begun" ] || echo "apps:"
		begun=1
		echo "  $2:"
	}
	option_cb() {
		list=''
		case "$ours" in *" $1 "*) return 0 ;; esac
		[ -z "$on" ] || echo "    $1: $(scalar "$1" "$2")"
	}
	list_cb() {
		[ -n "$on" ] || return 0
		[ "$list" = "$1" ] || echo "    $1:"
		list=$1
		echo "      - $(scalar "" "$2")"
	}
	config_load skywire
	reset_cb
}

# render FOLDER prints all of config.yaml, and writes to FOLDER what of it each instance of procd reads: it alone is started again when
# that changes.
render() {
	local part
	echo "# Made from /etc/config/skywire by /etc/init.d/skywire: changes here are lost."
	block node '' node | tee "$1/node"
	block manager '' manager | tee "$1/manager"
	under vpn vpn_server vpn_client | tee "$1/vpn"
	for part in socks_server socks_client socks_publish socks_forward; do
		block "$part" '' "$part" >"$1/$part"
	done
	under socks socks_server socks_client socks_publish socks_forward
	block messenger '' messenger | tee "$1/messenger"
	apps | tee "$1/viscript"
}
