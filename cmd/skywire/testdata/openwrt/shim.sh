# Stands in for rc.common, functions.sh and procd.sh of OpenWrt: enough to run an init script and to see what it asks for. A file of
# UCI is, but for its quotes, a list of commands; so it is read by running it.
# Usage: busybox sh shim.sh SCRIPT ACTION, with UCI_DIR and ROOT set.

reset_cb() {
	config_cb() { return 0; }
	option_cb() { return 0; }
	list_cb() { return 0; }
}
reset_cb

config() {
	cfg_type=$1 cfg_name=$2
	config_cb "$1" "$2"
}
option() {
	eval "CONFIG_${cfg_name}_$1=\$2"
	option_cb "$1" "$2"
}
list() { list_cb "$1" "$2"; }
config_load() { . "$UCI_DIR/$1"; }
config_get() {
	eval "$1=\${CONFIG_$2_$3:-\$4}"
}
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1|on|true|yes|enabled) $1=1 ;; *) $1=0 ;; esac"
}

procd_open_instance() { echo "instance $1"; }
procd_set_param() {
	echo "  $(echo "$*" | sed "s|$ROOT||g")"
}
procd_close_instance() { :; }
procd_add_reload_trigger() { echo "trigger $1"; }
uci() { return 1; }

mkdir() { command mkdir "$@"; }
script=$ROOT/script
sed -e 1d -e "s| /usr/share/skywire| $SHARE|" -e "s|=/var/run|=$ROOT/var/run|" -e "s|/etc/skywire|$ROOT/etc/skywire|" "$1" >"$script"
. "$script"
case "$2" in
start) start_service ;;
triggers) service_triggers ;;
esac
