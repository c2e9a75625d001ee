#!/bin/sh
# A module without any SDK: a shell script and the verbs of the one binary. The agent knows it by the socket it speaks through.
# It is the first process of its sandbox, and the kernel hands such a one no signal that it has not asked for.
trap 'exit 0' TERM
name=$IOTEDGE_MODULEID
piper=$SANDPIPER
field() { "$piper" twin --desired | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }

echo "$name is up"
sent=0 phase=one period=0.1 stop=
while [ "$stop" != true ]; do
  n=$((sent + 1))
  until "$piper" send --output telemetry --id "$name-$n" --content-type application/json --property "phase=$phase" \
    "{\"module\":\"$name\",\"n\":$n,\"phase\":\"$phase\"}"; do
    sleep 0.3
  done
  sent=$n
  if [ $((sent % 10)) = 0 ]; then
    new=$(field phase); [ -n "$new" ] && phase=$new
    stop=$(field stop)
  fi
  sleep $period
done
until "$piper" twin --report "{\"sent\":$sent,\"phase\":\"$phase\"}"; do sleep 0.5; done
echo "$name stopped after $sent messages"
while :; do sleep 3600 & wait $!; done
