# Runs as the last service of a Debian that has just booted with the package installed, and prints what it sees as "name: value".
exec >/probe.log 2>&1
trap 'systemctl --no-block poweroff' EXIT
say() { echo "$1: $2"; }

say booted "$(systemctl is-active skywire-node)"
say user "$(stat -c %U /proc/$(systemctl show -P MainPID skywire-node)/)"
say state "$(stat -c '%U %a' /var/lib/skywire)"
say caps "$(awk '/^CapEff/ {print $2}' /proc/$(systemctl show -P MainPID skywire-node)/status)"
say status "$(skywire node status --json | grep -c '"ready": true')"
systemctl start skywire-vpn
say vpn "$(systemctl is-active skywire-vpn)"
say device "$(ip -6 -o addr show dev skywire0 scope global | awk '{print $4}')"

# A second box, on the other end of a wire, and a flow of pings between the two over an upgrade.
ip link add up0 type veth peer name up1
ip netns add other && ip link set up1 netns other
ip addr add 10.9.9.1/24 dev up0 && ip link set up0 up
ip -n other addr add 10.9.9.2/24 dev up1 && ip -n other link set up1 up
key=$(skywire node id)
export SKYWIRE_STATE=/other/state SKYWIRE_RUN=/other/run SKYWIRE_CONFIG=/dev/null
mkdir -p /other
other=$(skywire node id)
sed -i "s/^  allow: .*/  allow: [$other]/" /etc/skywire/config.yaml
systemctl restart skywire-node
ip netns exec other skywire node run --listen udp://0.0.0.0:7668 --peer "$key@10.9.9.1:7667" >/other.log 2>&1 &
run() { SKYWIRE_STATE=/other/state SKYWIRE_RUN=/other/run skywire "$@"; }
for i in $(seq 100); do run node ping -c 1 "$key" >/dev/null 2>&1 && break; sleep 0.1; done
say linked "$(run node peers --json | grep -c '"state": "up"')"
run node ping -c 80 -i 0.05 --json "$key" >/ping.json 2>/dev/null &
ping=$!
sleep 1
before=$(systemctl show -P MainPID skywire-node)
dpkg -i /new.deb >/dpkg.log 2>&1
say upgraded "$? $(dpkg-query -W -f '${Version} ${Status}' skywire)"
wait $ping
say restarted "$([ "$before" != "$(systemctl show -P MainPID skywire-node)" ] && echo yes)"
say config "$(grep -c "$other" /etc/skywire/config.yaml)"
say answered "$(awk -F'[:,]' '/"received"/ {print $2}' /ping.json)"
say asked "$(awk -F'[:,]' '/"sent"/ {print $2}' /ping.json)"
for i in $(seq 100); do [ "$(systemctl is-active skywire-vpn)" = active ] && ip link show skywire0 >/dev/null 2>&1 && break; sleep 0.1; done
say vpn-after "$(systemctl is-active skywire-vpn)"
kill %1 2>/dev/null

systemctl stop skywire-node skywire-vpn
unset SKYWIRE_STATE SKYWIRE_RUN SKYWIRE_CONFIG
systemctl start viscript && sleep 1
say viscript "$(systemctl is-active viscript)"
say apps "$(viscript ps --json | grep -c '"state": "ready"')"

dpkg -r skywire >/dev/null 2>&1
say removed "$? $(pgrep -c -f 'skywire-|viscript')"
say kept "$(ls /var/lib/skywire | tr '\n' ' ')"
dpkg -P skywire >/dev/null 2>&1
say purged "$?"
say failed "$(systemctl --failed --no-legend | grep -c skywire)"
