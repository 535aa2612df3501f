#!/usr/bin/env bash
# Fetches Debian's adb daemon (and, with --arm64, what runs arm64 programs) and unpacks it; nothing is installed.
# With --arm64 also ONNX Runtime's wheel for arm64.
# Installing the package would start an open root shell on all interfaces. Needs apt and a Debian mirror, not root.
#   usage: fetch.sh FOLDER [--arm64]
set -euo pipefail
folder=$1
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/debs"
folder=$(cd "$folder" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$')
for suite in bookworm bookworm-backports trixie; do
  echo "deb [signed-by=$keyring] $mirror $suite main"
done > "$folder/apt/sources.list"
cat > "$folder/apt/apt.conf" <<CONF
Dir::State "$folder/apt";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "";
CONF
export APT_CONFIG="$folder/apt/apt.conf"
apt-get -qq update

unpack() { # unpack ROOT PACKAGE…
  local root=$folder/$1
  shift
  rm -rf "$folder/debs" "$root.part" && mkdir -p "$folder/debs" "$root.part"
  (cd "$folder/debs" && apt-get -qq download "$@")
  for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$root.part"; done
  rm -rf "$root" && mv "$root.part" "$root"
}

backports=bookworm-backports
unpack adbd adbd/$backports android-liblog/$backports android-libbase/$backports \
  android-libboringssl/$backports android-libcutils/$backports libprotobuf32/bookworm
if [ "${2:-}" = --arm64 ]; then
  unpack qemu qemu-user/trixie  # bookworm's crashes in ONNX Runtime
  unpack arm64 libc6:arm64/trixie libstdc++6:arm64/trixie libgcc-s1:arm64/trixie
  ${PYTHON:-python3} -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --dest "$folder/debs" onnxruntime
  unzip -q -j "$folder"/debs/onnxruntime-*.whl 'onnxruntime/capi/libonnxruntime.so.*' -d "$folder/arm64"
  [ -e "$folder/arm64/lib" ] || ln -s usr/lib "$folder/arm64/lib"
fi
rm -rf "$folder/apt" "$folder/debs"
