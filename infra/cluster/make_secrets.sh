#!/bin/sh
# Makes the file of secrets that compose.yaml reads, infra/cluster/.env: env.example with a random value for each secret.
# Nobody but its owner may read it. One that is there stays: the database keeps the passwords it was made with.
set -eu
folder=$(dirname "$0")
file=$folder/.env
[ ! -e "$file" ] || { echo "$file: is there already; it goes with the volumes: docker compose down --volumes" >&2; exit 2; }
umask 077
while IFS= read -r line; do
  case $line in
  [A-Z]*=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
  esac
  printf '%s\n' "$line"
done <"$folder/env.example" >"$file.part"
mv "$file.part" "$file"
echo "$file"
