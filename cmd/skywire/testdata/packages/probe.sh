# Runs as the last service of a Debian that has just booted with the package installed, and prints what it sees as "name: value".
exec >/probe.log 2>&1
trap 'systemctl --no-block poweroff' EXIT
say() { echo "$1: $2"; }

say booted "$(systemctl is-active skywire-node)"
# What lay on the boot partition has been used before the node began.
say first-boot "$(skywire node status --json | sed -n 's/^  "name": "\(.*\)",/\1/p') $(skywire node membership --json | grep -c "$(cat /cluster)") $(find /boot/firmware -name 'skywire*' | wc -l)"
skywire node leave
sleep 1
say left-cluster "$(skywire node membership --json | grep -c "$(cat /cluster)")"
say user "$(stat -c %U "/proc/$(systemctl show -P MainPID skywire-node)/")"
say state "$(stat -c '%U %a' /var/lib/skywire)"
say caps "$(awk '/^CapEff/ {print $2}' "/proc/$(systemctl show -P MainPID skywire-node)/status")"
say status "$(skywire node status --json | grep -c '"ready": true')"
[ ! -e /with-resolved ] || systemctl start dbus polkit systemd-resolved
systemctl start skywire-vpn
say vpn "$(systemctl is-active skywire-vpn)"
# What an exit must write is writable in the unit's view of /proc, too.
say forwarding "$(nsenter -m -t "$(systemctl show -P MainPID skywire-vpn)" sysctl -q -w net.ipv4.ip_forward=0 && echo writable)"
systemctl start skywire-messenger
say messenger "$(systemctl is-active skywire-messenger) $(skywire messenger status >/dev/null && echo answers)"
systemctl stop skywire-messenger
say device "$(ip -6 -o addr show dev skywire0 scope global | awk '{print $4}')"
if [ -e /with-resolved ]; then
  for _ in $(seq 50); do resolvectl domain skywire0 2>/dev/null | grep -q mesh && break; sleep 0.1; done
  skywire vpn status
  say names "$(resolvectl domain skywire0 | sed 's/.*: //') $(skywire vpn status | sed -n 's/.*by .* through \([a-z-]*\);.*/\1/p') $(resolvectl dns skywire0 | grep -c ':.*[0-9]')"
fi

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
for _ in $(seq 100); do run node ping -c 1 "$key" >/dev/null 2>&1 && break; sleep 0.1; done
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
for _ in $(seq 100); do [ "$(systemctl is-active skywire-vpn)" = active ] && ip link show skywire0 >/dev/null 2>&1 && break; sleep 0.1; done
say vpn-after "$(systemctl is-active skywire-vpn)"
kill %1 2>/dev/null

unset SKYWIRE_STATE SKYWIRE_RUN SKYWIRE_CONFIG
# skywire update in the place of the package, by force: a version whose daemons exit, and one that is the same.
platform=$(skywire update status --json | sed -n 's/.*"platform": "\(.*\)".*/\1/p')
version=$(skywire --version --json | sed -n 's/.*"version": "\(.*\)".*/\1/p')
key=$(skywire update keygen /release.key)
mkdir -p /bad /same
printf '#!/bin/sh\ncase "$*" in *--version*) echo "{\\"version\\": \\"99\\"}" ;; *) exit 1 ;; esac\n' >"/bad/skywire-$platform"
cp /usr/bin/skywire "/same/skywire-$platform"
skywire update sign /bad --key-file /release.key --version 99
skywire update sign /same --key-file /release.key --version "$version"
skywire update apply --from /bad --key "$key"
say update-packaged "$?"
skywire update apply --force --from /bad --key "$key" --gate 4s
say update-bad "$? $(skywire --version | grep -c "$version") $(systemctl is-active skywire-node)"
before=$(systemctl show -P MainPID skywire-node)
skywire update apply --force --from /same --key "$key" --gate 30s
say update-good "$? $([ "$before" != "$(systemctl show -P MainPID skywire-node)" ] && echo restarted) $(systemctl is-active skywire-vpn)"

# The units that install.sh brings, with the timer brought forward: it starts the service, and that takes what lies in a folder. By force,
# since the program is the package's.
cp /units/* /etc/systemd/system
mkdir -p /etc/systemd/system/skywire-update.timer.d /etc/systemd/system/skywire-update.service.d
printf '[Timer]\nOnCalendar=\nRandomizedDelaySec=0\nOnActiveSec=1s\nAccuracySec=100ms\n' >/etc/systemd/system/skywire-update.timer.d/soon.conf
printf '[Service]\nExecStart=\nExecStart=/usr/bin/skywire update apply --force\n' >/etc/systemd/system/skywire-update.service.d/force.conf
mv /newer /release && mv /release/skywire "/release/skywire-$platform"
skywire update sign /release --key-file /release.key --version 99.1.0
sed -i "s|^  keys: .*|  keys: [$key]|; s|^  from: .*|  from: /release|; s|^  gate: .*|  gate: 30s|" /etc/skywire/config.yaml
systemctl daemon-reload
systemctl start skywire-update.timer
for _ in $(seq 600); do [ "$(systemctl show -P ExecMainExitTimestampMonotonic skywire-update.service)" != 0 ] && break; sleep 0.1; done
say timer "$(systemctl show -P Result skywire-update.service) $(skywire update status --json | sed -n 's/.*"result": "\(.*\)".*/\1/p') $(skywire node status --json | sed -n 's/^  "version": "\(.*\)",*/\1/p') $(systemctl is-active skywire-vpn)"
systemctl status skywire-update.service --no-pager | tail -5
systemctl stop skywire-update.timer
rm -r /etc/systemd/system/skywire-update* /units /var/lib/systemd/timers/stamp-skywire-update.timer
systemctl daemon-reload
rm -r /bad /same /release /release.key

systemctl stop skywire-node skywire-vpn
systemctl start viscript && sleep 1
say viscript "$(systemctl is-active viscript)"
say apps "$(viscript ps --json | grep -c '"state": "ready"')"

dpkg -r skywire >/dev/null 2>&1
say removed "$? $(pgrep -c -f 'skywire-|viscript')"
say kept "$(cd /var/lib/skywire && echo *)"
dpkg -P skywire >/dev/null 2>&1
say purged "$?"
say failed "$(systemctl --failed --no-legend | grep -c skywire)"
