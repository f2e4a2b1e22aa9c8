//! Facts about the host that plans depend on. Looks, decides nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use urunc_rootfs::root::Libraries;
use urunc_vmm::KvmAccess;

/// Finds `name` in the directories of `path` (the value of `PATH`).
#[must_use]
pub fn find_program(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| {
            rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok() && candidate.is_file()
        })
}

/// Whether `program` is linked dynamically, that is, whether it is an ELF file with a `PT_INTERP` header (elf(5)). A
/// script counts as dynamic: its interpreter lies in the system's directories.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn libraries_of(program: &Path) -> io::Result<Libraries> {
    const PT_INTERP: u32 = 3;
    let mut file = File::open(program)?;
    // The program headers follow the header in almost all files, and are then read with it.
    let mut start = [0u8; 1024];
    let length = file.read(&mut start)?;
    let Some((header, _)) = start[..length].split_first_chunk::<64>() else { return Ok(Libraries::System) };
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(Libraries::System);
    }
    let offset = u64::from_le_bytes(field(header, 32));
    let size = u16::from_le_bytes(field(header, 54));
    let count = u16::from_le_bytes(field(header, 56));
    for index in 0..u64::from(count) {
        let mut kind = [0u8; 4];
        let place = offset.saturating_add(index * u64::from(size));
        let known = usize::try_from(place).ok().and_then(|place| start[..length].get(place..)?.first_chunk());
        match known {
            Some(read) => kind = *read,
            None if file.seek(SeekFrom::Start(place)).is_err() || file.read_exact(&mut kind).is_err() => {
                break;
            }
            None => {}
        }
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(Libraries::System);
        }
    }
    Ok(Libraries::None)
}

/// Whether `/dev/kvm` can be opened, and whether this host is a virtual machine itself.
#[must_use]
pub fn kvm() -> KvmAccess {
    const DEVICE: &str = "/dev/kvm";
    if let Err(error) = File::options().read(true).write(true).open(DEVICE) {
        return KvmAccess::Unusable { reason: format!("{DEVICE}: {error}") };
    }
    // The flag is set by every hypervisor for its guests (CPUID leaf 1, ECX bit 31). Other architectures have no such line.
    let cpuinfo = crate::procfs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if flags.split_ascii_whitespace().any(|flag| flag == "hypervisor") {
        KvmAccess::Nested
    } else {
        KvmAccess::Native
    }
}

/// Whether a process, dead or alive, has executed a program since it was forked; `None` if it has been reaped.
///
/// The kernel marks a process that has not by `PF_FORKNOEXEC` (include/linux/sched.h) in the flags that proc_pid_stat(5)
/// shows as field 9.
pub(super) fn has_executed(pid: urunc_state::Pid) -> Option<bool> {
    const PF_FORKNOEXEC: u64 = 0x40;
    let stat = crate::procfs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; the field after it is the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let flags: u64 = rest.split_ascii_whitespace().nth(9 - 3)?.parse().ok()?;
    Some(flags & PF_FORKNOEXEC == 0)
}

fn field<const N: usize>(header: &[u8; 64], at: usize) -> [u8; N] {
    std::array::from_fn(|index| header[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        assert_eq!(libraries_of(Path::new("/proc/self/exe")).unwrap(), Libraries::System);
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert_eq!(libraries_of(script.path()).unwrap(), Libraries::System);
        let mut elf = [0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        std::fs::write(script.path(), elf).unwrap();
        assert_eq!(libraries_of(script.path()).unwrap(), Libraries::None);
    }

    #[test]
    fn a_program_is_told_from_a_fork() {
        let pid = urunc_state::Pid::new(std::process::id().into()).unwrap();
        assert_eq!(has_executed(pid), Some(true));
    }

    #[test]
    fn programs_are_searched_in_absolute_directories_only() {
        assert!(find_program("sh", "/nonexistent:/bin".as_ref()).is_some());
        assert_eq!(find_program("sh", "bin:.".as_ref()), None);
    }
}
