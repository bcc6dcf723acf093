# sysupgrade packs /etc/skywire: what is in memory (option ram) has to be there first.
# shellcheck shell=ash disable=SC2034

skywire_save() { /etc/init.d/skywire save >/dev/null 2>&1; }

sysupgrade_init_conffiles="skywire_save $sysupgrade_init_conffiles"
