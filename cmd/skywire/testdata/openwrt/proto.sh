# Stands in for what netifd gives its protocol handlers: options come from the environment (OPTION_name), calls are printed.
# Usage: busybox sh proto.sh SCRIPT dump|setup|teardown INTERFACE, with PROGRAMS and SYS set.
# shellcheck shell=ash disable=SC1090,SC2034

proto_config_add_array() { echo "array $1"; }
proto_config_add_boolean() { echo "boolean $1"; }
proto_config_add_int() { echo "int $1"; }
proto_config_add_string() { echo "string $1"; }
json_get_vars() {
	local name
	for name in "$@"; do eval "$name=\$OPTION_$name"; done
}
json_get_values() { eval "$1=\$OPTION_$2"; }
proto_notify_error() { echo "error $2"; }
proto_block_restart() { echo "blocked"; }
proto_run_command() {
	shift
	echo "run $*" | sed "s|$PROGRAMS|/usr/bin|g"
}
proto_kill_command() { echo "kill $1"; }
proto_init_update() { echo "update $*"; }
proto_add_ipv6_address() { echo "address $*"; }
proto_send_update() { echo "send $1"; }
logger() { echo "log $*"; }
sleep() { :; }
jsonfilter() { sed -n 's/.*"address": *"\([^"]*\)".*/\1/p'; }

INCLUDE_ONLY=1
eval "$(sed -e "s|^BIN=.*|BIN=$PROGRAMS|" -e "s|/sys/class/net|$SYS|" "$1")"
case "$2" in
dump) proto_skywire_init_config ;;
*) "proto_skywire_$2" "$3" ;;
esac
