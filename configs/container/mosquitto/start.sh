#!/bin/sh
# Hashes the passwords of secrets/ and starts mosquitto. It wants files of its own user that others cannot read.
set -eu
umask 077
: > /tmp/passwords
for user in visaged:mqtt_password reader:mqtt_reader_password; do
    printf '%s:%s\n' "${user%%:*}" "$(head -n 1 "/run/secrets/${user#*:}")" >> /tmp/passwords
done
mosquitto_passwd -U /tmp/passwords
cp /mosquitto/config/access.conf /tmp/access
exec mosquitto -c /mosquitto/config/mosquitto.conf
