//! Facts about the host that plans depend on. Looks, decides nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use urunc_rootfs::root::Libraries;
use urunc_state::Process;
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

/// Whether a process, dead or alive, has executed a program since it was forked; `None` if it has been reaped, even if its number has gone to
/// another.
///
/// The kernel marks a process that has not by `PF_FORKNOEXEC` (include/linux/sched.h) in the flags that proc_pid_stat(5)
/// shows as field 9.
pub(super) fn has_executed(process: &Process) -> Option<bool> {
    const PF_FORKNOEXEC: u64 = 0x40;
    Some(stat_field(process, 9)? & PF_FORKNOEXEC == 0)
}

/// Whether a process that has ended was ended by SIGKILL; `None` if it lives, or if its parent has reaped it.
pub(super) fn was_killed(process: &Process) -> Option<bool> {
    const SIGNAL: u64 = 0x7f;
    let (dead, code) = (process.is_alive().ok().map(|alive| !alive)?, stat_field(process, 52)?);
    dead.then_some(code & SIGNAL == u64::from(urunc_state::Signal::KILL.number()))
}

/// A field of proc_pid_stat(5), which is not the one of a process that got the number later.
fn stat_field(process: &Process, field: usize) -> Option<u64> {
    let stat = crate::procfs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
    // Only now: if it has its number still, it had it when that was looked at. A pidfd's has -1 once it has been reaped (pidfd_show_fdinfo in the kernel).
    let fdinfo = format!("/proc/self/fdinfo/{}", process.pidfd().as_raw_fd());
    let fdinfo = crate::procfs::read_to_string(fdinfo).ok()?;
    let number: i64 = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    // The name, in parentheses, may contain anything; the field after it is the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let value = rest.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse().ok()?;
    (number > 0).then_some(value)
}

fn field<const N: usize>(header: &[u8; 64], at: usize) -> [u8; N] {
    std::array::from_fn(|index| header[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_executed_something_until_nobody_knows() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = urunc_state::Pid::new(child.id().into()).unwrap();
        let process = Process::with_pid(pid).unwrap().unwrap();
        // `spawn` returns once it has.
        assert_eq!((has_executed(&process), was_killed(&process)), (Some(true), None));
        child.kill().unwrap();
        let deadline = urunc_state::Deadline::after(std::time::Duration::from_secs(60));
        assert_eq!(process.wait(deadline).unwrap(), urunc_state::Waited::Exited);
        assert_eq!((has_executed(&process), was_killed(&process)), (Some(true), Some(true)));
        child.wait().unwrap();
        assert_eq!((has_executed(&process), was_killed(&process)), (None, None));
    }

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
    fn programs_are_searched_in_absolute_directories_only() {
        assert!(find_program("sh", "/nonexistent:/bin".as_ref()).is_some());
        assert_eq!(find_program("sh", "bin:.".as_ref()), None);
    }
}
