#!/bin/sh
# The vpn as a protocol of netifd: a section interface of /etc/config/network with option proto 'skywire' is its device. The node is
# the service skywire's, and has to be enabled there; skywire.vpn must not be, for one process owns the vpn of a box.
#
#	config interface 'mesh'
#		option proto 'skywire'
#		list servers 'KEY'	# exits, in order; none: mesh addresses alone
#		option exit '1'		# all traffic
#		option kill_switch '1'
#		option mtu '1280'

# shellcheck source=/dev/null
[ -n "$INCLUDE_ONLY" ] || {
	. /lib/functions.sh
	. ../netifd-proto.sh
	init_proto "$@"
}

BIN=/usr/bin
RUN=/var/run/skywire

proto_skywire_init_config() {
	# shellcheck disable=SC2034
	no_device=1
	# shellcheck disable=SC2034
	available=1
	proto_config_add_array 'servers:list(string)'
	proto_config_add_boolean exit
	proto_config_add_boolean kill_switch
	proto_config_add_int mtu
	proto_config_add_string dns
}

# give_up INTERFACE CODE says why, and that trying again is of no use until somebody changes the settings. Without that netifd tries
# ten times a second.
give_up() {
	logger -t skywire -p daemon.err "interface $1: $3"
	proto_notify_error "$1" "$2"
	proto_block_restart "$1"
}

# words INTERFACE sets the arguments of the vpn from the options; it fails if they contradict each other.
words() {
	local server
	set -- up --dev "$1"
	if [ -n "$servers" ]; then
		shift
		set -- client "$@"
		for server in $servers; do
			case "$server" in
			-*) return 1 ;;
			esac
			set -- "$@" --server "$server"
		done
	fi
	[ "$exit" != 1 ] || {
		[ -n "$servers" ] || return 1
		set -- "$@" --exit
	}
	[ "$kill_switch" != 1 ] || {
		[ "$exit" = 1 ] || return 1
		set -- "$@" --kill-switch
	}
	[ -z "$mtu" ] || set -- "$@" --mtu "$mtu"
	[ -z "$dns" ] || set -- "$@" --dns "$dns"
	arguments=$*
}

proto_skywire_setup() {
	local config=$1 servers exit kill_switch mtu dns arguments address tries=30

	json_get_values servers servers
	json_get_vars exit kill_switch mtu dns
	if ! "$BIN/skywire" node status --run "$RUN" >/dev/null 2>&1; then
		logger -t skywire -p daemon.warn "interface $config waits for the node (uci set skywire.globals.enabled=1)"
		sleep 5
		proto_notify_error "$config" NO_NODE
		return 1
	fi
	if ! words "$config"; then
		give_up "$config" BAD_CONFIG "exit needs servers, kill_switch needs exit, a server is a key or a name"
		return 1
	fi
	# shellcheck disable=SC2086 # nothing in it has blanks
	proto_run_command "$config" "$BIN/skywire-vpn" $arguments --run "$RUN"
	# The vpn makes the device and gives it its address itself: to netifd they are somebody else's, as those of ppp.
	while [ ! -e "/sys/class/net/$config" ]; do
		[ $((tries -= 1)) -gt 0 ] || {
			proto_notify_error "$config" NO_DEVICE
			return 1
		}
		sleep 1
	done
	address=$("$BIN/skywire" node id --json --run "$RUN" | jsonfilter -e '@.address')
	proto_init_update "$config" 1 1
	[ -z "$address" ] || proto_add_ipv6_address "$address" 128
	proto_send_update "$config"
}

proto_skywire_teardown() {
	proto_kill_command "$1"
}

[ -n "$INCLUDE_ONLY" ] || add_protocol skywire
