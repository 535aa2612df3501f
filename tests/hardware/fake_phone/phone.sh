#!/usr/bin/env bash
# A phone: Debian's adbd in a network of its own, and an adb server that answers on a Unix socket outside of it.
# While FOLDER/plugged exists the daemon runs, and is started again when it dies. Ends when FOLDER/adb.sock.stop is
# there or the parent is gone.
# FOLDER/small is a disk with 40 MB, seen from the phone only.
#   usage: unshare -rnm phone.sh ADBD_ROOT ADB FOLDER PATH_OF_STAND_INS
set -euo pipefail
root=$1 adb=$2 folder=$3 stand_ins=$4
ip link set lo up
cd "$folder"
exec 2> phone.log
mkdir small && mount -t tmpfs -o size=40m none small
export HOME=$folder ANDROID_USER_HOME=$folder ADB_MDNS=0 FAKE_PHONE=$folder
parent=$PPID
port=6555
"$adb" -L "localfilesystem:$folder/adb.sock" server nodaemon > server.log 2>&1 &
server=$!
adbd=
stop() {
  kill $server $adbd 2> /dev/null || true
  exit 0
}
trap stop TERM INT
libraries=$(dirname "$(find "$root" -name libbase.so.0)"):$(dirname "$(find "$root" -name 'libprotobuf.so.32')")
while kill -0 "$parent" 2> /dev/null; do
  if [ -e plugged ] && ! { [ -n "$adbd" ] && kill -0 "$adbd" 2> /dev/null; }; then
    # The daemon's children get a plain environment with the stand-ins in front, as a phone's programs would be.
    PATH=$stand_ins:$PATH ADBD_PORT=$port LD_LIBRARY_PATH=$libraries \
      "$root/usr/lib/android-sdk/platform-tools/adbd" > adbd.log 2>&1 &
    adbd=$!
    echo "$adbd" > adbd.pid
  elif [ ! -e plugged ] && [ -n "$adbd" ]; then
    kill -9 "$adbd" 2> /dev/null || true
    adbd=
  fi
  sleep 0.05
done
stop
