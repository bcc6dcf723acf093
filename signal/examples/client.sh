#!/bin/sh
# An app of viscript in a Bourne shell: joins by the inherited descriptor, serves, answers ping, ru and shutdown.
# See ../SPEC.md. It takes requests apart with sed, which is enough for what viscript asks.
fd=$SIGNAL_FD
case $fd in
[3-9]) ;;
*) echo "not started by viscript, or without SIGNAL_FD" >&2; exit 1 ;;
esac
eval "exec 9<&$fd 8>&$fd"
[ "$fd" = 9 ] || [ "$fd" = 8 ] || eval "exec $fd<&-"
unset SIGNAL_FD SIGNAL_CLIENT SIGNAL_CLIENT_ID SIGNAL_SERVER_ADDRESS SIGNAL_TOKEN

say() { printf '%s\n' "$1" >&8; }

# Prints the member $2 of the line $1 as it is written: a number, or a string with its quotes.
member() {
    printf '%s\n' "$1" | sed -n 's/.*"'"$2"'"[ ]*:[ ]*\("[^"]*"\|-\{0,1\}[0-9.]\{1,\}\).*/\1/p'
}

say '{"jsonrpc":"2.0","id":1,"method":"hello","params":{"proto":[1],"name":"client.sh","pid":'$$'}}'
while IFS= read -r line <&9; do
    top=$line # less what is inside params or result, which may stand anywhere
    for part in params result; do
        # shellcheck disable=SC2295 # neither word is a pattern
        case $top in
        *\"$part\"*) rest=${top%\}*}; top="${top%%\"$part\"*} ${rest##*\}}" ;;
        esac
    done
    method=$(member "$top" method)
    id=$(member "$top" id)
    case $method:$id in
    :1)
        say '{"jsonrpc":"2.0","method":"status","params":{"text":"hello from sh"}}'
        say '{"jsonrpc":"2.0","method":"ready","params":{}}'
        ;;
    :* | *:) ;; # another answer, or a notification
    '"ping":'*) say '{"jsonrpc":"2.0","id":'"$id"',"result":{"pid":'$$'}}' ;;
    '"ru":'*) say '{"jsonrpc":"2.0","id":'"$id"',"result":{"shell":1}}' ;;
    '"shutdown":'*)
        say '{"jsonrpc":"2.0","id":'"$id"',"result":{"pid":'$$'}}'
        exit 0
        ;;
    *) say '{"jsonrpc":"2.0","id":'"$id"',"error":{"code":-32601,"name":"unknown_method","message":"unknown method"}}' ;;
    esac
done
# Without viscript the app goes on with its work. (To join again it would need a program that connects, such as socat.)
while :; do sleep 3600; done
