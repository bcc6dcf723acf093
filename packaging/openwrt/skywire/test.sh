#!/bin/sh
# Run by the feed's checks: $1 is the package, $2 its version.

case "$1" in
skywire | skywire-mini)
	skywire --version | grep "$2" || exit 1
	skywire --list | grep '^node$' || exit 1
	skywire-node id --state /tmp/skywire-test | grep '^[a-z2-7]\{52\}' || exit 1
	;;
skywire-proto)
	sh -n /lib/netifd/proto/skywire.sh
	;;
esac
