#!/bin/sh
# With option ram: writes the state to flash soon after the start, since the start is counted in it, and then once a day.

trap 'kill $! 2>/dev/null; exit 0' TERM INT
pause=20
while :; do
	sleep "$pause" &
	wait $!
	/etc/init.d/skywire save
	pause=86400
done
