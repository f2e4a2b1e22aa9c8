//! Whether the monitor, which has no capability, may open a file of the image: the kernel's rule for owner, group and
//! others (path_resolution(7)), asked at create so that the answer is a sentence and not the monitor's death.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use urunc_rootfs::Access;

use crate::bundle::User;

/// Whether `user`, without capabilities, may open a file with this metadata.
pub(super) fn may(user: &User, file: &Metadata, access: Access) -> bool {
    allows(user, file.mode(), file.uid(), file.gid(), access)
}

fn allows(user: &User, mode: u32, owner: u32, group: u32, access: Access) -> bool {
    let bits = if user.uid == owner {
        mode >> 6
    } else if user.gid == group || user.groups.contains(&group) {
        mode >> 3
    } else {
        mode
    };
    let wanted = match access {
        Access::ReadOnly => 0o4,
        Access::ReadWrite => 0o6,
    };
    bits & wanted == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let user = |uid, gid, groups: &[u32]| User { uid, gid, groups: groups.to_vec(), umask: None };
        let (ro, rw) = (Access::ReadOnly, Access::ReadWrite);
        for (user, mode, access, expected) in [
            (user(0, 0, &[]), 0o644, rw, true),
            (user(1, 1, &[]), 0o644, ro, true),
            (user(1, 1, &[]), 0o644, rw, false),
            (user(1, 0, &[]), 0o660, rw, true),
            (user(1, 1, &[0]), 0o660, rw, true),
            // Root without capabilities is a user like any other, and an owner without permission has none.
            (user(0, 0, &[]), 0o066, ro, false),
            (user(1, 0, &[]), 0o606, rw, false),
        ] {
            assert_eq!(allows(&user, mode, 0, 0, access), expected, "{user:?} {mode:o} {access:?}");
        }
    }
}
