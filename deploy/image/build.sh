#!/bin/sh
# Build the image, start it as it will run, and ask it how it does.
#
#   deploy/image/build.sh [TARGET]        terrace (the default), inference or flower
#
# Takes docker where it is; else buildah with chroot isolation, which needs root but neither a daemon nor namespaces.
# BASE names the image to start from. Without one, buildah starts from a Debian made by debootstrap, so that no registry
# is needed. FLAGS go to the build, such as buildah's
# `--volume /etc/ssl/certs:/etc/ssl/certs:ro` behind a proxy of one's own.
set -eu
cd "$(dirname "$0")/../.."

target=${1:-terrace}
case $target in terrace) image=terrace ;; inference | flower) image=terrace-$target ;;
*) echo "There is no target $target: terrace, inference or flower." >&2; exit 2 ;; esac

base() {
    command -v debootstrap >/dev/null || { echo "Name a BASE image, or install debootstrap." >&2; exit 1; }
    root=${ROOT:-$(mktemp -d)}
    [ -x "$root/usr/bin/python3" ] ||
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
    made=$(buildah from scratch)
    buildah add -q "$made" "$root" / >/dev/null
    buildah run "$made" -- sh -c \
        'rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/*'
    buildah commit -q --rm "$made" "$BASE" >/dev/null
    [ -n "${ROOT:-}" ] || rm -rf "$root"
}

if [ -z "${ENGINE:-}" ]; then
    ENGINE=$(command -v buildah >/dev/null && echo buildah || echo none)
    docker info >/dev/null 2>&1 && ENGINE=docker  # its command may be here without its daemon
fi
case $ENGINE in
docker)
    docker build ${BASE:+--build-arg BASE="$BASE"} ${FLAGS:-} --target "$target" -t "$image" .
    ;;
buildah)
    export BUILDAH_ISOLATION=chroot STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
    if [ -z "${BASE:-}" ]; then
        BASE=localhost/terrace-base
        buildah inspect --type image "$BASE" >/dev/null 2>&1 || base
    fi
    buildah build --layers --build-arg BASE="$BASE" ${FLAGS:-} --target "$target" -t "$image" .
    ;;
*) echo "Neither a running docker nor buildah is here (Debian: apt-get install buildah debootstrap)." >&2; exit 1 ;;
esac
echo "Built $image."

# As it will run: nobody in particular, and no file but those in /data and /tmp to write to.
port=${PORT:-18431}
given="TERRACE_PORT=$port TERRACE_INFERENCE__KEY=only-for-this-one-look"
if [ "$ENGINE" = docker ]; then
    settings=$(for each in $given; do echo "-e $each"; done)
    container=$(docker run -d --read-only --cap-drop ALL --tmpfs /tmp --tmpfs /data:uid=10001,gid=10001,mode=0700 \
        --network host $settings "$image")
    trap 'docker rm -f "$container" >/dev/null' EXIT
    inside() { docker exec "$container" "$@"; }
else
    container=$(buildah from "$image")
    settings=$(for each in $given; do echo "--env $each"; done)
    inside() { buildah run --user 10001:10001 $settings "$container" -- "$@"; }
    stop() { inside sh -c 'kill "$(cat /tmp/terrace.pid)"' && wait || true; }  # in the container; buildah passes no signals on
    running=
    trap '[ -z "$running" ] || stop; buildah rm "$container" >/dev/null' EXIT
fi
if [ "$target" = flower ]; then
    inside celery --version
    exit
fi
writable=$(inside find / -xdev -writable -not -type l -not -path "/proc/*" -not -path "/dev/*" -not -path "/sys/*" \
    -not -path "/data*" -not -path "/tmp*" -not -path "/var/tmp*" -not -path "/run/*" -not -path "/var/lock" 2>/dev/null | head -5)
[ -z "$writable" ] || { echo "It can write where it should not:" $writable >&2; exit 1; }
if [ "$ENGINE" = buildah ]; then
    inside sh -c 'echo $$ >/tmp/terrace.pid; exec terrace serve' &
    running=yes
fi
for _ in $(seq 120); do
    if python3 -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:$port/health', timeout=2).read().decode())" \
        2>/dev/null; then
        echo "It starts and says that it is healthy."
        exit
    fi
    sleep 0.5
done
echo "It did not answer." >&2
exit 1
