#!/bin/sh
# Before the package is removed: opens the kill switch, for nobody will be there to do it, and takes back what uci-defaults made. Keys
# and settings stay.

state=$(uci -q get skywire.globals.state)
/usr/bin/skywire vpn release --state "${state:-/etc/skywire}" --run /var/run/skywire
for section in skywire skywire_lan skywire_ping skywire_port; do
	uci -q delete "firewall.$section"
done
uci -q del_list dhcp.@dnsmasq[0].server='/mesh/127.83.87.53'
uci -q del_list dhcp.@dnsmasq[0].rebind_domain='/mesh/'
uci -q commit firewall
uci -q commit dhcp
/etc/init.d/firewall reload
/etc/init.d/dnsmasq reload
exit 0
