#!/usr/bin/env bash
# Unpack Debian 13's LAMMPS, its MPI and its compiler into a folder: debian_lammps.sh FOLDER (300 MB from Debian's servers).
# Needs apt and dpkg, and no root: nothing is installed. tests/engines/test_debian_lammps.py runs programs in there.
set -euo pipefail
mkdir -p "$1"
root=$(realpath "$1")
[ -e "$root/complete" ] && exit
apt=$root/var/apt
mkdir -p "$apt"/{lists/partial,archives/partial}
touch "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<END
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Install-Recommends "0";
APT::Sandbox::User "root";
Debug::NoLocking "1";
END
export APT_CONFIG=$apt/apt.conf
apt-get update -q
apt-get install -qy --download-only lammps liblammps-dev g++ dash bash coreutils
for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$root"; done
rm "$apt"/archives/*.deb
# What the scripts of these packages do when they are installed.
cd "$root/usr"
ln -sf dash bin/sh
ln -sf g++ bin/c++
for name in mpicxx mpirun; do ln -sf $name.openmpi bin/$name; done
ln -sf blas/libblas.so.3 lapack/liblapack.so.3 lib/x86_64-linux-gnu/
touch "$root/complete"
