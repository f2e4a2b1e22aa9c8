//! What each guest framework can mount: a table, so that the choice of a root file system knows it.

use urunc_rootfs::initrd::Dialect;
use urunc_rootfs::select::{GuestSupport, Support};
use urunc_vmm::Guest;

/// Which root file systems and disks a guest can use.
pub(super) fn of(guest: Guest) -> GuestSupport {
    let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let none = GuestSupport::default();
    match guest {
        Guest::Linux => GuestSupport {
            disks: Support::Yes,
            file_systems: files(&["ext2", "ext3", "ext4"]),
            virtiofs: Support::Yes,
            nine_p: Support::Yes,
        },
        Guest::Freebsd => {
            GuestSupport { disks: Support::Yes, file_systems: files(&["ext2"]), nine_p: Support::Yes, ..none }
        }
        Guest::Rumprun => GuestSupport { disks: Support::Yes, file_systems: files(&["ext2"]), ..none },
        Guest::Unikraft => GuestSupport { nine_p: Support::Yes, ..none },
        // They get a disk and read it themselves.
        Guest::Mirage | Guest::Generic => GuestSupport { disks: Support::Yes, ..none },
        Guest::Mewz | Guest::Hermit => none,
    }
}

/// How files can be added to a guest's initrd, if it is an archive at all: Hermit's is its application.
pub(super) fn dialect(guest: Guest) -> Option<Dialect> {
    match guest {
        Guest::Linux => Some(Dialect::Appended),
        Guest::Unikraft => Some(Dialect::Single),
        Guest::Freebsd | Guest::Rumprun | Guest::Mirage | Guest::Mewz | Guest::Hermit | Guest::Generic => {
            None
        }
    }
}

/// Who mounts a guest's disks that are not its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mounter {
    /// The framework, told where.
    Framework,
    /// The program in the guest, which knows where.
    Program,
}

/// Who mounts the disks of a guest.
pub(super) fn mounter(guest: Guest) -> Mounter {
    match guest {
        Guest::Mirage | Guest::Generic => Mounter::Program,
        _ => Mounter::Framework,
    }
}
