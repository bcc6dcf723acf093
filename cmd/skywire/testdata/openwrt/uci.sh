#!/bin/sh
# Stands in for uci of OpenWrt: settings are the lines PACKAGE.SECTION.OPTION=VALUE of $UCI_DB. It knows what the scripts here use.

one() {
	local word=$1 key value
	shift
	key=${1%%=*}
	value=$(printf '%s' "${1#*=}" | sed "s/^'\(.*\)'$/\1/")
	case "$word" in
	set)
		grep -vF "$key=" "$UCI_DB" >"$UCI_DB.new"
		mv "$UCI_DB.new" "$UCI_DB"
		echo "$key=$value" >>"$UCI_DB"
		;;
	add_list) echo "$key=$value" >>"$UCI_DB" ;;
	del_list)
		grep -vxF "$key=$value" "$UCI_DB" >"$UCI_DB.new"
		mv "$UCI_DB.new" "$UCI_DB"
		;;
	delete)
		awk -v k="$key" 'index($0, k "=") != 1 && index($0, k ".") != 1' "$UCI_DB" >"$UCI_DB.new"
		mv "$UCI_DB.new" "$UCI_DB"
		;;
	get) awk -v k="$key" 'index($0, k "=") == 1 { print substr($0, length(k) + 2); ok = 1 } END { exit !ok }' "$UCI_DB" ;;
	commit) echo "commit $key" >>"$UCI_DB.log" ;;
	*)
		echo "uci.sh does not know $word" >&2
		exit 9
		;;
	esac
}

touch "$UCI_DB"
[ "$1" != -q ] || shift
if [ "$1" = batch ]; then
	while read -r word rest; do
		[ -z "$word" ] || one "$word" "$rest"
	done
else
	one "$@"
fi
