#!/usr/bin/env bash
# Makes .venv with what the quickstart and the tests need, and goes to the repository's root; quick when nothing
# has changed. Sourced by quickstart.sh and test.sh; run by itself it only installs.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"

EXTRAS="train,models,cluster,libero,serve,robot,dev"
TORCH_WITHOUT_GPU="torch==2.13.0"
# Shared library -> Debian/Ubuntu package: MuJoCo draws through EGL (Mesa, in software, where there is no GPU);
# OpenCV needs glib, the RealSense driver libusb.
LIBRARIES=(libEGL.so.1:libegl1 libEGL_mesa.so.0:libegl-mesa0 libGL.so.1:libgl1
  libgthread-2.0.so.0:libglib2.0-0 libusb-1.0.so.0:libusb-1.0-0)

fail() { echo "error: $*" >&2; exit 1; }

find_python() { # prints the first Python of at least 3.11
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$name"; return; fi
  done
}

install_system_packages() {
  local line="apt-get install -y --no-install-recommends $*" as_root=()
  command -v apt-get >/dev/null || fail "install what Debian calls $*, then run this again"
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || fail "system packages are missing; run: sudo apt-get update && sudo $line"
    as_root=(sudo -n)
  fi
  echo "installing system packages: $*"
  "${as_root[@]}" apt-get update -qq || fail "apt-get update failed; run: sudo apt-get update && sudo $line"
  # shellcheck disable=SC2086  # the line is split into words on purpose
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $line >/dev/null || fail "apt-get failed; run: sudo $line"
}

check_system() {
  local known entry python missing=()
  known="$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p)"
  for entry in "${LIBRARIES[@]}"; do
    [[ "$known" == *"${entry%%:*}"* ]] || missing+=("${entry##*:}")
  done
  python="$(find_python)"
  if ! command -v "${python:-python3}" >/dev/null; then
    missing+=(python3 python3-venv)
  elif [ -n "$python" ] && ! "$python" -c 'import ensurepip' 2>/dev/null; then
    missing+=("$python-venv")  # Debian packs venv apart
  fi
  # Mesa's drivers are no library that ldconfig lists.
  [[ "${missing[*]-}" != *libegl* ]] || missing+=(libgl1-mesa-dri)
  [ ${#missing[@]} = 0 ] || install_system_packages "${missing[@]}"
}

install_python_packages() {
  local python; python="$(find_python)"
  [ -n "$python" ] || fail "Python 3.11 or newer is needed, found $(python3 -V 2>&1); install python3.11 and python3.11-venv"
  [ -x .venv/bin/python ] || "$python" -m venv .venv ||
    fail "$python cannot make a virtual environment; run: sudo apt-get install -y python3-venv"
  echo "installing Python packages into .venv (some minutes the first time)"
  # Without a GPU one known version of torch; with one, whatever build this machine's own index serves.
  if ! .venv/bin/python -c 'import torch' 2>/dev/null && ! nvidia-smi -L >/dev/null 2>&1; then
    .venv/bin/python -m pip install -q "$TORCH_WITHOUT_GPU"
  fi
  .venv/bin/python -m pip install -q -e ".[$EXTRAS]"
  keep_opencv_headless
}

# LIBERO's packages ask for opencv-python, which shares its folder cv2 with our opencv-python-headless: whichever pip
# unpacked last is imported. The one with windows wants libGL, X and Qt, which a server or a container may lack, and
# nothing here opens a window. Both stay listed as installed, so that pip has no reason to fetch either again.
keep_opencv_headless() {
  if ! grep -q '^headless = True' .venv/lib/python*/site-packages/cv2/version.py; then
    .venv/bin/python -m pip install -q --force-reinstall --no-deps "opencv-python-headless>=4.10,<5"
  fi
}

stamp="$(cat pyproject.toml launch/bootstrap.sh <(echo "$ROOT") | sha256sum)"
if [ "$(cat .venv/installed-for 2>/dev/null)" != "$stamp" ]; then
  exec 9<"$ROOT"  # two commands started at once install one after the other
  flock 9
  check_system
  install_python_packages
  echo "$stamp" >.venv/installed-for
  exec 9<&-
fi
export PATH="$ROOT/.venv/bin:$PATH"
# EGL draws in software too; one rendering thread a context, because the simulator brings its own threads.
export MUJOCO_GL="${MUJOCO_GL:-egl}" LP_NUM_THREADS="${LP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
