# Stands in for rc.common, functions.sh, procd.sh and uci of OpenWrt, in our own words: enough to run an init script and to see what it
# asks for. A file of UCI is, but for its quotes, a list of commands; so it is read by running it.
# Usage: busybox sh shim.sh SCRIPT ACTION. ROOT is where files go, UCI_DIR holds UCI's, SHARE what the package has in its share folder,
# PROGRAMS what it has in /usr/bin. With RUN_FOR_REAL instances are started, those with a user as RUN_AS, else they are printed.
# shellcheck shell=ash disable=SC2034,SC1090,SC2086,SC2091

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

short() { echo "$*" | sed -e "s|$PROGRAMS|/usr/bin|g" -e "s|$SHARE|/usr/share/skywire|g" -e "s|$ROOT||g"; }

if [ -n "$RUN_FOR_REAL" ]; then
	procd_open_instance() { p_name=$1 p_user='' p_words='' p_vars='' p_pid='' p_files='' p_signal=''; }
	procd_set_param() {
		local kind=$1
		shift
		case "$kind" in
		command) p_words=$* ;;
		env) p_vars=$* ;;
		user) p_user=$1 ;;
		pidfile) p_pid=$1 ;;
		file) p_files=$* ;;
		reload_signal) p_signal=$1 ;;
		esac
	}
	# What changed is started again at once, or gets its signal; what ends by itself is started after two seconds: as procd does. No
	# word here has blanks in it.
	procd_close_instance() {
		local sum
		sum=$(echo "$p_words $p_vars $p_user" | cat - $p_files 2>/dev/null | md5sum)
		echo "env $p_vars setsid ${p_user:+/usr/bin/setpriv --reuid $RUN_AS --regid $RUN_AS --clear-groups --no-new-privs --inh-caps=-all} $p_words" >"$p_pid.command"
		if [ -e "$p_pid.keeper" ]; then
			[ "$(cat "$p_pid.sum")" != "$sum" ] || return 0
			echo "$sum" >"$p_pid.sum"
			[ -n "$p_signal" ] || : >"$p_pid.again"
			kill ${p_signal:+-"$p_signal"} "$(cat "$p_pid")"
			return 0
		fi
		echo "$sum" >"$p_pid.sum"
		keeper "$p_pid" >>"$ROOT/$p_name.log" 2>&1 </dev/null &
		echo $! >"$p_pid.keeper"
	}
	keeper() {
		while [ ! -e "$1.stop" ]; do
			$(cat "$1.command") &
			echo $! >"$1"
			wait $!
			[ -e "$1.again" ] || [ -e "$1.stop" ] || sleep 2
			rm -f "$1.again"
		done
		rm -f "$1" "$1".[!k]*
		rm -f "$1.keeper" # the last: who waits for it finds nothing else
	}
	id() { echo "$RUN_AS"; }
	chown() { command chown "$(echo "$1" | sed "s/skywire/$RUN_AS/")" "$2"; }
else
	procd_open_instance() { echo "instance $1"; }
	procd_set_param() { echo "  $(short "$@")"; }
	procd_close_instance() { :; }
	id() { command id -u; }
	chown() { :; }
fi
procd_add_reload_trigger() { echo "trigger $1"; }
procd_add_raw_trigger() { echo "trigger $*"; }
logger() { echo "log $*"; }
# uci knows delete PACKAGE.SECTION.OPTION, by the line that says it, and commit.
uci() {
	[ "$1" != -q ] || shift
	case "$1" in
	delete) sed -i "/^	option ${2##*.} /d" "$UCI_DIR/${2%%.*}" ;;
	commit) echo "$2" >>"$ROOT/committed" ;;
	*) return 1 ;;
	esac
}

# end_all ends what was started here and waits for it, as procd does: what still runs would write into folders that are being removed.
end_all() {
	local file rounds=0 signal=TERM
	for file in "$PIDS"/skywire-*.pid; do
		[ ! -e "$file.keeper" ] || : >"$file.stop"
	done
	while kept=$(cat "$PIDS"/skywire-*.keeper 2>/dev/null); do
		rounds=$((rounds + 1))
		[ $rounds -lt 300 ] || signal=KILL
		[ $rounds -lt 400 ] || { echo "still there, kept by" $kept; return 1; }
		# Again and again: one that is just being started has no pid in its file.
		for file in "$PIDS"/skywire-*.pid; do
			[ $((rounds % 20)) != 1 ] || kill -$signal "$(cat "$file")" 2>/dev/null
		done
		sleep 0.1
	done
	service_stopped
}

script=$ROOT/script
# The folders of the box, below ROOT.
moved() {
	sed -e "s|/var/|@/|g" -e "s|/etc/skywire|$ROOT/etc/skywire|g" -e "s|@$ROOT|@|g" -e "s|@/|$ROOT/var/|g" -e "s|/boot/|$ROOT/boot/|g" \
		-e "s|^BIN=.*|BIN=$PROGRAMS|" -e "s|^SHARE=.*|SHARE=$ROOT/share|" "$1"
}
command mkdir -p "$ROOT/share"
for part in "$SHARE"/*.sh; do moved "$part" >"$ROOT/share/${part##*/}"; done
chmod +x "$ROOT"/share/*.sh
moved "$1" | sed 1d >"$script"
SHARE=$ROOT/share
. "$script"
case "$2" in
start) start_service ;;
stopped) service_stopped ;;
restart) end_all && start_service ;;
triggers) service_triggers ;;
*) "$2" ;;
esac
