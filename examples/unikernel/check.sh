#!/usr/bin/env bash
# check.sh [FOLDER]: checks the built guests: what the monitors look for is in the files, what they choke on is not,
# and one of them boots. FOLDER is where cargo has put them; without it, they are built first.
set -euo pipefail
cd "$(dirname "$0")"

folder=${1:-}
if [ -z "$folder" ]; then
  cargo build --quiet --release
  folder=${CARGO_TARGET_DIR:-target}/release
fi
wrong=0
complain() { echo "check.sh: $*" >&2; wrong=1; }

# check_file NAME TENDER [DEVICE]: TENDER as in the ABI note, 1 for hvt and 2 for spt; DEVICE declared by the manifest.
check_file() {
  local name=$1 tender=$2 device=${3:-} file=$folder/$1 headers notes
  [ -f "$file" ] || { complain "$name is missing in $folder"; return; }

  # A nested KVM that interprets the guest cannot do these.
  if objdump -d "$file" | grep -Eq '%([xyz]mm|mm|st\b)'; then
    complain "$name has vector or floating-point instructions: objdump -d $file | grep xmm"
  fi
  # Panics bring such instructions, and the places that they name.
  if strings "$file" | grep -q '\.rs$'; then complain "$name can panic: strings $file | grep '\.rs'"; fi

  headers=$(readelf -hlW "$file")
  grep -q 'Type: *EXEC' <<<"$headers" || complain "$name is not an ET_EXEC file, which Solo5 wants"
  grep -q 'interpreter: /nonexistent/solo5/' <<<"$headers" || complain "$name could be executed by the host"
  awk '$1 == "LOAD" && $3 < "0x0000000000100000" { bad = 1 } END { exit bad }' <<<"$headers" ||
    complain "$name is loaded below 1 MiB"
  # Each note has a program header of its own, and the one of PVH is the last: that is where Firecracker looks.
  [ "$(awk '/Section to Segment/ { map = 1 } map && /\.note/ && NF == 2 { printf "%s ", $2 }' <<<"$headers")" = \
    ".note.solo5.abi .note.solo5.manifest .note.Xen " ] || complain "$name has other notes, or in another order"

  notes=$(readelf -nW "$file" 2>/dev/null | tr -s ' \t' ' ')
  grep -q "Solo5 0x00000010 .*(0x31494241) .*data: 0$tender 00 00 00 02 00 00 00" <<<"$notes" ||
    complain "$name does not say that it is for tender $tender, version 2"
  grep -q 'Solo5 0x.* (0x3154464d)' <<<"$notes" || complain "$name has no Solo5 manifest"
  grep -q 'Xen 0x00000004 .*(0x00000012)' <<<"$notes" || complain "$name has no PVH entry"
  if [ -n "$device" ]; then
    objcopy -O binary -j .note.solo5.manifest "$file" /dev/stdout | tr -d '\0' | grep -aq "$device" ||
      complain "$name does not declare the device $device"
  fi
}

check_boot() {
  local output status=0 expected
  if ! command -v qemu-system-x86_64 >/dev/null; then
    echo "skipped: needs qemu" >&2
    case ,${URUNC_REQUIRE:-}, in *,qemu,*) complain "qemu is required and missing" ;; esac
    return
  fi
  expected='Hello from the urunc demo unikernel, booted by PVH under QEMU
memory: 8 MiB
word 1: one
word 2: exit=3
powering off with status 3'
  output=$(timeout 60 qemu-system-x86_64 -nodefaults -no-user-config -nographic -no-reboot -serial stdio -m 8 \
    -M microvm,accel=tcg,acpi=off -device isa-debug-exit -kernel "$folder/demo" -append 'one exit=3' </dev/null |
    sed 's/ MiB (.*/ MiB/') || status=$?
  # The device reports (3 << 1) | 1.
  [ $status = 7 ] || complain "demo ended with status $status under QEMU, not 7"
  [ "$output" = "$expected" ] || complain "demo said under QEMU: $output"
}

check_file demo 1
check_file demo-spt 2
check_file demo-net 1 service
check_file demo-net-spt 2 service
check_file demo-block 1 storage
check_file demo-block-spt 2 storage
check_boot
exit $wrong
