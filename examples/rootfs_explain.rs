//! Which root file system would this image get, and why: `cargo run --example rootfs_explain -- DIRECTORY`.
//!
//! Supposes a Linux guest under QEMU whose image asks for its own root file system.

use std::error::Error;
use std::path::PathBuf;

use urunc_rootfs::select::{
    ContainerRootfs, Facts, GuestSupport, MonitorSupport, MountRootfs, Support, Wish,
};
use urunc_rootfs::{Image, MountTable, select};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("give the directory of an unpacked image")?;
    let image = Image::open(directory)?;
    let virtiofsd = PathBuf::from("/usr/libexec/virtiofsd");
    let facts = Facts {
        wish: Wish { mount_rootfs: MountRootfs::Yes, ..Wish::default() },
        guest: GuestSupport {
            disks: Support::Yes,
            file_systems: vec!["ext4".to_owned()],
            virtiofs: Support::Yes,
            nine_p: Support::Yes,
        },
        monitor: MonitorSupport { virtiofs: Support::Yes, nine_p: Support::Yes },
        virtiofsd: virtiofsd.exists().then_some(virtiofsd),
        container: ContainerRootfs::probe(&image, &MountTable::read()?)?,
    };
    let decision = select(&facts)?;
    let passed_over = decision.passed_over.iter().map(|passed| format!("  {passed}\n"));
    let text = format!("{}\n{}", decision.selection.way(), passed_over.collect::<String>());
    Ok(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?)
}
